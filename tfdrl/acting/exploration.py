"""How much each environment of a run explores, as gin names it: `exploration(count)`.

The values go to the agent's `actor_policy(values, seed)`, which knows what they mean: an epsilon,
or the standard deviation of a noise.
"""

from __future__ import annotations

import gin
import numpy as np

from tfdrl.contracts import AnnealedPolicy, ExploringAgent
from tfdrl.errors import ConfigurationError
from tfdrl.ops import exploration


def collect_policy(agent, exploration: np.ndarray, seed: int):
    """The policy by which an agent acts while training.

    An agent with `actor_policy(exploration, seed)` explores by these values and reports Q-values
    for initial priorities; any other TFAgent explores by its own collect policy.

    Args:
      exploration: <float>[N], of each environment: an epsilon, or a noise's standard deviation.
      seed: of random actions.
    """
    if isinstance(agent, ExploringAgent):
        return agent.actor_policy(exploration, seed)
    return agent.collect_policy


class AnnealedEpsilon:
    """Lowers a policy's epsilon linearly; does nothing for a policy that has none.

    Args:
      policy: of `collect_policy`.
      num_envs: environments that it acts in.
      start, end: epsilon at step 0, and from `decay_steps` on.
      decay_steps: of whatever `update` is given.
    """

    def __init__(self, policy, num_envs: int, start: float, end: float, decay_steps: int):
        self._policy, self._num_envs = policy, num_envs
        self._start, self._end, self._decay_steps = start, end, decay_steps
        self._epsilon: float | None = None

    def update(self, step: int) -> None:
        """Sets what belongs to this step."""
        epsilon = exploration.linear_epsilon(step, self._start, self._end, self._decay_steps)
        if epsilon != self._epsilon and isinstance(self._policy, AnnealedPolicy):
            self._policy.set_epsilon(np.full(self._num_envs, epsilon))
            self._epsilon = epsilon


def unexplored(count: int) -> np.ndarray:
    """For policies that explore by their own distribution (IMPALA)."""
    return np.zeros(count)


@gin.configurable
def epsilon_ladder(count: int, base: float = 0.4, alpha: float = 7.0) -> np.ndarray:
    """Epsilon of each environment, base^(1 + alpha i / (count - 1)) (Ape-X, section 4.1).

    Args:
      count: environments of all actors together.
      base: of the first environment, between 0 and 1.
      alpha: 0 or more; the last environment has base^(1 + alpha).

    Raises:
      ConfigurationError: values outside these.
    """
    if not 0.0 <= base <= 1.0 or not 0.0 <= alpha < float("inf"):
        raise ConfigurationError(
            f"epsilon_ladder.base = {base}, alpha = {alpha}: base must be between 0 and 1, alpha 0 "
            "or more"
        )
    return exploration.epsilon_ladder(count, base, alpha)


@gin.configurable
def noise_ladder(count: int, first_std: float = 0.3, last_std: float | None = None) -> np.ndarray:
    """Standard deviation of the noise in each environment, in half ranges of the action.

    Args:
      count: environments of all actors together.
      first_std: of the first environment.
      last_std: of the last; between them the ratio from one to the next is constant. None: the
        same everywhere, as in Ape-X DPG (appendix D).

    Raises:
      ConfigurationError: values that are not finite and positive; 0 is allowed where all are the
        same.
    """
    last_std = first_std if last_std is None else last_std
    is_finite = np.isfinite([first_std, last_std]).all()
    if (
        not is_finite
        or min(first_std, last_std) < 0
        or (first_std != last_std and 0 in (first_std, last_std))
    ):
        raise ConfigurationError(
            f"noise_ladder.first_std = {first_std}, last_std = {last_std}: both must be finite and "
            "above 0 (equal ones may be 0)"
        )
    return exploration.noise_ladder(count, first_std, last_std)
