"""Nests of a known form are those that tree makes."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tree
from tf_agents.trajectories import policy_step

from tfdrl.runtime.nests import packer, row_writer, rows_like

Info = collections.namedtuple("Info", "q_taken max_q")
NESTS = {
    "leaf": 0,
    "nothing": (),
    "parts without leaves": ((), [], {}, {"a": ()}),
    "policy step": policy_step.PolicyStep(0, [0, 0], Info(0, {"x": 0})),
    "keys in no order": {"b": 0, "a": (0, {"z": 0, "c": 0}), "ab": [0]},
    "numbers as keys": {3: 0, 1: 0, 2: (0, 0)},
    "OrderedDict": collections.OrderedDict([("b", 0), ("a", (0, 0))]),
    "defaultdict within a tuple": (0, collections.defaultdict(int, {"b": 0, "a": 0})),
    "list of TensorFlow's": tf.train.Checkpoint(x=[0, (0, 0)]).x,
    "None is a leaf": (None, 0),
}


def types_of(nest):
    """Of all parts."""
    if not tree.is_nested(nest):
        return type(nest)
    parts = nest.values() if isinstance(nest, collections.abc.Mapping) else nest
    return type(nest), [types_of(part) for part in parts]


@pytest.mark.parametrize("like", NESTS.values(), ids=NESTS.keys())
def test_the_nest_is_that_of_tree(like):
    leaves = [f"leaf {i}" for i in range(len(tree.flatten(like)))]
    pack, expected = packer(like), tree.unflatten_as(like, leaves)
    for _ in range(2):  # a nest is made anew at each call
        found = pack(leaves)
        assert found == expected and types_of(found) == types_of(expected)
        assert tree.flatten(found) == leaves
    if isinstance(like, dict):
        assert list(found) == list(expected)


@pytest.mark.parametrize("count", [2, 4])
def test_another_number_of_leaves_is_an_error(count):
    with pytest.raises(ValueError, match=f"a nest of 3 leaves cannot be made of {count}"):
        packer((0, [0, 0]))([1] * count)


def test_a_row_is_written_into_every_array():
    storage = rows_like({"a": np.ones(2, np.int8), "b": (np.float32(1.5),)}, 3)
    row_writer(storage)(1, {"a": np.array([3, 4], np.int8), "b": (np.float32(2.5),)})
    assert storage["a"].tolist() == [[0, 0], [3, 4], [0, 0]] and storage["a"].dtype == np.int8
    assert storage["b"][0].tolist() == [0, 2.5, 0] and storage["b"][0].dtype == np.float32


@pytest.mark.parametrize("row", [(1,), (1, 2, 3)])
def test_a_row_with_another_number_of_leaves_is_not_written(row):
    storage = rows_like((0, 0), 3)
    with pytest.raises(ValueError, match=f"{len(row)} leaves, where those before had 2"):
        row_writer(storage)(0, row)
    assert not np.any(storage)
