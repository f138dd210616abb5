"""V-trace against the oracle vectors, a sum written from the equation, and what it must learn."""

import functools

import numpy as np
import oracles
import pytest
import tensorflow as tf

from tfdrl.ops.vtrace import vtrace

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
UNCLIPPED_TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}  # products of a hundred ratios, in float32
SETTINGS = ("rho_bar", "c_bar", "pg_rho_bar", "lambda_")
CROSSING = {"rho_bar": 1.5, "c_bar": 0.9, "pg_rho_bar": 1.1, "lambda_": 0.95}
UNCLIPPED = {"rho_bar": None, "c_bar": None, "pg_rho_bar": None}


def float32(*arrays):
    return [tf.constant(array, tf.float32) for array in arrays]


def next_of(values, bootstrap):
    return np.concatenate([values[1:], np.reshape(bootstrap, (1, -1))])


@pytest.mark.parametrize("case", oracles.cases("vtrace"))
def test_oracle(case):
    v = oracles.load("vtrace", case)
    steps = float32(v["log_rhos"], v["discounts"], v["rewards"], v["values"])
    next_values = next_of(v["values"], v["bootstrap_value"])
    returns = vtrace(*steps, *float32(next_values), **{name: float(v[name]) for name in SETTINGS})
    is_long = len(next_values) == 100 and np.isinf(v["rho_bar"])
    tolerance = UNCLIPPED_TOLERANCE if is_long else TOLERANCE
    np.testing.assert_allclose(returns.vs, v["vs"], **tolerance)
    np.testing.assert_allclose(returns.pg_advantages, v["pg_advantages"], **tolerance)
    assert returns.vs.dtype == returns.pg_advantages.dtype == tf.float32


def test_the_oracle_cases_are_many_and_some_tell_lambda_mixing_apart():
    """RLax mixes V(x_{s+1}) into the advantage where lambda < 1; here it is v_{s+1} alone."""
    assert len(oracles.cases("vtrace")) == 37 and len(oracles.cases("vtrace_truncation")) == 6
    v = oracles.load("vtrace", "21")
    assert np.abs(v["pg_advantages"] - v["pg_advantages_rlax_lambda_mix"]).max() > 0.01


def test_some_oracle_cases_have_truncations():
    group = "vtrace_truncation"
    assert any(oracles.load(group, case)["truncated"].any() for case in oracles.cases(group))


@pytest.mark.parametrize("case", oracles.cases("vtrace_truncation"))
def test_oracle_with_truncations(case):
    v = oracles.load("vtrace_truncation", case)
    discounts = np.where(v["terminated"], 0.0, v["gamma"])
    steps = float32(v["log_rhos"], discounts, v["rewards"], v["values"], v["next_values"])
    is_end = tf.constant(v["terminated"] | v["truncated"])
    returns = vtrace(*steps, is_end, **{name: float(v[name]) for name in SETTINGS})
    np.testing.assert_allclose(returns.vs, v["vs"], **TOLERANCE)
    np.testing.assert_allclose(returns.pg_advantages, v["pg_advantages"], **TOLERANCE)
    if v["truncated"].any():
        uncut = vtrace(*steps, **{name: float(v[name]) for name in SETTINGS})
        assert np.abs(uncut.vs - v["vs"]).max() > 0.01


def inputs(seed, steps=12, batch=5, spread=1.0, end_probability=0.2):
    """Steps whose ratios cross every clip, with terminations, truncations and a bootstrap."""
    random = np.random.default_rng(seed)
    shape = (steps, batch)
    log_rhos, rewards, values = (random.normal(size=shape) for _ in range(3))
    is_end = random.random(shape) < end_probability
    is_terminated = is_end & (random.random(shape) < 0.5)
    next_values = next_of(values, 3.0 + random.normal(size=batch))
    next_values[is_end] = random.normal(size=shape)[is_end]  # of the final observations
    discounts = np.where(is_terminated, 0.0, 0.9)
    return spread * log_rhos, discounts, rewards, values, next_values, is_end


def trace_product(factors, is_end, start, stop):
    """prod factors[i], start <= i < stop; 0 across the end of an episode."""
    if is_end[start:stop].any():
        return 0.0
    return np.prod(factors[start:stop])


