"""By which policy an evaluation plays: the greedy one, or as the papers did."""

from __future__ import annotations

from collections.abc import Callable

import gin
import numpy as np

from tfdrl.acting.exploration import collect_policy


@gin.configurable
def acting_policy(agent, num_envs: int, seed: int, exploration: float = 0.0):
    """The policy by which the agent acts while training, with one exploration everywhere.

    Q-learners act at random with probability `exploration`: 0.05 in Mnih 2015 (Methods,
    "Evaluation procedure"), 0.001 in Horgan 2018. Actor-critics sample their actions, as A3C and
    IMPALA do when they are evaluated. Agents of continuous actions add noise of this standard
    deviation. TF-Agents' own agents act by their collect policy, whatever `exploration` is.

    Args:
      agent: a TFAgent.
      num_envs: environments that are stepped together.
      seed: of random actions.
      exploration: of each environment, 0 or more.
    """
    return collect_policy(agent, np.full(num_envs, exploration), seed)


def evaluation_policy(factory: Callable | None, agent, num_envs: int, seed: int):
    """`factory(agent, num_envs, seed)`, such as `acting_policy`; None: the greedy policy."""
    return agent.policy if factory is None else factory(agent, num_envs, seed)
