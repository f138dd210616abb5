"""Exploration schedules."""

import numpy as np
import oracles
import pytest

from tfdrl.ops import exploration


@pytest.mark.parametrize("case", oracles.cases("epsilon"))
def test_ladder_oracle(case):
    v = oracles.load("epsilon", case)
    ladder = exploration.epsilon_ladder(int(v["N"]), float(v["base"]), float(v["alpha"]))
    np.testing.assert_allclose(ladder, v["epsilon"], rtol=1e-12)


def test_ladder_by_hand():
    """Ape-X, section 4.1: from 0.4 to 0.4^8; one environment alone gets 0.4."""
    ladder = exploration.epsilon_ladder(360)
    assert ladder[0] == 0.4 and ladder[-1] == pytest.approx(0.4**8)
    assert (np.diff(ladder) < 0).all()
    np.testing.assert_array_equal(exploration.epsilon_ladder(1), [0.4])
    with pytest.raises(ValueError, match="at least one"):
        exploration.epsilon_ladder(0)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 1.0), (250, 0.775), (1000, 0.1), (10**9, 0.1), (-5, 1.0)]
)
def test_linear(step, expected):
    assert exploration.linear_epsilon(step, 1.0, 0.1, 1000) == pytest.approx(expected)


def test_linear_without_decay_is_the_end():
    assert exploration.linear_epsilon(0, 1.0, 0.1, 0) == pytest.approx(0.1)


def test_drawn_epsilon_has_the_papers_distribution():
    """Mnih 2016, section 5.1: 0.1, 0.01 and 0.5 with probabilities 0.4, 0.3 and 0.3."""
    workers = 4000
    drawn = np.array([exploration.drawn_epsilon(worker, seed=1) for worker in range(workers)])
    shares = [(drawn == value).mean() for value in (0.1, 0.01, 0.5)]
    assert sum(shares) == pytest.approx(1.0)
    np.testing.assert_allclose(shares, [0.4, 0.3, 0.3], atol=4 * np.sqrt(0.25 / workers))


def test_drawn_epsilon_is_the_same_for_the_same_worker_and_seed():
    of = lambda seed: [exploration.drawn_epsilon(worker, seed) for worker in range(50)]  # noqa: E731
    assert of(3) == of(3)
    assert of(3) != of(4)
    assert exploration.drawn_epsilon(7, 0, (0.25,), (1.0,)) == 0.25
    assert {exploration.drawn_epsilon(w, 0, (0.2, 0.9), (0.0, 1.0)) for w in range(50)} == {0.9}


@pytest.mark.parametrize(
    ("values", "probabilities", "message"),
    [
        ((0.1, 0.5), (1.0,), "2 values of epsilon .* but 1 probabilities"),
        ((0.1, 0.5), (0.5, 0.4), "must sum to 1, not to 0.9"),
        ((0.1, 0.5), (1.5, -0.5), "must not be negative"),
        ((0.1, 0.5), (float("nan"), 0.5), "must sum to 1, not to nan"),
        ((), (), "must sum to 1, not to 0"),
    ],
)
def test_probabilities_that_are_none_are_refused(values, probabilities, message):
    with pytest.raises(ValueError, match=message):
        exploration.drawn_epsilon(0, 0, values, probabilities)
