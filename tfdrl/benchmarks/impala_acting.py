"""The parts of IMPALA's actor: stepping environments (a) and inserting unrolls (b)."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import reverb
import tensorflow as tf
import tree
from tf_agents.trajectories import time_step

from tfdrl.acting.exploration import collect_policy
from tfdrl.acting.loop import ActorLoop
from tfdrl.architectures.impala import Impala
from tfdrl.benchmarks.measuring import Turn, Variant, interleave
from tfdrl.benchmarks.stepping import NoLearner, compare, make_environment
from tfdrl.benchmarks.subject import PartJob
from tfdrl.experience.unroll_assembler import UnrollAssembler
from tfdrl.replay.unroll_tables import QUEUE, REPLAY
from tfdrl.replay.unroll_writer import UnrollWriter
from tfdrl.runtime import agent_factory
from tfdrl.topology import Context
from tfdrl.types import Unrolls

_INSERT_UNROLLS = 128  # that are inserted again and again
_INSERT_BYTES = 32 << 20  # and about so many bytes of them at most
_TIMEOUT_SECS = 60.0
_UNCONFIRMED_ITEMS = 24


def tables(config: Impala) -> list[str]:
    """Those that an actor writes to."""
    return [QUEUE, REPLAY] if config.replay_share else [QUEUE]


def stepping(job: PartJob) -> dict[str, list[Turn]]:
    """Turns, in environment steps, of the actor and of what is below it.

    environment  the bare vector environment, with random actions
    inference    the same, acting by a tf.function of the agent's collect policy
    actor        the actor's loop with adapter and assembling of unrolls, without writing
    """
    return compare(job, _sampled, _acting)


def _sampled(agent, num_envs: int):
    """A plain tf.function from observations to sampled actions; it keeps the policy's state."""
    policy = agent.collect_policy
    state = [policy.get_initial_state(num_envs)]
    zeros = tf.zeros([num_envs])

    @tf.function
    def sample(observation, state):
        mid = tf.fill([num_envs], time_step.StepType.MID)
        step = policy.action(time_step.TimeStep(mid, zeros, zeros + 1.0, observation), state)
        return step.action, step.state

    def infer(observation):
        action, state[0] = sample(observation, state[0])
        return action.numpy()

    return infer


def _acting(job: PartJob, environment, agent):
    unrolls = _unrolls(job, environment, agent)
    return lambda: next(unrolls)


def _unrolls(job: PartJob, environment, agent) -> Iterator[Unrolls | None]:
    """What the actor's assembler has after each step: N unrolls, or None before they are full."""
    policy = collect_policy(agent, [0.0] * environment.num_envs, job.seed)
    context = Context("actor", 0, job.config.actors, job.directory)
    loop = ActorLoop(environment, policy, NoLearner(), context)
    assembler = UnrollAssembler(environment.num_envs, job.config.unroll_steps)
    assembler.begin(loop.state)
    for step in loop.steps():
        unrolls = assembler.add(*step, 0)
        if unrolls is not None:
            assembler.begin(loop.state)
        yield unrolls


def collect(job: PartJob) -> list[Unrolls]:
    """Some unrolls, as an actor of this configuration makes them: N and N and so on."""
    found, size, size_bytes = [], 0, 0
    with make_environment(job) as environment:
        agent = agent_factory.make_agent(job.config.agent, environment)
        for unrolls in _unrolls(job, environment, agent):
            if unrolls is None:
                continue
            found.append(unrolls)
            size += len(unrolls.version)
            size_bytes += sum(leaf.nbytes for leaf in tree.flatten(unrolls))
            if size >= _INSERT_UNROLLS or size_bytes >= _INSERT_BYTES:
                return found


def make_writer(job: PartJob) -> UnrollWriter:
    """The actor's writer."""
    return UnrollWriter(job.replay, tables(job.config), _TIMEOUT_SECS, threading.Event())


def inserting(job: PartJob) -> dict[str, list[Turn]]:
    """Turns, in unrolls that the server has confirmed, of writing the same ones twice.

    raw     a plain loop over a `reverb.TrajectoryWriter`, with some unconfirmed all the time
    writer  `UnrollWriter`, which waits for each N

    The tables are emptied now and then instead of being read; that counts in both.
    """
    unrolls = collect(job)
    variants = {"raw": _raw_inserting(job, unrolls), "writer": _inserting(job, unrolls)}
    return interleave("inserting", variants, job.rounds, job.server_pid)


def _inserting(job: PartJob, unrolls: Sequence[Unrolls]) -> Variant:
    writer, client = make_writer(job), reverb.Client(str(job.replay))

    def work():
        before = writer.items
        for each in unrolls:
            writer.write(each)
        _empty(client, job.config)
        return writer.items - before

    return Variant(work)


def _raw_inserting(job: PartJob, unrolls: Sequence[Unrolls]) -> Variant:
    client = reverb.Client(str(job.replay))
    writer = client.trajectory_writer(num_keep_alive_refs=1)
    names = tables(job.config)
    rows = [
        tree.unflatten_as(each, row)
        for each in unrolls
        for row in zip(*map(list, tree.flatten(each)))
    ]

    def work():
        for row in rows:
            writer.append(row)
            item = tree.map_structure(lambda column: column[-1:], writer.history)
            for name in names:
                writer.create_item(name, 1.0, item)
            writer.flush(_UNCONFIRMED_ITEMS, timeout_ms=int(1000 * _TIMEOUT_SECS))
        writer.flush(timeout_ms=int(1000 * _TIMEOUT_SECS))
        _empty(client, job.config)
        return len(rows)

    return Variant(work)


def _empty(client: reverb.Client, config: Impala) -> None:
    for name in tables(config):
        client.reset(name)
