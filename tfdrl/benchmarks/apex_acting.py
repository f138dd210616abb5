"""The parts of Ape-X's actor: stepping environments (a) and inserting transitions (b)."""

from __future__ import annotations

import threading

import reverb
import tensorflow as tf
import tree
from tf_agents.trajectories import time_step

from tfdrl.acting import exploration
from tfdrl.acting.exploration import collect_policy
from tfdrl.acting.loop import ActorLoop
from tfdrl.architectures.apex import Apex
from tfdrl.benchmarks.measuring import Turn, Variant, interleave
from tfdrl.benchmarks.stepping import NoLearner, compare, make_environment
from tfdrl.benchmarks.subject import PartJob
from tfdrl.experience.transitions import TransitionAssembler, TransitionBlock
from tfdrl.replay.transition_table import TABLE
from tfdrl.replay.transition_writer import TransitionWriter
from tfdrl.runtime import agent_factory
from tfdrl.topology import Address, Context

_INSERT_STEPS = 1500  # environment steps whose transitions are inserted again and again
_INSERT_BYTES = 32 << 20  # and at most so many bytes of them
_TIMEOUT_SECS = 60.0
_UNCONFIRMED_ITEMS = 24


def stepping(job: PartJob) -> dict[str, list[Turn]]:
    """Turns, in environment steps, of the actor and of what is below it.

    environment  the bare vector environment, with random actions
    inference    the same, acting greedily by a tf.function of the Q-network
    actor        the actor's loop with exploration, adapter and assembling, without writing
    """
    return compare(job, _greedy, _acting)


def _greedy(agent, num_envs: int):
    """A plain tf.function from observations to greedy actions."""
    network = getattr(agent, "_q_network", None)

    @tf.function
    def greedy(observation):
        if network is None:
            return agent.policy.action(time_step.restart(observation, num_envs)).action
        return tf.argmax(network(observation)[0], axis=-1, output_type=tf.int32)

    return lambda observation: greedy(observation).numpy()


def _acting(job: PartJob, environment, agent):
    loop, assembler = _loop(job, environment, agent)
    steps = loop.steps()

    def step():
        time_step, action, next_time_step, info = next(steps)
        assembler.add(time_step, action, next_time_step, info, 0)

    return step


def _loop(job: PartJob, environment, agent):
    config, num_envs = job.config, environment.num_envs
    ladder = (config.exploration or exploration.epsilon_ladder)(config.actors * num_envs)
    policy = collect_policy(agent, ladder[:num_envs], job.seed)
    context = Context("actor", 0, config.actors, job.directory)
    block_steps = -(-config.actor_buffer_transitions // num_envs)
    return (
        ActorLoop(environment, policy, NoLearner(), context),
        TransitionAssembler(num_envs, config.n_step, config.gamma, block_steps),
    )


def collect(job: PartJob, transitions: int) -> list[TransitionBlock]:
    """Blocks of about so many transitions, as an actor of this configuration makes them."""
    blocks, size, size_bytes = [], 0, 0
    with make_environment(job) as environment:
        agent = agent_factory.make_agent(job.config.agent, environment)
        loop, assembler = _loop(job, environment, agent)
        for time_step, action, next_time_step, info in loop.steps():
            block = assembler.add(time_step, action, next_time_step, info, 0)
            if block is not None:
                blocks.append(block)
                size += int(block.is_valid.sum())
                size_bytes += sum(leaf.nbytes for leaf in tree.flatten(block.rows))
                if size >= transitions or size_bytes >= _INSERT_BYTES:
                    return blocks


def inserting(job: PartJob) -> dict[str, list[Turn]]:
    """Turns, in transitions that the server has confirmed, of writing the same ones twice.

    raw     a plain loop over a `reverb.TrajectoryWriter` with its default settings
    writer  `TransitionWriter`
    """
    blocks = collect(job, _INSERT_STEPS)
    variants = {
        "raw": _raw_inserting(job.config, blocks, job.replay),
        "writer": _inserting(job.config, blocks, job.replay),
    }
    return interleave("inserting", variants, job.rounds, job.server_pid)


def fill(job: PartJob, transitions: int) -> None:
    """Writes at least so many transitions, repeating some."""
    work = _inserting(job.config, collect(job, transitions), job.replay).work
    written = 0
    while written < transitions:
        written += work()


def _inserting(config: Apex, blocks: list[TransitionBlock], replay: Address) -> Variant:
    writer = TransitionWriter(
        replay, config.environments_per_actor, config.n_step, _TIMEOUT_SECS, threading.Event()
    )

    def work():
        before = writer.items
        for block in blocks:
            writer.write(block)
        writer.confirm(_TIMEOUT_SECS)
        return writer.items - before

    return Variant(work)


def _raw_inserting(config: Apex, blocks: list[TransitionBlock], replay: Address) -> Variant:
    distance = config.n_step * config.environments_per_actor
    client = reverb.Client(str(replay))
    writer = client.trajectory_writer(num_keep_alive_refs=distance + 1)
    steps = [step for block in blocks for step in _raw_steps(block, distance, config)]

    def work():
        items = 0
        for row, start, end, is_valid, priority in steps:
            writer.append(row)
            if is_valid:
                history = writer.history
                item = type(
                    row
                )(
                    observation=tree.map_structure(lambda x: x[[start, end]], history.observation),  # noqa: B023
                    action=tree.map_structure(lambda x: x[-1:], history.action),
                    step=history.step[-1:],
                )
                writer.create_item(TABLE, priority, item)
                items += 1
                if items % _UNCONFIRMED_ITEMS == 0:
                    writer.flush(_UNCONFIRMED_ITEMS, timeout_ms=int(1000 * _TIMEOUT_SECS))
        writer.flush(timeout_ms=int(1000 * _TIMEOUT_SECS))
        return items

    return Variant(work)


def _raw_steps(block: TransitionBlock, distance: int, config: Apex) -> list[tuple]:
    """(row, start, end, is_valid, priority) of each row, in the order of `TransitionWriter`."""
    leaves = [leaf.reshape(-1, *leaf.shape[2:]) for leaf in tree.flatten(block.rows)]
    start = -1 - distance
    ends = start + block.length_steps.reshape(-1) * config.environments_per_actor
    return [
        (tree.unflatten_as(block.rows, row), start, int(end), bool(is_valid), float(priority))
        for row, end, is_valid, priority in zip(
            zip(*leaves), ends, block.is_valid.reshape(-1), block.priority.reshape(-1)
        )
    ]
