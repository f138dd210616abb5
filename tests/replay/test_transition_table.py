"""Replay tables on a real Reverb server: frequencies of sampling, and settings that are refused."""

import copy

import gin
import numpy as np
import oracles
import pytest
import reverb
import tensorflow as tf

from tfdrl.environments import gym_environment
from tfdrl.errors import ConfigurationError
from tfdrl.experience.transitions import TransitionItem
from tfdrl.replay import transition_table
from tfdrl.replay.transition_table import replay_table

SIGNATURE = tf.TensorSpec([], tf.int32)


@pytest.fixture
def serve():
    servers = []

    def start(**kwargs):
        server = reverb.Server([replay_table(SIGNATURE, **kwargs)], port=None)
        servers.append(server)
        return reverb.Client(f"localhost:{server.port}")

    yield start
    for server in servers:
        server.stop()


def keys_by_value(client, count):
    """value -> key of all items, by sampling until each was seen."""
    seen = {}
    for (sample,) in client.sample(transition_table.TABLE, 200 * count):
        seen[int(sample.data[0])] = sample.info.key
        if len(seen) == count:
            return seen
    raise AssertionError(f"only {len(seen)} of {count} items were sampled")


def sampled_values(client, count):
    samples = [sample for (sample,) in client.sample(transition_table.TABLE, count)]
    return np.array([int(s.data[0]) for s in samples]), [s.info for s in samples]


def samples_within(client, limit, timeout_ms):
    """How many items can be sampled, one at a time, before one takes longer than this."""
    dataset = reverb.TimestepDataset(
        *(client.server_address, transition_table.TABLE, tf.int32, tf.TensorShape([])),
        **{"max_in_flight_samples_per_worker": 1, "num_workers_per_iterator": 1},
        rate_limiter_timeout_ms=timeout_ms,
    )
    return len(list(dataset.take(limit)))


def assert_frequencies(values, probability, count):
    """Chi-square within 4 standard deviations of its mean."""
    expected = probability * count
    observed = np.bincount(values, minlength=len(probability))
    chi_square = ((observed - expected) ** 2 / expected).sum()
    degrees = len(probability) - 1
    assert chi_square < degrees + 4 * np.sqrt(2 * degrees), observed


@pytest.mark.parametrize("alpha", [0.6, 1.0])
def test_sampling_follows_updated_priorities(serve, alpha):
    """P(i) = p_i^alpha / sum p^alpha (Schaul 2016, equation 1), the exponent applied once."""
    client = serve(max_size=100, min_size=1, priority_exponent=alpha)
    for value in range(10):
        client.insert(np.int32(value), {transition_table.TABLE: 1.0})
    keys = keys_by_value(client, 10)
    priority = np.array([0.1, 0.2, 0.5, 1, 1, 2, 3, 5, 10, 20])
    updates = {keys[value]: float(priority[value]) for value in range(10)}
    client.mutate_priorities(transition_table.TABLE, updates={**updates, 12345: 1e6})
    # The sampler of `keys_by_value` may have fetched ahead, but this is another one.
    count = 20_000
    values, infos = sampled_values(client, count)
    probability = priority**alpha / (priority**alpha).sum()
    assert_frequencies(values, probability, count)
    told = np.array([info.probability for info in infos])
    np.testing.assert_allclose(told, probability[values], rtol=1e-5)
    assert {info.table_size for info in infos} == {10}


def test_uniform_ignores_priorities(serve):
    client = serve(max_size=100, min_size=1, sampler="uniform")
    for value in range(10):
        client.insert(np.int32(value), {transition_table.TABLE: 10.0**value})
    values, _ = sampled_values(client, 5000)
    assert_frequencies(values, np.full(10, 0.1), 5000)


def test_a_full_table_forgets_the_oldest(serve):
    client = serve(max_size=5, min_size=1, sampler="uniform")
    for value in range(12):
        client.insert(np.int32(value), {transition_table.TABLE: 100.0 if value < 6 else 1.0})
    values, infos = sampled_values(client, 400)
    assert set(values) == {7, 8, 9, 10, 11}
    assert infos[0].table_size == 5


def test_prioritised_eviction_spares_high_priorities(serve):
    """Ape-X DPG: victims by p^-0.4; with exponent +0.4 the high ones would go."""
    client = serve(max_size=50, min_size=1, sampler="uniform", remover="prioritized")
    for value in range(400):
        client.insert(np.int32(value), {transition_table.TABLE: 1000.0 if value % 2 else 0.01})
    values, _ = sampled_values(client, 1000)
    assert (values % 2).mean() > 0.8


def test_eviction_follows_the_oracle(serve):
    """Victims of a full table are drawn by p^-0.4; a hundred items have each priority."""
    v = oracles.load("per", "evict")
    priorities, each, evicted = v["priorities"], 100, 120
    client = serve(
        **{"max_size": each * len(priorities), "min_size": 1, "max_times_sampled": 1},
        **{
            "sampler": "fifo",
            "remover": "prioritized",
            "remover_exponent": float(v["alpha_evict"]),
        },
    )
    newcomers = [(-1, 1e9)] * evicted  # themselves hardly ever victims
    for value, priority in [*enumerate(priorities)] * each + newcomers:
        client.insert(np.int32(value), {transition_table.TABLE: priority})
    left, _ = sampled_values(client, each * len(priorities))  # each item once
    victims = each - np.bincount(left[left >= 0], minlength=len(priorities))
    assert victims.sum() == pytest.approx(evicted, abs=2)
    for half in np.array_split(np.argsort(priorities), 3):
        share = v["probabilities"][half].sum()
        deviation = np.sqrt(share * (1 - share) / evicted)
        assert victims[half].sum() / evicted == pytest.approx(share, abs=4 * deviation)


