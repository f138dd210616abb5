"""Statistics over seeds, as Agarwal et al. 2021 ("Deep RL at the Edge of the Statistical
Precipice", section 4) define them for few runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

REPETITIONS = 2000
_CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A statistic of some runs with its 95 % interval; that of a single run is not known."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """The mean of the middle half of the scores.

    As a trimmed mean: of n scores the floor(n / 4) lowest and as many of the highest are left out,
    so that it is the mean for n < 4.

    Args:
      scores: <float64>[..., n].

    Returns <float64>[...].
    """
    n = scores.shape[-1]
    cut = n // 4
    return np.sort(scores, axis=-1)[..., cut : n - cut].mean(axis=-1)


def mean(scores: np.ndarray) -> np.ndarray:
    """<float64>[..., n] -> <float64>[...]."""
    return scores.mean(axis=-1)


def estimate(
    strata: Sequence[np.ndarray],
    statistic: Callable[[np.ndarray], np.ndarray],
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> Estimate:
    """A statistic of all scores with its stratified percentile bootstrap interval.

    Runs are drawn anew, with replacement, within each stratum (task) by itself (section 4.1).

    Args:
      strata: <float64>[runs] of each task.
      statistic: `statistic(<float64>[repetitions, n]) -> <float64>[repetitions]`.
      repetitions: of the bootstrap.
      seed: of its random numbers.

    Raises ValueError without any score.
    """
    scores = np.concatenate([np.asarray(s, float) for s in strata]) if strata else np.zeros(0)
    if not len(scores):
        raise ValueError("a statistic of no scores")
    value = float(statistic(scores[None])[0])
    if max(map(len, strata)) < 2:
        return Estimate(value, np.nan, np.nan)
    random = np.random.default_rng(seed)
    drawn = [
        np.asarray(stratum, float)[random.integers(len(stratum), size=(repetitions, len(stratum)))]
        for stratum in strata
    ]
    found = statistic(np.concatenate(drawn, axis=1))
    outside = 100 * (1 - _CONFIDENCE) / 2
    low, high = np.percentile(found, [outside, 100 - outside])
    return Estimate(value, float(low), float(high))


def mean_curve(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], points: int = 60
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The mean of several curves where all of them are known, with its interval at each point.

    Args:
      curves: x and y of each, <float64>[k], x ascending.
      points: of the result.

    Returns x, mean, low, high: <float64>[points]; a single curve as it is, without an interval;
    nothing where the curves have no x in common.
    """
    known = [(x, y) for x, y in curves if len(x)]
    empty = np.zeros(0)
    if not known:
        return empty, empty, empty, empty
    if len(known) == 1:
        x, y = known[0]
        return x, y, y, y
    begin, end = max(x[0] for x, _ in known), min(x[-1] for x, _ in known)
    if begin > end:
        return empty, empty, empty, empty
    grid = np.linspace(begin, end, points)
    values = np.stack([np.interp(grid, x, y) for x, y in known], axis=1)
    random = np.random.default_rng(0)
    chosen = random.integers(values.shape[1], size=(REPETITIONS // 4, values.shape[1]))
    means = values[:, chosen].mean(axis=-1)
    low, high = np.percentile(means, [2.5, 97.5], axis=-1)
    return grid, values.mean(axis=-1), low, high
