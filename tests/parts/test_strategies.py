"""What gin may ask of the learner's strategy. Replicas are tested with the trainer."""

import pytest
import tensorflow as tf

from tfdrl.errors import ConfigurationError
from tfdrl.parts.strategies import strategy


def test_default():
    assert strategy() is tf.distribute.get_strategy()
    assert strategy().num_replicas_in_sync == 1


def test_mirrored_on_one_device_is_one_replica():
    mirrored = strategy(kind="mirrored", devices=("CPU:0",))
    assert isinstance(mirrored, tf.distribute.MirroredStrategy)
    assert mirrored.num_replicas_in_sync == 1


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"kind": "mirorred"}, "'mirorred' is unknown; use 'default', 'mirrored'"),
        ({"kind": "mirrored", "devices": ("GPU:7",)}, r"GPU:7, but this machine has only .*CPU:0"),
    ],
)
def test_what_cannot_work(kwargs, message):
    with pytest.raises(ConfigurationError, match=message):
        strategy(**kwargs)
