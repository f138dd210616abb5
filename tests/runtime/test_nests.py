"""Nests of a known form are those that tree makes."""

import collections

import pytest
import tensorflow as tf
import tree
from tf_agents.trajectories import policy_step

from tfdrl.runtime.nests import packer

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


def test_leaves_that_do_not_suffice_are_an_error():
    with pytest.raises(StopIteration):
        packer((0, [0, 0]))([1, 2])
