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
