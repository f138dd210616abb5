"""How often to act at random."""

from __future__ import annotations

import numpy as np


def epsilon_ladder(count: int, base: float = 0.4, alpha: float = 7.0) -> np.ndarray:
    """epsilon_i = base^(1 + alpha i / (count - 1)), i = 0..count-1 (Ape-X, section 4.1).

    Returns:
      <float64>[count]: from `base` down to base^(1 + alpha); a higher index is greedier. One
      environment alone gets `base`.
    """
    if count < 1:
        raise ValueError(f"an epsilon ladder needs at least one rung, got {count}")
    return base ** (1.0 + alpha * np.arange(count) / max(count - 1, 1))


def noise_ladder(count: int, first: float, last: float) -> np.ndarray:
    """Standard deviations from `first` to `last`, each the same multiple of the one before it.

    Returns:
      <float64>[count]; one environment alone gets `first`.
    """
    if count < 1:
        raise ValueError(f"a noise ladder needs at least one rung, got {count}")
    return np.full(count, first) if first == last else np.geomspace(first, last, count)


def linear_epsilon(step: int, start: float, end: float, decay_steps: int) -> float:
    """Anneals epsilon from `start` to `end` over `decay_steps` steps, then holds it (Mnih 2015)."""
    fraction = min(max(step / decay_steps, 0.0), 1.0) if decay_steps > 0 else 1.0
    return start + fraction * (end - start)


def drawn_epsilon(
    worker: int,
    seed: int,
    values: tuple[float, ...] = (0.1, 0.01, 0.5),
    probabilities: tuple[float, ...] = (0.4, 0.3, 0.3),
) -> float:
    """The final epsilon of a worker of asynchronous Q-learning (Mnih 2016, section 5.1).

    The same worker of the same seed gets the same value, in every run and in every process.

    Args:
      worker: its index, from 0.
      seed: of the experiment, not negative.
      values: to draw from.
      probabilities: of each of them; their sum is 1.

    Raises:
      ValueError: not as many probabilities as values, a negative one, or a sum that is not 1.
    """
    if len(values) != len(probabilities):
        raise ValueError(
            f"{len(values)} values of epsilon {values} but {len(probabilities)} probabilities "
            f"{probabilities}; each value needs one"
        )
    if not abs(sum(probabilities) - 1.0) <= 1e-8 or min(probabilities) < 0.0:
        raise ValueError(
            f"probabilities {probabilities} of epsilon must not be negative and must sum to 1, "
            f"not to {sum(probabilities)}"
        )
    generator = np.random.default_rng([seed, worker])
    return float(generator.choice(values, p=probabilities))
