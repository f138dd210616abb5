"""A run that is submitted to a Ray cluster as a job."""

import os
import pathlib
import subprocess
import sys

import pytest
import ray_cluster

_MISSING = ray_cluster.missing(dashboard=True)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(_MISSING), reason=_MISSING or "there")]


@pytest.fixture(scope="module")
def ray():
    # Several on one machine would share, and remove, the directory of a job's files.
    with ray_cluster.cluster(nodes=1, dashboard=True) as found:
        yield found


_OWN = """
import tiny_program
import own_package
experiment.architecture = @tiny()
tiny.learner = 'finish'
"""


def _submit(ray, directory: pathlib.Path, root_dir: pathlib.Path) -> subprocess.CompletedProcess:
    train = [sys.executable, "-m", "binaries.train", "--launcher=ray", "--gin_file=own.gin"]
    submit = ["ray", "job", "submit", f"--address={ray.dashboard}", f"--working-dir={directory}"]
    return subprocess.run(
        [os.path.join(os.path.dirname(sys.executable), submit[0]), *submit[1:], "--", *train]
        + [f"--root_dir={root_dir}"],
        env=ray.environment,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_job_brings_its_own_package(ray, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "own.gin").write_text(_OWN)
    (home / "own_package.py").write_text("")
    done = _submit(ray, home, tmp_path / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "learner finished" in done.stdout
    lost = _submit(ray, home, pathlib.Path("runs/a"))
    assert lost.returncode != 0
    assert "is among the files that Ray has brought" in lost.stdout + lost.stderr
