"""A user's own package: an architecture and an environment without TensorFlow, an agent with."""

import importlib
import sys
import textwrap

import gin
import pytest

_FILES = {
    "__init__.py": "",
    "arch.py": """
        import dataclasses
        from typing import Any, Optional
        import gin
        from tfdrl import topology

        @gin.configurable
        @dataclasses.dataclass(frozen=True)
        class lab_apex:
            environment: Any = gin.REQUIRED
            agent: Any = gin.REQUIRED
            optimizer: Any = None
            actors: int = 4
            period_frames: Optional[int] = None

            def program(self):
                return topology.Program("lab_apex", ())
    """,
    "environments.py": """
        from __future__ import annotations
        from typing import Literal
        import gin

        gin.constant("BIG", 99)

        @gin.configurable
        def maze(size: int = 5, slip: float = 0.1, *, name: str | None = None,
                 shape: tuple[int, ...] = (1, 2), walls: Literal["thin", "thick"] = "thin",
                 wrappers=(), open: bool = False):
            return dict(size=size, slip=slip, name=name, shape=shape, open=open)

        @gin.configurable(denylist=["seed"])
        def bandit(arms: int, seed: int = 0, **more):
            return arms
    """,
    "agents.py": """
        import gin
        from my_lab import networks

        class _Base:
            def __init__(self, network, gamma: float = 0.99):
                self.network = network

        @gin.configurable
        class LabAgent(_Base):
            pass

        @gin.configurable("lab_adam")
        def make_adam(rate: float = 1e-3):
            return "adam", rate
    """,
    "networks.py": """
        import tensorflow as tf
    """,
}

_GIN = {
    "lab.gin": """
        import my_lab.arch
        import my_lab.environments
        import my_lab.agents
        include 'maze.gin'

        experiment.architecture = @lab_apex()
        experiment.solved_return = 475.0
        lab_apex.environment = @maze
        lab_apex.agent = @LabAgent
        lab_apex.optimizer = @lab_adam()
        lab_apex.actors = %workers
        LabAgent.gamma = 0.9
        evaluator/maze.slip = 0
        workers = 4
    """,
    "maze.gin": """
        maze:
          size = 7  # rooms
          shape = (3, 4)
    """,
}


def _dedent(text):
    return textwrap.dedent(text).strip() + "\n"


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The working directory, with my_lab and its gin files; my_lab is not on sys.path."""
    (tmp_path / "my_lab").mkdir()
    for name, text in _FILES.items():
        (tmp_path / "my_lab" / name).write_text(_dedent(text))
    for name, text in _GIN.items():
        (tmp_path / name).write_text(_dedent(text))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    importlib.invalidate_caches()
    gin.enter_interactive_mode()  # each test registers the same names anew
    yield tmp_path
    gin.exit_interactive_mode()
    for name in [name for name in sys.modules if name.split(".")[0] == "my_lab"]:
        del sys.modules[name]
    gin.clear_config(clear_constants=True)
