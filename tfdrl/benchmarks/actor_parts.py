"""What actors of architectures with a replay share: stepping (a), and what they make (b)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tree

from tfdrl.benchmarks.measuring import Turn, Variant, interleave
from tfdrl.benchmarks.processes import Job
from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.runtime import agent_factory

#: Environment steps of all N environments between two looks at the clock.
STEPS_AT_ONCE = 16
TIMEOUT_SECS = 60.0
#: Items of the bare writer that the server has not confirmed yet.
UNCONFIRMED_ITEMS = 24
_COLLECT_BYTES = 32 << 20

#: `acting(job, environment, agent)` makes a step of all environments each time it is asked for one,
#: and yields what the assembler then has: something to write, or None.
Acting = Callable[[Job, BatchedEnvironment, Any], Iterable]


class NoLearner:
    """Stands where the actor's loop expects a learner that has nothing to say."""

    version = 0

    def report(self, *unused) -> None:
        """Takes a report."""


def compare(job: Job, inference: Callable[..., Callable], acting: Acting) -> dict[str, list[Turn]]:
    """Turns, in environment steps, of the actor and of what is below it.

    environment  the bare vector environment, with random actions
    inference    the same, acting by a plain tf.function
    actor        the actor's loop with exploration, adapter and assembling, without writing

    Args:
      job: what to measure.
      inference: `inference(agent, num_envs)` -> function from N observations to N actions.
      acting: as above.
    """
    num_envs = job.config.environments_per_actor
    with make_environment(job) as environment, make_environment(job, 1) as other:
        agent = agent_factory.make_agent(job.config.agent, environment)
        made = iter(acting(job, environment, agent))
        # Gymnasium's vector environment below the adapter; a user's own class has none.
        vector_env = getattr(other, "_vector_env", getattr(other, "_emulators", other))
        variants = {
            "environment": _repeated(_bare(vector_env, other)),
            "inference": _repeated(_bare(vector_env, other, inference(agent, num_envs))),
            "actor": _repeated(lambda: next(made)),
        }
        turns = interleave("stepping", variants, job.rounds)
    # A unit of work was a step of all environments.
    return {
        name: [turn._replace(units=turn.units * num_envs) for turn in found]
        for name, found in turns.items()
    }


def collect(job: Job, acting: Acting, size: Callable[[Any], int], enough: int) -> list:
    """What an actor of this configuration makes, until it takes much memory or is enough.

    `size` says how much one of the things is that it makes.
    """
    found, found_bytes = [], 0
    with make_environment(job) as environment:
        agent = agent_factory.make_agent(job.config.agent, environment)
        for made in acting(job, environment, agent):
            if made is not None:
                found.append(made)
                found_bytes += sum(leaf.nbytes for leaf in tree.flatten(made))
                if sum(map(size, found)) >= enough or found_bytes >= _COLLECT_BYTES:
                    break
    return found


def make_environment(job: Job, seed: int = 0) -> BatchedEnvironment:
    """The actor's environment; `seed` is added to the experiment's."""
    num_envs = job.config.environments_per_actor
    return job.config.environment(num_envs=num_envs, training=True, seed=job.seed + seed)


def _bare(vector_env, adapter: BatchedEnvironment, infer: Callable | None = None) -> Callable:
    """A step of the environment, with random actions or inferred ones."""
    # Where the adapter stacks frames, the network gets observations of the right shape instead.
    observation = fixed = adapter.reset().observation
    shape, space = getattr(fixed, "shape", None), getattr(vector_env, "action_space", None)
    actions = itertools.cycle([_random_action(adapter, space, i) for i in range(64)])

    def step():
        nonlocal observation
        action = next(actions) if infer is None else infer(observation)
        found = vector_env.step(action)[0]
        observation = found if getattr(found, "shape", None) == shape else fixed

    return step


def _random_action(adapter: BatchedEnvironment, space, seed: int):
    if space is None:
        generator = np.random.default_rng(seed)
        shape = (adapter.num_envs, *adapter.action_spec.shape)
        return generator.integers(0, adapter.action_spec.num_values, shape)
    space.seed(seed)
    return space.sample()


def _repeated(step: Callable[[], object]) -> Variant:
    def work():
        for _ in range(STEPS_AT_ONCE):
            step()
        return STEPS_AT_ONCE

    return Variant(work)


def writing(writer, things: Sequence, finish: Callable[[], object]) -> Variant:
    """Writes all of these and calls `finish`; the units are what the writer has written more."""

    def work():
        before = writer.items
        for thing in things:
            writer.write(thing)
        finish()
        return writer.items - before

    return Variant(work)
