"""What runs in the processes of SEED's parts: servers and actors, each a generator.

A server yields the address at which it serves; what it is told is for how many seconds to compute
the network alone, and it yields that turn. Actors yield None when they are connected; what they
are told is how long to exchange steps.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent import futures

import grpc
import numpy as np

from tfdrl.benchmarks.measuring import Turn, Variant
from tfdrl.benchmarks.processes import Job
from tfdrl.errors import UnavailableError
from tfdrl.rpc import channels, client_stream, environment_specs, inference_pb2, tensors
from tfdrl.rpc.inference_client import ActorStoppedError, InferenceClient
from tfdrl.rpc.inference_messages import METHOD, SERVICE, StepsEncoder, max_request_bytes
from tfdrl.topology import Address
from tfdrl.types import MID, Episodes, TimeSteps

_METHOD = f"/{SERVICE}/{METHOD}"
_TIMEOUT_SECS = 60.0
_NO_EPISODES = Episodes(np.zeros(0, np.float32), np.zeros(0, np.int64))
_MOST_TIMES = 2000  # that are answered


def echo_server(job: Job) -> Generator[Address, float, None]:
    """A bare stream that answers each message with as many actions."""
    num_envs, (specs, _) = job.config.environments_per_actor, _first_steps(job, 0)
    reply = inference_pb2.ActReply()
    for spec in specs.action:
        zeros = np.zeros((num_envs, *spec.shape), spec.dtype)
        reply.actions.action.append(tensors.encode(zeros))
    answer = reply.SerializeToString()
    size = max_request_bytes(specs, num_envs)
    pool = futures.ThreadPoolExecutor(job.config.actors + 4)
    server = grpc.server(pool, options=channels.server_options(size, size))
    handler = grpc.stream_stream_rpc_method_handler(
        lambda requests, context: (answer for _ in requests)
    )
    handlers = {METHOD: handler}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield Address("127.0.0.1", port)


def network_server(job: Job) -> Generator[Address | Turn, float, None]:
    """The learner's own service, whose unrolls nobody learns from."""
    return _service_server(job, with_network=True)


def null_server(job: Job) -> Generator[Address | Turn, float, None]:
    """The same without a network."""
    return _service_server(job, with_network=False)


def _service_server(job: Job, with_network: bool) -> Generator[Address | Turn, float, None]:
    import tensorflow as tf

    from tfdrl.inference.awaited import AwaitedEnvironments
    from tfdrl.inference.environments import CentralInference
    from tfdrl.inference.policy import BatchedPolicy
    from tfdrl.rpc.inference_server import InferenceService
    from tfdrl.rpc.run_server import TrainingServer
    from tfdrl.runtime import agent_factory

    config = job.config
    with config.environment(num_envs=1, training=True, seed=0) as environment:
        specs = environment_specs.environment_specs(environment)
        agent = agent_factory.make_agent(config.agent, environment, config.compute_dtype)
    info = tf.nest.flatten(agent.collect_policy.info_spec)

    class NoNetwork(BatchedPolicy):
        """Actions and states of zero; the rest is as with a network."""

        def _compute(self, arrays, count, slot):
            rows = len(arrays[0])
            return [
                *(np.zeros((rows, *spec.shape), spec.dtype) for spec in self._specs.action),
                *(
                    np.zeros((rows, *spec.shape), spec.dtype.as_numpy_dtype)
                    for spec in [*self._state_specs, *info]
                ),
            ]

    awaited = AwaitedEnvironments()
    inference = (BatchedPolicy if with_network else NoNetwork)(
        agent.collect_policy,
        specs,
        environments=config.environments,
        rows_wanted=lambda: config.rows_wanted(awaited.count()),
        rows_present=awaited.count,
        max_rows=config.max_rows,
        time_limit_secs=config.inference_time_limit_ms / 1000,
        devices=config.inference_devices,
        jit_compile=config.jit_compile,
    )
    player = CentralInference(
        inference,
        specs,
        environments=config.environments,
        max_block=config.max_rows,
        unroll_steps=config.unroll_steps,
        awaited=awaited,
        put=lambda unrolls: unrolls.release(),
    )
    service = InferenceService(player, job.digest, specs).served_for(config.environments)
    server = TrainingServer(Address("127.0.0.1", 0), job.digest, more=service)
    player.open(server.record, lambda: 0)
    alone, found = _network_alone(config, inference), server.address
    while True:
        secs = yield found
        alone(0.0)
        found = alone(secs)


