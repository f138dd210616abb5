"""Writing metrics costs no memory that stays; settings are shown beside them."""

import ctypes
import os

import numpy as np
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from tfdrl.benchmarks.proc import rss_bytes
from tfdrl.runtime.metrics import MetricsWriter


def _used_bytes():
    ctypes.CDLL(None).malloc_trim(0)  # what is free only waits to be used again
    return rss_bytes(os.getpid())


def test_what_is_written_is_not_kept(tmp_path):
    values = np.random.default_rng(1).random((70, 50)).tolist()
    writer = MetricsWriter(tmp_path, "learner", 0)
    for step, row in enumerate(values):
        if step == 20:
            before = _used_bytes()
        writer.write(step, {f"metric/{i}": value for i, value in enumerate(row)})
    kept = _used_bytes() - before
    writer.close()
    # TensorFlow's cache of Python numbers would have 2 MB of these, 800 bytes each; up to 0.8 are
    # seen where other tests have left memory in pieces.
    assert kept < 1.4e6


def test_settings_are_text_and_hyper_parameters(tmp_path):
    settings = "\n".join(
        [
            "# Parameters for apex:",
            "apex.actors = 4",
            "apex.agent = @NStepDqnAgent",
            "apex.replay_ratio = None",
            "apex.jit_compile = True",
            "adam.learning_rate = 0.0001",
            "MlpQNetwork.layer_units = (64, 64)",
            "gym_environment.id = 'CartPole-v1'",
        ]
    )
    writer = MetricsWriter(tmp_path, "learner", 0)
    writer.settings(settings)
    writer.close()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard" / "learner-0"))
    events.Reload()
    (text,) = (event.tensor_proto.string_val[0].decode() for event in events.Tensors("settings"))
    assert text.splitlines() == ["    " + line for line in settings.splitlines()]
    data = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    shown = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info.hparams
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in shown.items()}
    assert values == {
        "apex.actors": 4,
        "apex.agent": "@NStepDqnAgent",
        "apex.jit_compile": True,
        "adam.learning_rate": 0.0001,
        "gym_environment.id": "CartPole-v1",
    }
