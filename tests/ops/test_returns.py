"""N-step windows against the oracle vectors and against a sum written from the equation."""

import numpy as np
import oracles
import pytest

from tfdrl.ops import returns


@pytest.mark.parametrize("case", oracles.cases("nstep_transitions"))
def test_oracle_episode(case):
    """One episode; what follows it in the data is another's and must not matter."""
    v = oracles.load("nstep_transitions", case)
    n, gamma, length = int(v["n"]), float(v["gamma"]), int(v["length"])
    reward = np.concatenate([v["rewards"], np.full(n, 1e3)]).astype(np.float32)
    ends = np.zeros(length + n, bool)
    ends[length - 1] = True
    discount = np.ones(length + n, np.float32)
    discount[length - 1] = 0.0 if v["end"] == "terminated" else 1.0

    cut = returns.n_step_windows(reward, discount, ends, n, gamma)

    start = v["start"]
    np.testing.assert_array_equal(start, np.arange(length))
    np.testing.assert_array_equal(start + cut.length_steps[:length], v["end_out"])
    np.testing.assert_allclose(cut.n_step_return[:length], v["n_step_return"], 1e-5, 1e-5)
    # The last factor of gamma is the agent's to multiply.
    np.testing.assert_allclose(gamma * cut.discount[:length], v["bootstrap_discount"], 1e-5, 1e-7)


def brute_force(reward, discount, ends, start, n, gamma):
    """(return, discount without the last gamma, m) of one window, step by step."""
    total, scale = 0.0, 1.0
    for i in range(n):
        t = start + i
        total += scale * reward[t]
        if ends[t] or i == n - 1:
            return total, scale * discount[t], i + 1
        scale *= gamma * discount[t]


@pytest.mark.parametrize("n", [1, 3, 5])
def test_batch_with_ends_in_the_middle(n):
    random = np.random.default_rng(n)
    shape, gamma = (40, 6), 0.9
    reward = random.normal(size=shape).astype(np.float32)
    ends = random.random(shape) < 0.2
    discount = np.where(ends & (random.random(shape) < 0.5), 0, 1).astype(np.float32)
    assert (ends & (discount == 0)).any() and (ends & (discount == 1)).any()

    cut = returns.n_step_windows(reward, discount, ends, n, gamma)

    assert cut.n_step_return.shape == (41 - n, 6)
    for t in range(41 - n):
        for b in range(6):
            total, last, m = brute_force(reward[:, b], discount[:, b], ends[:, b], t, n, gamma)
            assert cut.length_steps[t, b] == m
            np.testing.assert_allclose(cut.n_step_return[t, b], total, 1e-5, 1e-5)
            np.testing.assert_allclose(cut.discount[t, b], last, 1e-6, 1e-7)


def windows(ends, discount, n=3, gamma=0.5):
    reward = np.array([1, 2, 4, 8, 16], np.float32)
    return returns.n_step_windows(
        reward, np.array(discount, np.float32), np.array(ends, bool), n, gamma
    )


def test_termination_and_truncation_differ_only_in_the_bootstrap():
    terminated = windows([0, 1, 0, 0, 0], [1, 0, 1, 1, 1])
    truncated = windows([0, 1, 0, 0, 0], [1, 1, 1, 1, 1])
    expected = [1 + 0.5 * 2, 2, 4 + 0.5 * 8 + 0.25 * 16]
    for cut in (terminated, truncated):
        np.testing.assert_array_equal(cut.n_step_return, expected)
        np.testing.assert_array_equal(cut.length_steps, [2, 1, 3])
    np.testing.assert_array_equal(terminated.discount, [0, 0, 0.25])
    np.testing.assert_array_equal(truncated.discount, [0.5, 1, 0.25])


def test_values_after_an_end_do_not_matter_even_if_they_are_nan():
    reward = np.array([1, 2, np.nan, np.nan], np.float32)
    discount = np.array([1, 0, np.nan, 1], np.float32)
    ends = np.array([False, True, False, False])
    cut = returns.n_step_windows(reward, discount, ends, 3, 0.5)
    np.testing.assert_array_equal(cut.n_step_return, [2, 2])
    np.testing.assert_array_equal(cut.discount, [0, 0])


@pytest.mark.parametrize("n", [0, 6])
def test_no_window_fits(n):
    with pytest.raises(ValueError, match="hold no window"):
        windows([0] * 5, [1] * 5, n=n)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="one shape"):
        returns.n_step_windows(np.zeros(5), np.zeros(4), np.zeros(5, bool), 1, 0.9)