def _network_alone(config, inference) -> Variant:
    """The policy on batches as large as those of all actors, or the largest of the gin file."""
    from tfdrl.runtime.host_tensors import aligned_empty

    rows = min(config.rows_wanted(config.environments), config.max_rows)
    with config.environment(num_envs=rows, training=True, seed=1) as environment:
        steps = environment.reset()
        leaves = environment_specs.flatten(environment.observation_spec, steps.observation)
        stack = environment.frame_stack
    if stack > 1:
        leaves = [leaves[0][..., -1], np.full(rows, stack, np.uint8)]
    given = [steps.step_type, steps.reward, steps.discount, inference.begin(0, rows).rows[0]]
    arrays = [aligned_empty(array.shape, array.dtype) for array in [*given, *leaves]]
    for array, values in zip(arrays, [*given, *leaves]):
        array[...] = values

    def work():
        inference._compute(arrays, rows, 0)
        return rows

    return Variant(work)


def random_actor(job: Job, server: Address, task: int) -> Generator[int | None, float, None]:
    """An actor's own client, which writes each message; the steps are always the same."""
    specs, first = _first_steps(job, task)
    client = _client(job, server, task, specs)
    client.act(first, 0, _NO_EPISODES)
    mid = first._replace(step_type=np.full_like(first.step_type, MID))
    yield from _exchanging(lambda: client.act(mid, 0, _NO_EPISODES), len(first.reward))


def bare_actor(job: Job, server: Address, task: int) -> Generator[int | None, float, None]:
    """grpcio alone: the same bytes each time."""
    requests: queue.SimpleQueue = queue.SimpleQueue()
    data, num_envs, channel = _bare(job, server, task)
    with channel:
        replies = channel.stream_stream(_METHOD)(iter(requests.get, None))

        def exchange():
            requests.put(data)
            next(replies)

        yield from _exchanging(exchange, num_envs)


def bare_actor_of_one_thread(
    job: Job, server: Address, task: int
) -> Generator[int | None, float, None]:
    """The same on a stream that its caller's thread drives, as an actor's does.

    Raises UnavailableError if the server gives no answer, or this grpcio has no such stream.
    """
    if not client_stream.one_is_enough():
        raise UnavailableError(f"grpcio {grpc.__version__} has no stream that one thread drives")
    data, num_envs, channel = _bare(job, server, task)
    with channel:
        stream = client_stream.open_stream(channel, _METHOD, (), threading.Event())

        def exchange():
            reply = stream.ask(data, time.monotonic() + _TIMEOUT_SECS)
            if not isinstance(reply, bytes):
                raise UnavailableError(f"the echo at {server} gave no answer: {reply}")

        with contextlib.closing(stream):
            yield from _exchanging(exchange, num_envs)


def _bare(job: Job, server: Address, task: int) -> tuple[bytes, int, grpc.Channel]:
    """An actor's first message, of how many environments, and a channel of its own."""
    specs, first = _first_steps(job, task)
    num_envs = len(first.reward)
    size = max_request_bytes(specs, num_envs)
    channel = grpc.insecure_channel(str(server), channels.channel_options(size, size))
    return StepsEncoder(specs, num_envs).encode(0, first, 0, None), num_envs, channel


