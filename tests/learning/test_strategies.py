"""What gin may ask of the learner's strategy. Replicas are tested with the trainer."""

import os
import pathlib

import gin
import pytest
import tensorflow as tf

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.learning.clusters import Cluster, Peers
from tfdrl.learning.devices import check_devices, make_strategy, strategy
from tfdrl.topology import Address, Context

ALONE = Context("learner", 0, 1, pathlib.Path())
TWO = Context(
    *("learner", 1, 2, pathlib.Path()),
    cluster=(Address("127.0.0.1", 20001), Address("127.0.0.1", 20002)),
)


@pytest.fixture
def joined(monkeypatch):
    """All learners are there; the environment is put back."""
    monkeypatch.setenv("TF_CONFIG", "")
    monkeypatch.setenv("no_grpc_proxy", "")
    monkeypatch.setattr("tfdrl.learning.rendezvous.meet", lambda *unused: True)


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
        ({"kind": "mirorred"}, "'mirorred' is unknown; use 'default', 'one_device', 'm"),
        ({"kind": "multi_worker"}, "there is one learner: ask for more of them, or use 'default'"),
        (
            {"kind": "default", "cluster": Cluster(TWO, 1.0)},
            "'default' would train each of the 2 learners apart; use 'multi_worker'",
        ),
        (
            {"kind": "mirrored", "cluster": Cluster(TWO, 1.0)},
            "'mirrored' would train each of the 2 learners apart",
        ),
        (
            {"kind": "multi_worker", "devices": ("GPU:0",), "cluster": Cluster(TWO, 1.0)},
            "set CUDA_VISIBLE_DEVICES instead",
        ),
        ({"kind": "one_device"}, r"strategy.devices = None for 'one_device'; name one"),
        ({"kind": "one_device", "devices": ("GPU:7",)}, "GPU:7, but this machine has only"),
        ({"devices": ("GPU:0",)}, r"'default', which takes TensorFlow's first device; use 'one_d"),
        ({"kind": "tpu"}, "strategy.tpu = 'local': no TPU answers"),
        ({"kind": "mirrored", "devices": ("GPU:7",)}, r"GPU:7, but this machine has only .*CPU:0"),
    ],
)
def test_what_cannot_work(kwargs, message):
    with pytest.raises(ConfigurationError, match=message):
        strategy(**kwargs)


def test_a_hidden_device_is_told_from_one_that_is_not_there(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigurationError, match=r"only CPU:0; CUDA_VISIBLE_DEVICES= lets it see"):
        check_devices("seed.inference_devices", ("GPU:0",))


def test_default_factory_is_told_of_the_cluster():
    assert make_strategy(None, ALONE, 1.0) is tf.distribute.get_strategy()
    with pytest.raises(ConfigurationError, match="use 'multi_worker'"):
        make_strategy(None, TWO, 1.0)


def test_gin_cannot_bind_the_cluster():
    with pytest.raises(ValueError, match="cluster"):
        gin.bind_parameter("strategy.cluster", 1)


def test_factory_that_knows_nothing_of_clusters_keeps_working():
    made = tf.distribute.OneDeviceStrategy("CPU:0")
    assert make_strategy(lambda: made, ALONE, 1.0) is made
    assert make_strategy(lambda **unused: made, ALONE, 1.0) is made


def test_factory_without_parameters_finds_the_cluster_in_its_environment(joined):
    seen = []

    def factory():
        seen.append(tf.distribute.cluster_resolver.TFConfigClusterResolver())
        return tf.distribute.get_strategy()

    with pytest.raises(ConfigurationError, match="would train each of the 2 learner processes ap"):
        make_strategy(factory, TWO, 30.0)
    assert seen[0].cluster_spec().as_dict() == {"worker": ["127.0.0.1:20001", "127.0.0.1:20002"]}
    assert (seen[0].task_type, seen[0].task_id) == ("worker", 1)
    assert os.environ.get("no_grpc_proxy") == "localhost,127.0.0.1"  # noqa: SIM112


def test_told_to_stop_while_waiting(monkeypatch):
    monkeypatch.setattr("tfdrl.learning.rendezvous.meet", lambda *unused: False)
    with pytest.raises(SystemExit) as left:
        make_strategy(tf.distribute.get_strategy, TWO, 1.0)
    assert left.value.code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "Collective ops is aborted by: Socket closed\nAdditional GRPC error information from "
            "remote target /job:worker/replica:0/task:0 while calling /tensorflow.WorkerService",
            "learner 1 lost learner 0 at 127.0.0.1:20001, which has ended .*log of learner 0",
        ),
        (
            "Collective ops is aborted by: Error reported from /job:worker/task:1: Task "
            "/job:worker/replica:0/task:0 heartbeat timeout.",
            "learner 1 lost learner 0 at .* does not answer",
        ),
        ("Collective ops is aborted by: other", "learner 1 lost another learner; look at the logs"),
    ],
)
def test_lost_learner_is_named(text, words):
    peers = Peers(TWO, 30.0)
    with pytest.raises(UnavailableError, match=words), peers.together():
        raise tf.errors.UnavailableError(None, None, text)


@pytest.mark.parametrize("context", [ALONE, TWO])
def test_other_errors_stay_as_they_are(context):
    peers = Peers(context, 30.0)
    for error in (tf.errors.InvalidArgumentError(None, None, "shape"), ValueError("other")):
        with pytest.raises(type(error)), peers.together():
            raise error
