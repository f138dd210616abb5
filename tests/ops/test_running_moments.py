"""Sums that add up to numpy's mean and deviation, and discounted sums from the equation."""

import numpy as np
import pytest
import tensorflow as tf

from tfdrl.ops import running_moments


def added_up(batches):
    return sum(running_moments.sums(tf.constant(batch)) for batch in batches)


@pytest.mark.parametrize("mean", [0.0, 1e4, -1e5])
@pytest.mark.parametrize("std", [1e4, 1.0, 1e-4])
def test_they_are_numpy_s_whatever_the_scale(mean, std):
    data = np.random.default_rng(0).normal(mean, std, (3000, 4)).astype(np.float32)
    found_mean, found_std = running_moments.mean_and_std(added_up(np.split(data, 30)))
    exact = data.astype(np.float64)
    np.testing.assert_allclose(found_mean, exact.mean(0), rtol=1e-9, atol=1e-9 * std)
    expected = exact.std(0)
    is_resolved = expected > 1e-7 * abs(mean)  # else float32 has a few values of it at most
    np.testing.assert_allclose(found_std, np.where(is_resolved, expected, 1.0), rtol=1e-5)


def test_float32_sums_would_not_do():
    data = np.random.default_rng(0).normal(1e4, 1.0, (1000, 1)).astype(np.float32)
    naive = np.float32((data**2).mean(0, dtype=np.float32)) - data.mean(0, dtype=np.float32) ** 2
    assert abs(naive[0] - 1.0) > 0.5
    np.testing.assert_allclose(running_moments.mean_and_std(added_up([data]))[1], data.std(0), 1e-4)


def test_before_the_first_value_and_for_constant_elements_the_deviation_is_one():
    mean, std = running_moments.mean_and_std(tf.zeros(5, tf.float64))
    np.testing.assert_array_equal([mean, std], [[0, 0], [1, 1]])
    mean, std = running_moments.mean_and_std(added_up([np.full((7, 1), 0.1, np.float32)] * 9))
    np.testing.assert_allclose([mean[0], std[0]], [np.float32(0.1), 1.0], rtol=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_batch_that_is_not_finite_adds_nothing(bad):
    batch = np.ones((4, 2), np.float32)
    batch[2, 1] = bad
    np.testing.assert_array_equal(running_moments.sums(tf.constant(batch)), np.zeros(5))


def test_discounted_sums():
    reward = np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]], np.float32)
    is_first = np.array([[False, True], [False, False], [True, False]])
    found = running_moments.discounted_sums(tf.constant(reward), tf.constant(is_first), 0.5)
    expected = [[1, 2], [10 + 0.5, 20 + 0.5 * 2], [100, 200 + 0.5 * (20 + 0.5 * 2)]]
    np.testing.assert_allclose(found, expected)


def test_what_is_masked_does_not_count():
    batch = np.array([[1.0], [7.0], [3.0]], np.float32)
    found = running_moments.sums(tf.constant(batch), tf.constant([True, False, True]))
    np.testing.assert_array_equal(found, [2, 4, 10])