def _first_steps(job: Job, task: int) -> tuple[environment_specs.EnvironmentSpecs, TimeSteps]:
    """The specs of the environment, and the first time steps of an actor's N."""
    num_envs = job.config.environments_per_actor
    with job.config.environment(num_envs=num_envs, training=True, seed=task) as environment:
        return environment_specs.environment_specs(environment), environment.reset()


def _client(
    job: Job, server: Address, task: int, specs, stop: threading.Event | None = None
) -> InferenceClient:
    return InferenceClient(
        server,
        experiment=job.digest,
        task=task,
        environments=job.config.environments_per_actor,
        specs=specs,
        timeout_secs=_TIMEOUT_SECS,
        stop=stop or threading.Event(),
    )


def _exchanging(exchange: Callable[[], object], num_envs: int):
    """Exchanges steps for as long as it is told; yields how many observations that were."""
    exchange()
    count = None
    while True:
        end_secs = (yield count) + time.perf_counter()
        count = 0
        while time.perf_counter() < end_secs:
            exchange()
            count += num_envs


class _ActingThread(threading.Thread):
    """An actor with environment, client and connection: steps from when it is told to."""

    def __init__(self, job: Job, server: Address, task: int):
        super().__init__(name=f"actor-{task}", daemon=True)
        num_envs = job.config.environments_per_actor
        self._environment = job.config.environment(num_envs=num_envs, training=True, seed=task)
        specs = environment_specs.environment_specs(self._environment)
        self._ending = threading.Event()
        self._client = _client(job, server, task, specs, self._ending)
        self.may_go, self.has_acted = threading.Event(), threading.Event()
        self.count, self.times_ms = 0, []
        self.start()

    def run(self) -> None:
        self.may_go.wait()
        with contextlib.suppress(ActorStoppedError):
            self._play()

    def end(self) -> None:
        """After its step."""
        self._ending.set()
        self.may_go.set()

    def _play(self) -> None:
        steps, frames = self._environment.reset(), 0
        while True:
            start_secs = time.perf_counter()
            action = self._client.act(steps, frames, self._environment.take_episodes())
            self.times_ms.append(1000 * (time.perf_counter() - start_secs))
            self.has_acted.set()
            steps = self._environment.step(action)
            frames += len(steps.reward)
            self.count += len(steps.reward)


def acting_threads(job: Job, server: Address, tasks: Sequence[int]):
    """Some actors; told (seconds, number) it lets so many of them step, who go on with it.

    Yields how many steps they made in so many seconds, once each of them had an action, and some of
    the times <float>[most 2000] from steps to actions in ms. Raises UnavailableError if some have
    no action, or end.
    """
    actors = [_ActingThread(job, server, task) for task in tasks]
    answer = None
    try:
        while True:
            secs, number = yield answer
            answer = _go(actors[:number], secs)
    finally:
        for actor in actors:
            actor.end()


def _go(actors: Sequence[_ActingThread], secs: float) -> tuple[int, np.ndarray]:
    for actor in actors:
        actor.may_go.set()
    deadline_secs = time.monotonic() + _TIMEOUT_SECS
    for actor in actors:
        actor.has_acted.wait(max(0.0, deadline_secs - time.monotonic()))
    if waiting := sum(not actor.has_acted.is_set() for actor in actors):
        raise UnavailableError(
            f"{waiting} of {len(actors)} actors had no action within {_TIMEOUT_SECS:g} s"
        )
    before = sum(actor.count for actor in actors)
    for actor in actors:
        actor.times_ms.clear()
    time.sleep(secs)
    count = sum(actor.count for actor in actors) - before
    times_ms = np.sort([value for actor in actors for value in list(actor.times_ms)])
    if ended := sum(not actor.is_alive() for actor in actors):
        raise UnavailableError(f"{ended} of {len(actors)} actors have ended; see above")
    return count, times_ms[:: max(1, len(times_ms) // _MOST_TIMES)]