def brute_force(
    *steps,
    rho_bar,
    c_bar,
    pg_rho_bar,
    lambda_,
    product_of="c",
    ratio_of_clip=lambda log_rho, bar: min(np.exp(log_rho), bar),
    gamma_in_product=True,
    advantage_of="v",
):
    """v_s and the advantages in O(T^2), from the equations; keywords give mistaken siblings."""
    vs, advantages = np.zeros_like(steps[0]), np.zeros_like(steps[0])
    for b in range(steps[0].shape[1]):
        log_rho, gamma, r, v, next_v, is_end = (array[:, b] for array in steps)
        rho = np.array([ratio_of_clip(x, rho_bar) for x in log_rho])
        c = lambda_ * np.array([ratio_of_clip(x, c_bar) for x in log_rho])
        pg_rho = np.array([ratio_of_clip(x, pg_rho_bar) for x in log_rho])
        factors = {"c": c, "rho": rho}[product_of] * (gamma if gamma_in_product else 1.0)
        delta = rho * (r + gamma * next_v - v)
        for s in range(len(r)):
            vs[s, b] = v[s] + sum(
                trace_product(factors, is_end, s, t) * delta[t] for t in range(s, len(r))
            )
        for s in range(len(r)):
            is_last = s == len(r) - 1 or is_end[s]
            later = {"v": next_v[s] if is_last else vs[min(s + 1, len(r) - 1), b]}
            later |= {"value": next_v[s], "q": vs[s, b]}
            advantages[s, b] = pg_rho[s] * (r[s] + gamma[s] * later[advantage_of] - v[s])
    return vs, advantages


def of_settings(steps, **settings):
    return vtrace(*float32(*steps[:5]), tf.constant(steps[5]), **settings)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "settings",
    [
        CROSSING,
        {"rho_bar": 1.0, "c_bar": 1.0, "pg_rho_bar": 1.0, "lambda_": 1.0},
        {"rho_bar": 4.0, "c_bar": 0.5, "pg_rho_bar": 2.0, "lambda_": 0.5},
        {"rho_bar": np.inf, "c_bar": np.inf, "pg_rho_bar": np.inf, "lambda_": 1.0},
    ],
)
def test_the_equation(seed, settings):
    steps = inputs(seed)
    rhos = np.exp(steps[0])
    for name in ("rho_bar", "c_bar", "pg_rho_bar"):
        assert (rhos < settings[name]).any()
        assert (rhos > settings[name]).any() or np.isinf(settings[name])
    vs, advantages = brute_force(*steps, **settings)
    returns = of_settings(steps, **settings)
    np.testing.assert_allclose(returns.vs, vs, **TOLERANCE)
    np.testing.assert_allclose(returns.pg_advantages, advantages, **TOLERANCE)


@pytest.mark.parametrize(
    ("mistake", "differs"),
    [
        ({"rho_bar": 0.9, "c_bar": 1.5}, ("vs", "pg_advantages")),  # swapped
        ({"product_of": "rho"}, ("vs", "pg_advantages")),
        ({"ratio_of_clip": lambda x, bar: np.exp(min(x, bar))}, ("vs", "pg_advantages")),
        ({"lambda_": 1.0}, ("vs", "pg_advantages")),
        ({"gamma_in_product": False}, ("vs", "pg_advantages")),
        ({"pg_rho_bar": 1.5}, ("pg_advantages",)),  # rho_bar's instead of its own
        ({"advantage_of": "value"}, ("pg_advantages",)),
        ({"advantage_of": "q"}, ("pg_advantages",)),
    ],
)
def test_it_is_not_a_mistaken_sibling(mistake, differs):
    steps = inputs(0)
    ours = of_settings(steps, **CROSSING)
    siblings = dict(zip(("vs", "pg_advantages"), brute_force(*steps, **{**CROSSING, **mistake})))
    for name, sibling in siblings.items():
        distance = np.abs(getattr(ours, name) - sibling).max()
        assert (distance > 0.05) == (name in differs), (name, distance)


