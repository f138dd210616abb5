"""A launcher that is none of tfdrl's: docs/launchers.md shows it, and a run does not mind."""

import pathlib
import re
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


def _run(code, tmp_path, learner):
    gin = tmp_path / "tiny.gin"
    gin.write_text(
        f"import tiny_program\nexperiment.architecture = @tiny()\ntiny.learner = {learner!r}\n"
    )
    command = [sys.executable, "-c", code, str(gin), str(tmp_path / "run")]
    environment = {"PYTHONPATH": python_path(), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )


def _nodes(tmp_path, log):
    text = (tmp_path / "run" / "logs" / f"{log}.log").read_text()
    return re.findall(r"^on (\w+)", text, re.MULTILINE)


def test_a_run_is_the_same_under_a_launcher_of_ones_own(tmp_path):
    done = _run(_PROGRAM, tmp_path, "finish")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "learner finished" in done.stdout and "  actor: b, b" in done.stdout
    for log, node in {"replay-0": "a", "learner-0": "a", "actor-0": "b", "actor-1": "b"}.items():
        assert _nodes(tmp_path, log) == [node]
    assert sorted((tmp_path / "run" / "stopped").read_text().split()) == [
        "actor-0",
        "actor-1",
        "replay-0",
    ]


_LOSING = (
    _PROGRAM.replace(
        "gin, root_dir",
        """
class Losing(RemoteShellLauncher):
    lost = False

    def nodes(self, program):
        return self._nodes[self.lost :]

    def starter(self, start, notify):
        starter = super().starter(start, notify)

        def gone(nodes):
            type(self).lost = True
            return {"a"} & set(nodes)

        starter.gone = gone
        return starter

gin, root_dir""",
    )
    .replace("launcher = RemoteShellLauncher", "launcher = Losing")
    .replace("2), Node", "4), Node")
    .replace('"127.0.0.2", 2', '"127.0.0.2", 4')
)


def test_everything_starts_again_elsewhere_when_the_node_of_a_learner_is_lost(tmp_path):
    done = _run(_LOSING, tmp_path, "die")
    assert done.returncode == 7, done.stdout + done.stderr
    assert "replay has lost its node a; learner has lost its node a: all roles" in done.stdout
    assert "ended               learner died (exit code 7)" in done.stdout
    assert _nodes(tmp_path, "learner-0") == ["a", "b"] == _nodes(tmp_path, "replay-0")


_REFUSED = _LOSING.replace(
    "    def starter(",
    """
    def ports(self, start, counts):
        from tfdrl.errors import ConfigurationError

        if self.lost:
            raise ConfigurationError("b does not see --root_dir")
        return super().ports(start, counts)

    def starter(""",
)


def test_a_run_ends_when_the_nodes_that_are_left_cannot_run_it(tmp_path):
    done = _run(_REFUSED, tmp_path, "die")
    assert done.returncode == 1, done.stdout + done.stderr
    words = "learner has lost its node a, and no other will do: b does not see --root_dir"
    assert words in done.stdout


def test_the_docs_show_it_as_it_is():
    text = (CHECKOUT / "tests" / "support" / "remote_shell.py").read_text()
    assert text in pathlib.Path(CHECKOUT / "docs" / "launchers.md").read_text()
