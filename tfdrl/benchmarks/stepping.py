"""Part a of any architecture: an actor's loop beside the bare environment and inference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfdrl.benchmarks.measuring import Turn, Variant, interleave
from tfdrl.benchmarks.subject import PartJob
from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.runtime import agent_factory

#: Environment steps of all N environments between two looks at the clock.
STEPS_AT_ONCE = 16


class NoLearner:
    """Stands where the actor's loop expects a learner that has nothing to say."""

    version = 0

    def report(self, *unused) -> None:
        """Takes a report."""


def compare(
    job: PartJob,
    inference: Callable[..., Callable],
    acting: Callable[..., Callable[[], None]],
) -> dict[str, list[Turn]]:
    """Turns, in environment steps, of the actor and of what is below it.

    environment  the bare vector environment, with random actions
    inference    the same, acting by a plain tf.function
    actor        the actor's loop with assembling, without writing

    Args:
      job: what to measure.
      inference: `inference(agent, num_envs)` -> function from N observations to N actions.
      acting: `acting(job, environment, agent)` -> function that makes one step.
    """
    num_envs = job.config.environments_per_actor
    with make_environment(job) as environment, make_environment(job, 1) as other:
        agent = agent_factory.make_agent(job.config.agent, environment)
        vector_env = bare_environment(other)
        variants = {
            "environment": _bare(vector_env, other, None),
            "inference": _bare(vector_env, other, inference(agent, num_envs)),
            "actor": _repeated(acting(job, environment, agent)),
        }
        turns = interleave("stepping", variants, job.rounds)
    # A unit of work was a step of all environments.
    return {
        name: [turn._replace(units=turn.units * num_envs) for turn in found]
        for name, found in turns.items()
    }


def make_environment(job: PartJob, seed: int = 0) -> BatchedEnvironment:
    """The actor's environment; `seed` is added to the experiment's."""
    num_envs = job.config.environments_per_actor
    return job.config.environment(num_envs=num_envs, training=True, seed=job.seed + seed)


def bare_environment(environment: BatchedEnvironment):
    """The Gymnasium vector environment below the adapter; a user's own class has none."""
    for name in ("_vector_env", "_emulators"):
        found = getattr(environment, name, None)
        if found is not None:
            return found
    return environment


def _bare(vector_env, adapter: BatchedEnvironment, infer: Callable | None) -> Variant:
    steps = adapter.reset()
    space = getattr(vector_env, "action_space", None)
    random = [_random_action(adapter, space, i) for i in range(64)]
    # Where the adapter stacks frames, the network gets observations of the right shape instead.
    fixed, position = steps.observation, [0]
    shape = getattr(fixed, "shape", None)

    def work():
        observation = fixed
        for _ in range(STEPS_AT_ONCE):
            position[0] = (position[0] + 1) % len(random)
            action = random[position[0]]
            if infer is not None:
                action = infer(observation)
            found = vector_env.step(action)[0]
            observation = found if getattr(found, "shape", None) == shape else fixed
        return STEPS_AT_ONCE

    return Variant(work)


def _random_action(adapter: BatchedEnvironment, space, seed: int):
    if space is None:
        generator = np.random.default_rng(seed)
        shape = (adapter.num_envs, *adapter.action_spec.shape)
        return generator.integers(0, adapter.action_spec.num_values, shape)
    space.seed(seed)
    return space.sample()


def _repeated(step: Callable[[], None]) -> Variant:
    def work():
        for _ in range(STEPS_AT_ONCE):
            step()
        return STEPS_AT_ONCE

    return Variant(work)
