"""Checkpoints that were interrupted, damaged or had no room: the last good one is what counts."""

import logging
import pathlib
import socket

import numpy as np
import preloaded
import pytest
import reverb
import tensorflow as tf
from paths import SUPPORT
from running_roles import free_port, small_disk

from tfdrl.errors import ConfigurationError, TfdrlError
from tfdrl.replay.server import ReplayServer, complete_checkpoints
from tfdrl.runtime.checkpoints import Checkpoints
from tfdrl.topology import Address

_VALUES = 10_000


@pytest.mark.parametrize("kind", ["learner", "replay"])
def test_killed_twenty_times_while_writing(tmp_path, kind):
    script = str(SUPPORT / "checkpoint_writers.py")
    done = preloaded.run("called", [script, kind, str(tmp_path), "20"], SUPPORT, timeout=120)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "survived 20 kills" in done.stdout
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) < 30


class Saved:
    """A variable of 10,000 values that are all the step, and its checkpoints."""

    def __init__(self, directory):
        self.variable = tf.Variable(tf.zeros([_VALUES]))
        self.directory = directory
        self.checkpoints = Checkpoints(
            directory, {"state": tf.train.Checkpoint(variable=self.variable)}
        )

    def save(self, *steps):
        for step in steps:
            self.variable.assign(tf.fill([_VALUES], float(step)))
            written = self.checkpoints.save(step, {"frames": 10 * step})
        return written

    def restore(self):
        """Restores into other values; checks that all of them come from one checkpoint."""
        self.variable.assign(tf.fill([_VALUES], -1.0))
        step = self.checkpoints.restore()
        assert (self.variable.numpy() == step).all()
        assert self.checkpoints.counters.values == {"frames": 10 * step}
        return step

    def names(self):
        return sorted(path.name for path in self.directory.iterdir())


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
@pytest.mark.parametrize(
    "damage",
    [_truncate, _flip_a_bit, lambda path: path.write_bytes(b"")],
    ids=["truncated", "flipped", "emptied"],
)
def test_a_damaged_checkpoint_is_passed_over(tmp_path, caplog, suffix, damage):
    saved = Saved(tmp_path)
    saved.save(10, 20, 30)
    damage(tmp_path / f"checkpoint-30{suffix}")
    with caplog.at_level(logging.WARNING):
        assert Saved(tmp_path).restore() == 20
    assert "checkpoint-30 cannot be read" in caplog.text
    assert "restored an older checkpoint" in caplog.text


def test_a_checkpoint_without_its_data_is_passed_over(tmp_path):
    saved = Saved(tmp_path)
    saved.save(10, 20)
    (tmp_path / "checkpoint-20.data-00000-of-00001").unlink()
    assert saved.restore() == 10


def test_nothing_readable_is_no_fresh_start(tmp_path):
    saved = Saved(tmp_path)
    saved.save(10, 20)
    for path in tmp_path.glob("*.index"):
        _truncate(path)
    with pytest.raises(TfdrlError, match=r"none of the 2 checkpoints .* --root_dir") as error:
        Saved(tmp_path).restore()
    assert error.value.exit_code == 1


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda now: setattr(now, "variable", tf.Variable(tf.zeros([5]))), "incompatible"),
        (lambda now: setattr(now, "cost", tf.Variable(1.0, name="cost")), "'cost:0'"),
    ],
    ids=["another size", "one more"],
)
def test_one_of_other_settings_is_not_called_damaged(tmp_path, change, words):
    Saved(tmp_path).save(10, 20)
    now = tf.train.Checkpoint(variable=tf.Variable(tf.zeros([_VALUES])))
    change(now)
    with pytest.raises(ConfigurationError, match=f"not of these settings .*{words}") as error:
        Checkpoints(tmp_path, {"state": now}).restore()
    assert "checkpoint-20" in str(error.value) and "set back what was changed" in str(error.value)


class Killed(BaseException):
    """Instead of a real one, which leaves no process to look from."""


@pytest.mark.parametrize("moves", [0, 1, 2, 3])
def test_one_of_the_same_step_is_replaced_as_a_whole(tmp_path, monkeypatch, moves):
    saved, left = Saved(tmp_path), iter(range(moves))
    saved.save(10, 20)

    def dying(move):
        def moved(*paths):
            if next(left, None) is None:
                raise Killed
            return move(*paths)

        return moved

    with monkeypatch.context() as patched, pytest.raises(Killed):
        for name in ("rename", "replace"):
            patched.setattr(pathlib.Path, name, dying(getattr(pathlib.Path, name)))
        saved.variable.assign(tf.fill([_VALUES], 20.5))
        saved.checkpoints.save(20, {"frames": 205})
        raise Killed
    again = Saved(tmp_path)
    assert again.checkpoints.restore() == 20
    expected = (205, 20.5) if moves else (200, 20.0)
    assert (again.checkpoints.counters.values["frames"], *set(again.variable.numpy())) == expected
    assert saved.save(30) and "written" not in saved.names()


def test_an_empty_directory_is_a_fresh_start(tmp_path):
    assert Saved(tmp_path / "new").checkpoints.restore() is None


def test_three_are_kept_and_nothing_of_the_others(tmp_path):
    saved = Saved(tmp_path)
    (tmp_path / "checkpoint-5.data-00000-of-00001").write_bytes(b"of a killed process")
    saved.save(10, 20, 30, 40, 40)
    assert saved.names() == [
        f"checkpoint-{step}.{part}"
        for step in (20, 30, 40)
        for part in ("data-00000-of-00001", "index")
    ]