def test_learning_starts_at_min_size(serve):
    client = serve(max_size=10, min_size=4)
    for value in range(3):
        client.insert(np.int32(value), {transition_table.TABLE: 1.0})
    assert samples_within(client, 1, timeout_ms=200) == 0
    client.insert(np.int32(3), {transition_table.TABLE: 1.0})
    assert samples_within(client, 1, timeout_ms=5000) == 1


def test_samples_per_insert_holds_sampling_back(serve):
    client = serve(
        **{"max_size": 10, "min_size": 2, "sampler": "uniform"},
        **{"samples_per_insert": 2.0, "error_buffer": 2.0},
    )
    for value in range(2):
        client.insert(np.int32(value), {transition_table.TABLE: 1.0})
    # 2 * inserts - samples may stray by 2 from 2 * min_size = 4; a third insert allows 2 more.
    assert samples_within(client, 50, timeout_ms=300) == 2
    client.insert(np.int32(2), {transition_table.TABLE: 1.0})
    assert samples_within(client, 50, timeout_ms=300) == 2


def test_an_item_may_be_sampled_once(serve):
    client = serve(max_size=10, min_size=1, sampler="fifo", max_times_sampled=1)
    for value in range(3):
        client.insert(np.int32(value), {transition_table.TABLE: 1.0})
    values, _ = sampled_values(client, 3)
    np.testing.assert_array_equal(values, [0, 1, 2])
    assert client.server_info(timeout=5)[transition_table.TABLE].current_size == 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"sampler": "lifo"}, "replay_table.sampler = 'lifo'"),
        ({"remover": "random"}, "replay_table.remover = 'random'"),
        (
            {"remover": "prioritized", "remover_exponent": 0.4},
            "remover_exponent = 0.4 would remove what has the highest priority first",
        ),
        ({"min_size": 11}, "could never hold enough"),
        ({"min_size": 0}, "between 1 and max_size"),
        ({"samples_per_insert": 0.0, "error_buffer": 5.0}, "must be positive"),
        ({"samples_per_insert": 4.0}, "error_buffer = None"),
        ({"samples_per_insert": 4.0, "error_buffer": 3.0}, "at least max"),
        ({"samples_per_insert": 0.5, "error_buffer": 0.6}, "at least max"),
        ({"samples_per_insert": 4.0, "error_buffer": 41.0}, "exceeds min_size"),
    ],
)
def test_settings_that_cannot_work(kwargs, message):
    with pytest.raises(ConfigurationError, match=message):
        replay_table(SIGNATURE, **{**{"max_size": 10, "min_size": 10}, **kwargs})


PAPERS = {
    "apex": (transition_table.APEX, 2_000_000, 50_000, 0.6),
    "r2d2": (transition_table.R2D2, 100_000, 5_000, 0.9),
    "gorila": (transition_table.GORILA, 1_000_000, 50_000, None),
}


@pytest.mark.parametrize("reference", [None, "replay_table", "a_scope/replay_table"])
@pytest.mark.parametrize("paper", PAPERS)
def test_what_gin_does_not_say_is_of_the_architectures_paper(paper, reference):
    defaults, max_size, min_size, exponent = PAPERS[paper]
    factory = reference and copy.deepcopy(
        gin.config.parse_value(f"@{reference}")
    )  # as gin gives it
    with gin.unlock_config():
        gin.bind_parameter("replay_table.max_times_sampled", 7)
    try:
        table = transition_table.make_table(factory, SIGNATURE, defaults)
    finally:
        gin.clear_config()
    info = table.info
    assert (info.max_size, info.max_times_sampled) == (max_size, 7)
    assert info.rate_limiter_info.min_size_to_sample == min_size
    assert transition_table.is_prioritized(info) == (exponent is not None)
    if exponent is not None:
        found = info.sampler_options.prioritized.priority_exponent
        assert found == pytest.approx(exponent)


def test_a_users_own_table_is_made_by_him():
    seen = []
    make = transition_table.make_table
    make(lambda signature: seen.append(signature), SIGNATURE, transition_table.APEX)
    named = lambda signature, name: seen.append((signature, name))  # noqa: E731
    make(named, SIGNATURE, transition_table.R2D2, "sequences")
    assert seen == [SIGNATURE, (SIGNATURE, "sequences")]


def signature_of(id):
    with gym_environment(1, True, 0, id=id) as environment:
        return transition_table.transition_signature(environment, 3)


def test_signature():
    signature = signature_of("tfdrl/RandomFrames-v0")
    assert signature == TransitionItem(
        observation=tf.TensorSpec([2, 84, 84, 4], tf.uint8),
        action=tf.TensorSpec([1], tf.int32),
        step=tf.TensorSpec([1, 4], tf.float32),
    )


def test_signatures_are_compared(serve):
    chain = signature_of("tfdrl/Chain-v0")
    transition_table.check_signature(chain, signature_of("tfdrl/Chain-v0"), "here")
    with pytest.raises(ConfigurationError, match=r"(?s)here.*10, 5.*\[2, 5\]"):
        transition_table.check_signature(signature_of("tfdrl/Catch-v0"), chain, "here")
    info = serve(max_size=10, min_size=1).server_info(timeout=5)[transition_table.TABLE]
    assert transition_table.is_prioritized(info)
    info = serve(max_size=10, min_size=1, sampler="uniform").server_info(timeout=5)
    assert not transition_table.is_prioritized(info[transition_table.TABLE])
