"""Variables are spread over parameter servers evenly, each of them once."""

import numpy as np
import pytest

from tfdrl.errors import ConfigurationError
from tfdrl.parameter_server.layout import balanced_shards

# Nature DQN's kernels and biases.
_NATURE = [
    8 * 8 * 4 * 32,
    32,
    4 * 4 * 32 * 64,
    64,
    3 * 3 * 64 * 64,
    64,
    3136 * 512,
    512,
    512 * 6,
    6,
]


def loads(sizes, shards):
    return [sum(sizes[i] for i in shard) for shard in balanced_shards(sizes, shards)]


@pytest.mark.parametrize(
    ("sizes", "shards", "expected"),
    [
        ([5], 1, ((0,),)),
        ([7, 3, 5], 1, ((0, 1, 2),)),
        # 7 to the first; 5 and, as 5 < 7, 3 to the second; 2 to the first, as 7 < 8; 1, as 8 < 9.
        ([1, 2, 3, 5, 7], 2, ((1, 4), (0, 2, 3))),
        ([4, 4, 4, 4], 2, ((0, 2), (1, 3))),
        ([9, 1, 1, 1], 3, ((0,), (1, 3), (2,))),
    ],
)
def test_by_hand(sizes, shards, expected):
    assert balanced_shards(sizes, shards) == expected


def test_every_variable_once_in_ascending_order_and_no_shard_empty():
    random = np.random.default_rng(0)
    for _ in range(200):
        sizes = random.integers(0, 1000, size=random.integers(1, 20)).tolist()
        shards = int(random.integers(1, len(sizes) + 1))
        found = balanced_shards(sizes, shards)
        assert len(found) == shards and all(found)
        assert sorted(i for shard in found for i in shard) == list(range(len(sizes)))
        assert all(list(shard) == sorted(shard) for shard in found)


def test_the_largest_is_never_above_the_mean_by_more_than_one_variable():
    """Each variable goes to the shard that holds least, so at most the mean of all before it."""
    random = np.random.default_rng(1)
    for _ in range(200):
        sizes = random.integers(1, 1000, size=random.integers(4, 40)).tolist()
        shards = int(random.integers(1, 5))
        assert max(loads(sizes, shards)) <= sum(sizes) / shards + max(sizes)
        # Graham 1969: largest first is within 4/3 of the best, which is no less than the mean.
        best = max(sum(sizes) / shards, max(sizes))
        if max(sizes) <= sum(sizes) / shards / 3:
            assert max(loads(sizes, shards)) <= 4 / 3 * best


def test_variables_without_elements_leave_no_shard_empty():
    assert balanced_shards([0, 0, 0], 3) == ((0,), (1,), (2,))
    assert balanced_shards([5, 0, 0], 2) == ((0,), (1, 2))


def test_nature_dqn():
    """One layer holds 95 % of it: one server gets that alone, the others share the rest."""
    found = loads(_NATURE, 3)
    assert sorted(found)[2] == 3136 * 512
    rest = sum(_NATURE) - 3136 * 512
    assert sorted(found)[0] > 0.4 * rest and sum(found) == sum(_NATURE)


@pytest.mark.parametrize("shards", [0, -1, 4])
def test_impossible_counts_are_refused(shards):
    message = f"{shards} parameter servers for the 3 variables of the network.*use 1 to 3"
    with pytest.raises(ConfigurationError, match=message):
        balanced_shards([1, 2, 3], shards)
