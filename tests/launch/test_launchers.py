"""A launcher that is none of tfdrl's: docs/launchers.md shows it, and a run does not mind."""

import pathlib
import subprocess
import sys

from paths import CHECKOUT, python_path

_PROGRAM = """
import pathlib, sys
from remote_shell import RemoteShellLauncher
from tfdrl import configuration
from tfdrl.experiment import Experiment
from tfdrl.launch.placement import Node
from tfdrl.launch.run import run_program

gin, root_dir = sys.argv[1:]
loaded = configuration.load([gin], [], tensorflow=False)
experiment = Experiment.from_gin()
nodes = [Node("a", "127.0.0.1", 2), Node("b", "127.0.0.2", 2)]
shell = ["sh", "-c", 'echo on $0; export NODE=$0; exec sh -c "$1"']
launcher = RemoteShellLauncher(shell, nodes)
program = experiment.architecture.program()
sys.exit(run_program(experiment, program, loaded, root_dir, [gin], launcher=launcher))
"""


def test_a_run_is_the_same_under_a_launcher_of_ones_own(tmp_path):
    gin = tmp_path / "tiny.gin"
    gin.write_text(
        "import tiny_program\nexperiment.architecture = @tiny()\ntiny.learner = 'finish'\n"
    )
    command = [sys.executable, "-c", _PROGRAM, str(gin), str(tmp_path / "run")]
    environment = {"PYTHONPATH": python_path(), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "learner finished" in done.stdout and "  actor: b, b" in done.stdout
    logs = {path.stem: path.read_text() for path in (tmp_path / "run" / "logs").glob("*.log")}
    nodes = {name: text.split("on ")[1].split()[0] for name, text in logs.items()}
    assert nodes == {"replay-0": "a", "learner-0": "a", "actor-0": "b", "actor-1": "b"}
    assert sorted((tmp_path / "run" / "stopped").read_text().split()) == [
        "actor-0",
        "actor-1",
        "replay-0",
    ]


def test_the_docs_show_it_as_it_is():
    text = (CHECKOUT / "tests" / "support" / "remote_shell.py").read_text()
    assert text in pathlib.Path(CHECKOUT / "docs" / "launchers.md").read_text()
