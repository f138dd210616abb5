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


def linear_epsilon(step: int, start: float, end: float, decay_steps: int) -> float:
    """Anneals epsilon from `start` to `end` over `decay_steps` steps, then holds it (Mnih 2015)."""
    fraction = min(max(step / decay_steps, 0.0), 1.0) if decay_steps > 0 else 1.0
    return start + fraction * (end - start)