def test_none_is_no_clipping():
    steps = inputs(1)
    infinite = dict.fromkeys(UNCLIPPED, np.inf)
    for ours, same in zip(of_settings(steps, **UNCLIPPED), of_settings(steps, **infinite)):
        np.testing.assert_array_equal(ours, same)


@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_unclipped_ratios_in_float32(seed):
    steps = inputs(seed, steps=100, spread=0.5, end_probability=0.0)
    vs, advantages = brute_force(*steps, **dict.fromkeys(UNCLIPPED, np.inf), lambda_=1.0)
    returns = of_settings(steps, **UNCLIPPED)
    np.testing.assert_allclose(returns.vs, vs, **UNCLIPPED_TOLERANCE)
    np.testing.assert_allclose(returns.pg_advantages, advantages, **UNCLIPPED_TOLERANCE)


def test_on_policy_it_is_the_n_step_return():
    log_rhos, discounts, rewards, values, next_values, is_end = inputs(2)
    expected = np.zeros_like(values)
    for b in range(values.shape[1]):
        following = 0.0
        for t in reversed(range(len(values))):
            is_last = t == len(values) - 1 or is_end[t, b]
            following = rewards[t, b] + discounts[t, b] * (
                next_values[t, b] if is_last else following
            )
            expected[t, b] = following
    returns = of_settings((0 * log_rhos, discounts, rewards, values, next_values, is_end))
    np.testing.assert_allclose(returns.vs, expected, **TOLERANCE)
    np.testing.assert_allclose(returns.pg_advantages, expected - values, **TOLERANCE)


def test_extreme_ratios():
    """A ratio too large for float32 is clipped; one of 0 learns nothing and ends the trace."""
    zero = np.zeros((2, 1))
    log_rhos, values, rewards = zero + [[200.0], [-200.0]], zero + [[1.0], [2.0]], zero + 5.0
    returns = vtrace(*float32(log_rhos, zero + 0.5, rewards, values, next_of(values, 4.0)))
    np.testing.assert_allclose(returns.vs, [[5 + 0.5 * 2], [2]])
    np.testing.assert_allclose(returns.pg_advantages, [[5 + 0.5 * 2 - 1], [0]])


def one_column(is_end, discounts, next_values):
    column = functools.partial(np.reshape, newshape=(-1, 1))
    rewards, values = column([1.0, 2.0, 4.0]), column([10.0, 20.0, 30.0])
    steps = float32(0 * rewards, column(discounts), rewards, values, column(next_values))
    return vtrace(*steps, None if is_end is None else tf.constant(column(is_end)))


def test_bootstrap_is_the_value_after_the_last_step_and_counts_once():
    returns = one_column(None, [0.5] * 3, [20.0, 30.0, 40.0])
    last = 4 + 0.5 * 40
    vs = [1 + 0.5 * (2 + 0.5 * last), 2 + 0.5 * last, last]
    np.testing.assert_allclose(returns.vs[:, 0], vs)
    np.testing.assert_allclose(returns.pg_advantages[:, 0], [vs[0] - 10, vs[1] - 20, last - 30])


def test_truncation_bootstraps_from_the_final_observation():
    """Neither from 0, nor from V(x_t), nor from what the next episode begins with."""
    returns = one_column([False, True, False], [0.5] * 3, [20.0, 70.0, 40.0])
    vs = [1 + 0.5 * (2 + 0.5 * 70), 2 + 0.5 * 70, 4 + 0.5 * 40]
    np.testing.assert_allclose(returns.vs[:, 0], vs)
    np.testing.assert_allclose(returns.pg_advantages[:, 0], np.subtract(vs, [10, 20, 30]))


@pytest.mark.parametrize("is_end", [None, [False, True, False]])
def test_termination_has_no_future(is_end):
    returns = one_column(is_end, [0.5, 0.0, 0.5], [20.0, 1e6, 40.0])
    vs = [1 + 0.5 * 2, 2, 4 + 0.5 * 40]
    np.testing.assert_allclose(returns.vs[:, 0], vs)
    np.testing.assert_allclose(returns.pg_advantages[:, 0], np.subtract(vs, [10, 20, 30]))


