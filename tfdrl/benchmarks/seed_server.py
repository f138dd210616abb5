"""A server of the inference service's benchmark: an echo, no network, or the gin file's own.

Commands on stdin: "raw SECS" computes the network alone, on batches as large as two actors' or the
gin file's, and prints how many observations that were and the CPU seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent import futures

import grpc
import numpy as np
from absl import flags

from tfdrl.errors import EXIT_OK
from tfdrl.launch import command_line, process
from tfdrl.topology import Address

_KINDS = ("echo", "null", "network")


def main(argv: Sequence[str]) -> int:
    """Serves, prints its port and the digest, obeys until stdin ends."""
    values = flags.FlagValues()
    command_line.gin_flags(values)
    flags.DEFINE_enum("kind", "echo", _KINDS, "What is served.", flag_values=values)
    command_line.parse(values, argv, "A server; started by tfdrl-benchmark.")
    process.die_with_launcher()
    process.silence()
    from tfdrl import configuration
    from tfdrl.experiment import Experiment

    loaded = configuration.load(values.gin_file, values.gin_bindings, tensorflow=False)
    config = Experiment.from_gin().architecture
    process.limit_threads(config.learner_threads)
    raw = None
    if values.kind == "echo":
        server, port = _echo(config)
    else:
        configuration.load(values.gin_file, values.gin_bindings, tensorflow=True)
        server, port, raw = _service(Experiment.from_gin(), loaded.digest, values.kind)
    print(port, loaded.digest, flush=True)
    for line in sys.stdin:
        print(*raw(float(line.split()[1])), flush=True)
    del server
    return EXIT_OK


def _echo(config) -> tuple[grpc.Server, int]:
    """A bare stream that answers each message with as many actions."""
    from tfdrl.rpc import channels, inference_pb2, tensors
    from tfdrl.rpc.environment_specs import environment_specs
    from tfdrl.rpc.inference_messages import METHOD, SERVICE, max_request_bytes

    with config.environment(num_envs=1, training=True, seed=0) as environment:
        specs = environment_specs(environment)
    reply = inference_pb2.ActReply()
    for spec in specs.action:
        zeros = np.zeros((config.environments_per_actor, *spec.shape), spec.dtype)
        reply.actions.action.append(tensors.encode(zeros))
    answer = reply.SerializeToString()
    size = max_request_bytes(specs, config.environments_per_actor)
    pool = futures.ThreadPoolExecutor(config.actors + 4)
    server = grpc.server(pool, options=channels.server_options(size, size))
    handler = grpc.stream_stream_rpc_method_handler(
        lambda requests, context: (answer for _ in requests)
    )
    handlers = {METHOD: handler}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def _service(experiment, digest: str, kind: str):
    """The learner's own service, whose unrolls nobody learns from."""
    import tensorflow as tf

    from tfdrl.inference.environments import CentralInference
    from tfdrl.inference.policy import BatchedPolicy
    from tfdrl.rpc import environment_specs
    from tfdrl.rpc.inference_server import InferenceService
    from tfdrl.rpc.run_server import TrainingServer
    from tfdrl.runtime import agent_factory

    config = experiment.architecture
    with config.environment(num_envs=1, training=True, seed=0) as environment:
        specs = environment_specs.environment_specs(environment)
        agent = agent_factory.make_agent(config.agent, environment)

    info = tf.nest.flatten(agent.collect_policy.info_spec)

    class NoNetwork(BatchedPolicy):
        """Actions of zero and the state as it was; the rest is as with a network."""

        def _compute(self, arrays, count, slot):
            states = arrays[len(arrays) - len(self._state_specs) :]
            rows = len(arrays[0])
            return [
                *(np.zeros((rows, *spec.shape), spec.dtype) for spec in self._specs.action),
                *(state.copy() for state in states),
                *(np.zeros((rows, *spec.shape), spec.dtype.as_numpy_dtype) for spec in info),
            ]

    inference = (NoNetwork if kind == "null" else BatchedPolicy)(
        agent.collect_policy,
        specs,
        rows_wanted=lambda: config.rows_wanted(player.environments_awaited()),
        rows_present=lambda: player.environments_awaited(),
        max_rows=config.max_rows,
        time_limit_secs=config.inference_time_limit_ms / 1000,
        devices=config.inference_devices,
        jit_compile=config.jit_compile,
    )
    player = CentralInference(
        *(inference, specs),
        environments=config.environments,
        max_block=config.max_rows,
        unroll_steps=config.unroll_steps,
        put=lambda unrolls: unrolls.release(),
    )
    player.open(lambda report: None, lambda: 0)
    service = InferenceService(player, digest, specs).served_for(config.environments)
    server = TrainingServer(Address("127.0.0.1", 0), digest, more=service)
    rows = min(config.rows_wanted(config.environments), config.max_rows)
    with config.environment(num_envs=rows, training=True, seed=1) as environment:
        steps = environment.reset()
    leaves = environment_specs.flatten(environment.observation_spec, steps.observation)
    arrays = [steps.step_type, steps.reward, steps.discount, *leaves]
    arrays += inference.initial_state(0, rows)

    def raw(secs: float) -> tuple[int, float]:
        inference._compute(arrays, rows, 0)
        start, cpu, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - start < secs:
            inference._compute(arrays, rows, 0)
            count += rows
        return count, time.process_time() - cpu

    return server, server.address.port, raw


def console() -> None:
    """Entry point of the process."""
    process.leave(command_line.run("tfdrl benchmark", main, sys.argv))


if __name__ == "__main__":
    console()
