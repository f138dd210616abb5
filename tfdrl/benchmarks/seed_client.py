"""One actor of the inference service's benchmark: random observations, no environment.

Commands on stdin: "go SECS" exchanges steps for so long and prints how many observations that were.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence

import grpc
import numpy as np
from absl import flags

from tfdrl import configuration
from tfdrl.environments.batched import first_time_steps
from tfdrl.errors import EXIT_OK
from tfdrl.experiment import Experiment
from tfdrl.launch import command_line, process
from tfdrl.rpc import channels
from tfdrl.rpc.environment_specs import EnvironmentSpecs, environment_specs
from tfdrl.rpc.inference_client import InferenceClient
from tfdrl.rpc.inference_messages import METHOD, SERVICE, StepsEncoder, max_request_bytes
from tfdrl.topology import Address
from tfdrl.types import MID, Episodes, TimeSteps

_TIMEOUT_SECS = 60.0
_NO_EPISODES = Episodes(np.zeros(0, np.float32), np.zeros(0, np.int64))


def main(argv: Sequence[str]) -> int:
    """Connects, prints "ready", obeys until stdin ends."""
    values = flags.FlagValues()
    command_line.gin_flags(values)
    flags.DEFINE_string("server", "", "Address of the service.", flag_values=values)
    flags.DEFINE_string("experiment", "", "Digest of the configuration.", flag_values=values)
    flags.DEFINE_integer("task", 0, "Number of this actor.", flag_values=values)
    flags.DEFINE_bool("bare", False, "A bare stream, whose server echoes.", flag_values=values)
    command_line.parse(values, argv, "An actor; started by tfdrl-benchmark.")
    process.die_with_launcher()
    configuration.load(values.gin_file, values.gin_bindings, tensorflow=False)
    config = Experiment.from_gin().architecture
    num_envs = config.environments_per_actor
    with config.environment(num_envs=num_envs, training=True, seed=values.task) as environment:
        specs, steps = environment_specs(environment), environment.reset()
    exchange = (_bare if values.bare else _client)(values, specs, steps)
    exchange()
    print("ready", flush=True)
    for line in sys.stdin:
        end_secs, count = time.perf_counter() + float(line.split()[1]), 0
        while time.perf_counter() < end_secs:
            exchange()
            count += num_envs
        print(count, flush=True)
    return EXIT_OK


def _client(values, specs: EnvironmentSpecs, first: TimeSteps) -> Callable[[], None]:
    """An actor's own client: it writes each message."""
    num_envs = len(first.reward)
    client = InferenceClient(
        Address.parse(values.server),
        experiment=values.experiment,
        task=values.task,
        environments=num_envs,
        specs=specs,
        timeout_secs=_TIMEOUT_SECS,
        stop=threading.Event(),
    )
    mid = first_time_steps(first.observation, num_envs)
    mid = mid._replace(step_type=np.full(num_envs, MID, np.int32))
    client.act(first, 0, _NO_EPISODES)
    return lambda: client.act(mid, 0, _NO_EPISODES)


def _bare(values, specs: EnvironmentSpecs, first: TimeSteps) -> Callable[[], None]:
    """grpcio alone: the same bytes each time."""
    data = StepsEncoder(specs, len(first.reward)).encode(0, first, 0, None)
    size = max_request_bytes(specs, len(first.reward))
    channel = grpc.insecure_channel(values.server, channels.channel_options(size, size))
    requests: queue.SimpleQueue = queue.SimpleQueue()
    replies = channel.stream_stream(f"/{SERVICE}/{METHOD}")(iter(requests.get, None))

    def exchange(_keep=channel):
        requests.put(data)
        next(replies)

    return exchange


def console() -> None:
    """Entry point of the process."""
    process.leave(command_line.run("tfdrl benchmark", main, sys.argv))


if __name__ == "__main__":
    console()