@pytest.mark.parametrize("discount", [0.0, 0.9])
def test_nothing_of_the_next_episode_leaks_into_the_last(discount):
    steps = inputs(3)
    steps[1][5], steps[5][5] = discount, True
    before = of_settings(steps, **CROSSING)
    for array in steps[:5]:
        array[6:] = np.random.default_rng(9).normal(size=array[6:].shape)
    after = of_settings(steps, **CROSSING)
    for one, other in zip(before, after):
        np.testing.assert_array_equal(one[:6], other[:6])
        assert (one[6:] != other[6:]).numpy().all()


@pytest.mark.parametrize("is_end", [[True, False, False], None], ids=["cut", "terminated"])
def test_a_ratio_that_overflows_does_not_leak_through_an_episodes_end(is_end):
    """exp(100) is no float32; the episode before it has numbers all the same."""
    column = lambda values: tf.constant(values, tf.float32)[:, None]  # noqa: E731
    discounts = column([0.9 if is_end else 0.0, 0.9, 0.9])
    ends = is_end and tf.constant(is_end, tf.bool)[:, None]
    settings = {"rho_bar": None, "c_bar": None, "pg_rho_bar": None}
    rest = discounts, column([1, 2, 3]), column([4, 5, 6]), column([5, 6, 7])
    found = vtrace(column([0, 100, 0]), *rest, ends, **settings)
    expected = vtrace(column([0, 1, 0]), *rest, ends, **settings)
    assert not np.isfinite(found.vs[1, 0])
    for left, right in zip(found, expected):
        np.testing.assert_allclose(left[0], right[0], rtol=1e-6)
        np.testing.assert_allclose(left[2], right[2], rtol=1e-6)


@pytest.mark.parametrize("split", [1, 5, 11])
def test_an_end_is_where_an_unroll_could_be_split(split):
    steps = inputs(4)
    steps[5][split - 1] = True
    whole = of_settings(steps, **CROSSING)
    parts = [
        of_settings([array[part] for array in steps], **CROSSING)
        for part in (slice(0, split), slice(split, None))
    ]
    for one, *halves in zip(whole, *parts):
        np.testing.assert_allclose(one, np.concatenate(halves), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("length", [1, 20, 100])
def test_xla_gives_the_same_numbers(length):
    steps = inputs(5, steps=length)
    compiled = tf.function(functools.partial(vtrace, **CROSSING), jit_compile=True)
    tensors = [*float32(*steps[:5]), tf.constant(steps[5])]
    for ours, same in zip(vtrace(*tensors, **CROSSING), compiled(*tensors)):
        np.testing.assert_allclose(ours, same, rtol=1e-5, atol=1e-6)


def test_batch_size_need_not_be_static():
    steps = inputs(6)
    spec = tf.TensorSpec([12, None], tf.float32)
    traced = tf.function(vtrace, input_signature=[spec] * 5)
    for ours, same in zip(vtrace(*float32(*steps[:5])), traced(*float32(*steps[:5]))):
        np.testing.assert_allclose(ours, same, rtol=1e-6, atol=1e-6)


def test_no_gradient_flows_through_the_returns():
    tensors = float32(*inputs(7)[:5])
    for output in ("vs", "pg_advantages"):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            total = tf.reduce_sum(getattr(vtrace(*tensors), output))
        assert tape.gradient(total, tensors) == [None] * 5


@pytest.mark.parametrize("position", range(6))
@pytest.mark.parametrize("change", [lambda x: x[0], lambda x: x[..., None], tf.transpose])
def test_shapes_are_checked(position, change):
    """A tensor that is batch-major, or a bootstrap alone, would broadcast to wrong numbers."""
    steps = inputs(8)
    tensors = [*float32(*steps[:5]), tf.constant(steps[5])]
    tensors[position] = change(tensors[position])
    with pytest.raises(ValueError, match=r"one shape \[T, B\], got \w+ of shape"):
        vtrace(*tensors)


def test_length_must_be_static():
    spec = tf.TensorSpec([None, 3], tf.float32)
    with pytest.raises(ValueError, match="static number of steps"):
        tf.function(vtrace, input_signature=[spec] * 5).get_concrete_function()
