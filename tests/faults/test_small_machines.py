"""Machines that lack something: shared memory, a directory for temporary files, a writable disk."""

import os
import subprocess
import sys

import pytest
from paths import CHECKOUT, python_path

from tfdrl.errors import ConfigurationError
from tfdrl.launch import run_directory
from tfdrl.runtime import locks

_FULL_SHARED_MEMORY = (
    "mount -t tmpfs -o size=1m tmpfs /dev/shm; head -c 1M /dev/zero > /dev/shm/filler"
)


def _read_only(directory):
    return f"mount --bind {directory} {directory} && mount -o remount,bind,ro {directory}"


def _train(preparation, root_dir, *arguments):
    """`tfdrl-train` in a mount namespace of its own, after a shell's commands there."""
    script = f'{preparation}\ncd {CHECKOUT} && exec "$@"'
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("mounting in a namespace is not permitted")
    environment = {**os.environ, "PYTHONPATH": python_path()}
    environment.pop("TMPDIR", None)
    command = [sys.executable, "-m", "binaries.train", "--gin_file=apex/cartpole.gin"]
    return subprocess.run(
        [*namespace, *command, f"--root_dir={root_dir}", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )


def test_environments_in_processes_without_shared_memory_are_refused(tmp_path):
    binding = "gym_environment.vectorization = 'async'"
    ended = _train(_FULL_SHARED_MEMORY, tmp_path / "run", f"--gin_bindings={binding}")
    assert ended.returncode == 2, ended.stdout
    assert "No space left on device. They need" in ended.stdout and "/dev/shm" in ended.stdout
    assert "Traceback" not in ended.stdout


def test_without_a_place_for_temporary_files_nothing_starts(tmp_path):
    places = ["/tmp", "/var/tmp", CHECKOUT]
    nowhere = "\n".join(_read_only(place) for place in places)
    ended = _train(nowhere, "/dev/shm/never", "--gin_bindings=apex.actors = 1")
    assert ended.returncode == 2, ended.stdout
    assert "no directory for temporary files" in ended.stdout and "set TMPDIR" in ended.stdout


def test_a_disk_that_turns_read_only_under_a_run_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr(run_directory, "_LOOK_SECS", 0.0)
    with locks.lock(tmp_path, "launcher") as lock:
        watch = run_directory.DiskWatch(tmp_path, lock)
        assert watch.look() == ""
        if subprocess.run(_read_only(tmp_path), shell=True, capture_output=True).returncode:
            pytest.skip("mounting is not permitted")
        try:
            assert f"the disk of {tmp_path} is read-only now: checkpoints" in watch.look()
            assert watch.look() == "" and not watch.is_lost
            with pytest.raises(ConfigurationError, match="Read-only file system; choose another"):
                run_directory.claim(tmp_path / "run")
        finally:
            subprocess.run(["umount", str(tmp_path)], check=True)
        assert "can be written to again" in watch.look() and watch.look() == ""