def test_files_of_others_are_passed_over_and_left_alone(tmp_path):
    names = ["checkpoint-abc.index", "checkpoint-7b.index", "checkpoint-.index", "checkpoint-9.txt"]
    names += ["checkpoint-abc.data-00000-of-00001", "checkpoint-\u0661.index"]
    for name in names:
        (tmp_path / name).write_bytes(b"not ours")
    saved = Saved(tmp_path)
    assert saved.checkpoints.restore() is None
    saved.save(10, 20, 30, 40)
    assert saved.restore() == 40
    assert [name for name in names if not (tmp_path / name).exists()] == []
    assert not (tmp_path / "checkpoint-10.index").exists()


def test_a_full_disk_keeps_the_old_checkpoint_and_leaves_nothing_behind(tmp_path, caplog):
    with small_disk(tmp_path / "disk", size_megabytes=1) as permitted:
        if not permitted:
            pytest.skip("mounting a small file system is not permitted")
        saved = Saved(tmp_path / "disk")
        saved.save(10, 20)
        before = saved.names()
        filler = tmp_path / "disk" / "filler"
        filler.write_bytes(bytes((1 << 20) - 2 * 4 * _VALUES - 16_384 - 20_000))
        for step in (20, 30):  # also when the step was saved before
            with caplog.at_level(logging.ERROR):
                assert saved.save(step) is False
            assert "THE CHECKPOINT COULD NOT BE WRITTEN" in caplog.text
            assert saved.names() == [*before, "filler"]
        assert saved.restore() == 20
        filler.unlink()
        assert saved.save(40) is True
        assert saved.restore() == 40


def _replay(directory, signature=tf.TensorSpec([1], tf.float32)):  # noqa: B008  (immutable)
    """A replay server on a free port."""

    def tables():
        limiter = reverb.rate_limiters.MinSize(1)
        selectors = reverb.selectors.Fifo(), reverb.selectors.Fifo()
        return [reverb.Table("items", *selectors, 100, limiter, signature=signature)]

    return ReplayServer(tables, Address("127.0.0.1", free_port()), directory)


def _insert_and_checkpoint(server, times):
    for _ in range(times):
        _insert(server, 1)
        server.checkpoint()
    server.stop()


def _insert(server, times):
    client = server._server.localhost_client()
    for _ in range(times):
        with client.trajectory_writer(1) as writer:
            writer.append(np.zeros((), np.float32))
            writer.create_item("items", 1.0, writer.history[-1:])


def _damage_replay(checkpoint):
    for path in checkpoint.glob("*.tfrecord"):
        _truncate(path)


def test_a_damaged_replay_checkpoint_is_passed_over(tmp_path, caplog):
    _insert_and_checkpoint(_replay(tmp_path), 3)
    _damage_replay(complete_checkpoints(tmp_path)[-1])
    with caplog.at_level(logging.WARNING):
        server = _replay(tmp_path)
    assert server.info()["items"].current_size == 2
    assert "cannot be read" in caplog.text and "older checkpoint" in caplog.text
    _insert_and_checkpoint(server, 2)
    assert len(complete_checkpoints(tmp_path)) == 2

    server = _replay(tmp_path)
    assert server.info()["items"].current_size == 4
    server.stop()
    for checkpoint in complete_checkpoints(tmp_path):
        _damage_replay(checkpoint)
    with pytest.raises(TfdrlError, match="none of the 2 replay checkpoints") as error:
        _replay(tmp_path)
    assert error.value.exit_code == 1


def test_a_clock_that_was_set_back_costs_no_replay_checkpoint(tmp_path):
    """Reverb names checkpoints by the clock, and removes the older ones of a directory by name."""
    server = _replay(tmp_path)
    _insert(server, 1)
    an_hour_later = server.checkpoint().with_name("2999-01-01T00:00:00.000000000+00:00")
    server.checkpoint().rename(an_hour_later)
    for size in (2, 3):
        _insert(server, 1)
        newest = server.checkpoint()
        assert complete_checkpoints(tmp_path)[-1] == newest, "none but the newest is read back"
        assert len(complete_checkpoints(tmp_path)) == 2
        assert (newest / "DONE").exists(), size
    server.stop()
    server = _replay(tmp_path)
    assert server.info()["items"].current_size == 3
    server.stop()


def test_items_of_another_form_are_refused_and_kept(tmp_path):
    _insert_and_checkpoint(_replay(tmp_path), 1)
    (kept,) = complete_checkpoints(tmp_path)
    with pytest.raises(ConfigurationError, match=r"float32\[1\].*'items' is of \['int32\[1\]'"):
        _replay(tmp_path, tf.TensorSpec([1], tf.int32))
    assert complete_checkpoints(tmp_path) == [kept]
    server = _replay(tmp_path)
    assert server.info()["items"].current_size == 1
    server.stop()


def test_a_replay_directory_has_one_owner(tmp_path):
    server = _replay(tmp_path)
    with pytest.raises(ConfigurationError, match="in use by another replay server: process"):
        _replay(tmp_path)
    server.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
def test_a_port_in_use_on_any_interface_is_refused(tmp_path, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} is in use"):
            ReplayServer(lambda: [], Address("127.0.0.1", port), tmp_path)
