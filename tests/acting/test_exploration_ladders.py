"""How much each environment explores: ladders as gin makes them."""

import numpy as np
import pytest

from tfdrl.acting import exploration
from tfdrl.errors import ConfigurationError


def test_epsilon_ladder_is_the_papers():
    ladder = exploration.epsilon_ladder(5)
    np.testing.assert_allclose(ladder, 0.4 ** (1 + 7 * np.arange(5) / 4))


def test_noise_is_the_same_everywhere_unless_a_last_one_is_given():
    np.testing.assert_array_equal(exploration.noise_ladder(4), np.full(4, 0.3))
    np.testing.assert_array_equal(exploration.noise_ladder(2, first_std=0.0), [0.0, 0.0])


def test_noise_ladder_has_a_constant_ratio():
    ladder = exploration.noise_ladder(4, first_std=0.8, last_std=0.1)
    np.testing.assert_allclose(ladder, [0.8, 0.4, 0.2, 0.1])
    np.testing.assert_allclose(exploration.noise_ladder(1, first_std=0.8, last_std=0.1), [0.8])


@pytest.mark.parametrize(
    "kwargs",
    [
        {"first_std": -0.1},
        {"first_std": float("nan")},
        {"first_std": float("inf")},
        {"first_std": 0.3, "last_std": 0.0},
        {"first_std": 0.0, "last_std": 0.3},
    ],
)
def test_noises_that_cannot_be_are_refused(kwargs):
    with pytest.raises(ConfigurationError, match=r"noise_ladder\.first_std = .*must be finite"):
        exploration.noise_ladder(4, **kwargs)


@pytest.mark.parametrize("kwargs", [{"base": 1.1}, {"base": -0.1}, {"alpha": -1.0}])
def test_epsilons_that_cannot_be_are_refused(kwargs):
    with pytest.raises(ConfigurationError, match=r"epsilon_ladder\.base = .*between 0 and 1"):
        exploration.epsilon_ladder(4, **kwargs)
