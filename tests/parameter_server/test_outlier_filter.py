"""Gorila's rule for outliers: what is refused, from when on, and how it gives in."""

import numpy as np
import oracles
import pytest

from tfdrl.errors import ConfigurationError
from tfdrl.parameter_server.outlier_filter import OutlierFilter

_GROUP = "gorila_filter"


def oracle_cases():
    return oracles.cases(_GROUP)


def oracle(case):
    return oracles.load(_GROUP, case)


def flags(outliers, losses):
    return [outliers.accepts(loss) for loss in losses]


@pytest.mark.parametrize("case", oracle_cases())
def test_oracle(case):
    """One learner and one shard, which grows by one version for each gradient it applies.

    As in `GradientLearner.learn`: the learner judges by the loss first, and the server, of what it
    is sent, by age.
    """
    v = oracle(case)
    outliers = OutlierFilter(num_std=float(v["num_std"]), warmup=int(v["warmup"]))
    version, accepted = 0, []
    for param_version, loss in zip(v["param_version"], v["loss"]):
        is_sent = outliers.accepts(loss)
        is_stale = version - param_version > v["max_delay"]
        accepted.append(is_sent and not is_stale)
        version += accepted[-1]
    np.testing.assert_array_equal(accepted, v["accepted"])
    assert version == v["final_version"]
    assert 0 < outliers.rejected < np.sum(~v["accepted"])  # the others were stale


def test_the_rule_from_the_equation():
    """|loss| > mean + k std of all |loss| accepted before, computed anew for each."""
    random = np.random.default_rng(0)
    losses = random.normal(size=400) * random.choice([1.0, 4.0], size=400, p=[0.9, 0.1])
    outliers, kept, expected = OutlierFilter(num_std=2.0, warmup=5), [], []
    for loss in np.abs(losses):
        expected.append(len(kept) < 5 or loss <= np.mean(kept) + 2.0 * np.std(kept))
        kept += [loss] if expected[-1] else []
    assert flags(outliers, losses) == expected
    assert outliers.rejected == expected.count(False)
    assert 10 < outliers.rejected < 100


def test_by_hand():
    """|loss| of 1 and 3: mean 2, population std 1, limit 2 + 2 * 1 = 4, which is no outlier.

    With the sample's std the limit would be 2 + 2 sqrt(2) = 4.83.
    """
    assert flags(OutlierFilter(num_std=2.0, warmup=2), [1.0, -3.0, 4.0]) == [True] * 3
    assert flags(OutlierFilter(num_std=2.0, warmup=2), [1.0, -3.0, 4.1]) == [True, True, False]
    assert flags(OutlierFilter(num_std=2.0, warmup=2), [1.0, -3.0, -4.1]) == [True, True, False]


def test_small_losses_are_no_outliers():
    assert flags(OutlierFilter(1.0, warmup=2), [5.0, 5.1, 0.0]) == [True] * 3


def test_a_refused_loss_does_not_change_the_statistics():
    """With 100 among them, 50 would be below mean + std."""
    outliers = OutlierFilter(num_std=1.0, warmup=4)
    assert flags(outliers, [1.0, 2.0, 1.0, 2.0, 100.0, 50.0, 2.01, 2.0]) == (
        [True] * 4 + [False] * 3 + [True]
    )
    assert outliers.rejected == 3


@pytest.mark.parametrize("warmup", [2, 7])
def test_warm_up(warmup):
    """The loss after `warmup` accepted ones is the first that can be refused."""
    growing = [10.0**k for k in range(warmup)]
    outliers = OutlierFilter(num_std=0.1, warmup=warmup)
    assert flags(outliers, [*growing, 10.0**warmup]) == [True] * warmup + [False]


def test_a_lasting_change_of_scale_does_not_lock_the_learner_out():
    """Of losses around 1000 after those around 1, three are refused, and the fourth begins anew."""
    outliers = OutlierFilter(num_std=3.0, warmup=4, max_rejections_in_a_row=3)
    assert all(flags(outliers, [1.0, 1.1, 0.9, 1.0, 1.05]))
    assert flags(outliers, [1e3] * 4) == [False, False, False, True]
    # One of the four of a new warm-up: 1500 is above the limit that the old losses would set.
    assert flags(outliers, [1500.0, 900.0, 1000.0]) == [True] * 3
    # Mean 1100 and std 235 of the new ones alone: the limit is 1803.
    assert flags(outliers, [1810.0, 1790.0]) == [False, True]
    assert outliers.rejected == 4


def test_an_accepted_loss_ends_a_row_of_rejections():
    outliers = OutlierFilter(num_std=3.0, warmup=4, max_rejections_in_a_row=2)
    assert all(flags(outliers, [1.0, 1.1, 0.9, 1.0]))
    assert flags(outliers, [9.0, 9.0, 1.0] * 5) == [False, False, True] * 5
    assert flags(outliers, [9.0, 9.0, 9.0]) == [False, False, True]


def test_none_accepts_everything():
    outliers = OutlierFilter(num_std=None, warmup=2)
    assert all(flags(outliers, [1.0] * 30 + [1e9]))
    assert outliers.rejected == 0


@pytest.mark.parametrize("num_std", [4.0, None])
@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_is_not_judged(num_std, loss):
    with pytest.raises(ValueError, match="not finite"):
        OutlierFilter(num_std).accepts(loss)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_std": 0.0}, r"gorila\.outlier_num_std = 0\.0 must be positive"),
        ({"num_std": float("nan")}, r"gorila\.outlier_num_std = nan must be positive"),
        ({"num_std": float("inf")}, r"gorila\.outlier_num_std = inf .*or None"),
        ({"warmup": 1}, r"gorila\.outlier_warmup = 1 must be at least 2"),
        (
            {"max_rejections_in_a_row": 0},
            r"gorila\.outlier_max_rejections_in_a_row = 0 must be at least 1",
        ),
    ],
)
def test_what_cannot_work_is_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        OutlierFilter(**settings)
