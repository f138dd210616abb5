"""Some actors of the streams' benchmark: each a thread with environment, client and connection.

Commands on stdin: "go SECS ACTORS" lets the first ACTORS of them step for so long; prints how many
steps that were, and the times from steps to actions in ms as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence

from absl import flags

from tfdrl import configuration
from tfdrl.errors import EXIT_OK
from tfdrl.experiment import Experiment
from tfdrl.launch import command_line, process
from tfdrl.rpc import environment_specs as messages
from tfdrl.rpc.inference_client import InferenceClient
from tfdrl.topology import Address

_TIMEOUT_SECS = 60.0
_MOST_TIMES = 2000  # that are printed


class _Actor(threading.Thread):
    """Steps while it is told to."""

    def __init__(self, config, server: str, experiment: str, task: int):
        super().__init__(name=f"actor-{task}", daemon=True)
        num_envs = config.environments_per_actor
        self._environment = config.environment(num_envs=num_envs, training=True, seed=task)
        self._client = InferenceClient(
            Address.parse(server),
            experiment=experiment,
            task=task,
            environments=num_envs,
            specs=messages.environment_specs(self._environment),
            timeout_secs=_TIMEOUT_SECS,
            stop=threading.Event(),
        )
        self.may_go, self.count, self.times_ms = threading.Event(), 0, []
        self.start()

    def run(self) -> None:
        steps, frames = self._environment.reset(), 0
        while True:
            self.may_go.wait()
            start_secs = time.perf_counter()
            action = self._client.act(steps, frames, self._environment.take_episodes())
            self.times_ms.append(1000 * (time.perf_counter() - start_secs))
            steps = self._environment.step(action)
            frames += len(steps.reward)
            self.count += len(steps.reward)


def main(argv: Sequence[str]) -> int:
    """Connects, prints "ready", obeys until stdin ends."""
    values = flags.FlagValues()
    command_line.gin_flags(values)
    flags.DEFINE_string("server", "", "Address of the service.", flag_values=values)
    flags.DEFINE_string("experiment", "", "Digest of the configuration.", flag_values=values)
    flags.DEFINE_list("tasks", [], "Numbers of the actors.", flag_values=values)
    command_line.parse(values, argv, "Actors; started by tfdrl-benchmark.")
    process.die_with_launcher()
    configuration.load(values.gin_file, values.gin_bindings, tensorflow=False)
    config = Experiment.from_gin().architecture
    actors = [_Actor(config, values.server, values.experiment, int(t)) for t in values.tasks]
    print("ready", flush=True)
    for line in sys.stdin:
        _, secs, number = line.split()
        print(*_go(actors[: int(number)], float(secs)), flush=True)
    return EXIT_OK


def _go(actors: Sequence[_Actor], secs: float) -> tuple[int, str]:
    for actor in actors:
        actor.may_go.set()
    time.sleep(0.5)  # all are under way
    before = sum(actor.count for actor in actors)
    for actor in actors:
        actor.times_ms.clear()
    time.sleep(secs)
    count = sum(actor.count for actor in actors) - before
    times_ms = [value for actor in actors for value in list(actor.times_ms)]
    for actor in actors:
        actor.may_go.clear()
    kept = sorted(times_ms)[:: max(1, len(times_ms) // _MOST_TIMES)]
    return count, json.dumps([round(value, 2) for value in kept], separators=(",", ":"))


def console() -> None:
    """Entry point of the process."""
    process.leave(command_line.run("tfdrl benchmark", main, sys.argv))


if __name__ == "__main__":
    console()
