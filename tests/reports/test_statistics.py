"""Statistics over seeds, against their published definitions."""

import numpy as np
import pytest

from tfdrl.reports import statistics
from tfdrl.reports.statistics import estimate, interquartile_mean, mean


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([5.0], 5.0),
        ([1.0, 2.0, 6.0], (1 + 2 + 6) / 3),  # floor(3 / 4) = 0 are left out
        ([9.0, 1.0, 2.0, 100.0], (2 + 9) / 2),
        ([8, 7, 6, 5, 4, 3, 2, 1], (3 + 4 + 5 + 6) / 4),
        ([0, 0, 1, 2, 3, 4, 5, 90, 99], (1 + 2 + 3 + 4 + 5) / 5),
    ],
)
def test_interquartile_mean_is_of_the_middle_half(scores, expected):
    assert interquartile_mean(np.array(scores, float)) == pytest.approx(expected)
    twice = np.array([scores, scores[::-1]], float)
    assert interquartile_mean(twice) == pytest.approx([expected] * 2)


def test_interval_is_that_of_the_bootstrap_distribution():
    # Of 0 and 1, means of two draws are 0, 1/2 and 1 with chances 1/4, 1/2, 1/4.
    assert estimate([np.array([0.0, 1.0])], mean) == (0.5, 0.0, 1.0)
    # Of 400 scores it is nearly that of the normal distribution: 1.96 standard errors.
    scores = np.random.default_rng(3).normal(10.0, 2.0, 400)
    value, low, high = estimate([scores], mean)
    error = scores.std() / 20
    assert value == pytest.approx(scores.mean())
    assert (high - value, value - low) == pytest.approx((1.96 * error, 1.96 * error), rel=0.12)


def test_strata_are_drawn_each_by_itself():
    # Without strata a draw of four 100s would be as likely as any other.
    strata = [np.array([0.0, 0.0]), np.array([100.0, 100.0])]
    assert estimate(strata, mean) == (50.0, 50.0, 50.0)
    together = estimate([np.concatenate(strata)], mean)
    assert together.low < 25 and together.high > 75


def test_of_one_run_no_interval_is_known():
    value, low, high = estimate([np.array([7.0])], interquartile_mean)
    assert value == 7.0 and np.isnan(low) and np.isnan(high)
    with pytest.raises(ValueError, match="no scores"):
        estimate([], mean)


def test_the_same_as_rliable():
    library = pytest.importorskip("rliable.library", reason="rliable is not installed")
    metrics = pytest.importorskip("rliable.metrics", reason="rliable is not installed")
    scores = np.random.default_rng(5).gamma(2.0, 50.0, (9, 3))  # runs, tasks
    theirs, intervals = library.get_interval_estimates(
        {"a": scores}, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=4000
    )
    ours = estimate(list(scores.T), interquartile_mean, repetitions=4000)
    assert ours.value == pytest.approx(theirs["a"][0])
    assert ours[1:] == pytest.approx(tuple(intervals["a"][:, 0]), rel=0.05)


def test_curves_are_averaged_where_all_are_known():
    first = np.array([0.0, 100.0]), np.array([0.0, 10.0])
    second = np.array([50.0, 150.0]), np.array([9.0, 19.0])
    x, y, low, high = statistics.mean_curve([first, second])
    assert (x[0], x[-1]) == (50, 100)
    assert (y[0], y[-1]) == pytest.approx(((5 + 9) / 2, (10 + 14) / 2))
    assert (low[0], high[-1]) == pytest.approx((5, 14))
    assert not len(statistics.mean_curve([first, (second[0] + 200, second[1])])[0])
    assert len(statistics.mean_curve([first])[0]) == 2
