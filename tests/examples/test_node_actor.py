"""An actor in JavaScript, of examples/node_actor, is trained by a learner of SEED RL."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import grpc
import numpy as np
import pytest

from tfdrl.launch.local import addresses
from tfdrl.rpc.environment_specs import EnvironmentSpecs
from tfdrl.rpc.grpc_server import RefusedError
from tfdrl.rpc.inference_server import InferenceService, TrainingIsOver
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.topology import Address
from tfdrl.types import FIRST, LAST, ArraySpec

_CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
_LIMIT_SECS = 200

pytestmark = pytest.mark.skipif(shutil.which("npm") is None, reason="Node and npm are not here")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A copy of the example with the packages that it names, as a reader would make it."""
    there = tmp_path_factory.mktemp("node") / "node_actor"
    shutil.copytree(_CHECKOUT / "examples/node_actor", there, ignore=lambda *_: ["node_modules"])
    install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--prefer-offline"]
    done = subprocess.run(install, cwd=there, capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"npm brings no packages here: {done.stderr.strip()[-200:]}")
    return there


def _node(directory, *arguments):
    environment = {**os.environ, "PROTO_ROOT": str(_CHECKOUT)}
    how = {"capture_output": True, "text": True, "timeout": _LIMIT_SECS}
    command = ["node", "actor.js", *map(str, arguments)]
    return subprocess.run(command, cwd=directory, env=environment, **how)


_OBSERVATION = ArraySpec((8, 5), np.dtype(np.float32), 0, 1)
_ACTION = ArraySpec((), np.dtype(np.int32), 0, 2)
_SPECS = EnvironmentSpecs((_OBSERVATION,), (_ACTION,), 1, _OBSERVATION, _ACTION)


class _BestPlayer:
    """Moves every paddle below its ball; cuts the first stream once; counts what it was shown."""

    def __init__(self):
        self.runs, self.steps, self.frames = [], [], 0

    def join(self, hello):
        self.runs.append(hello)
        return _Seat(self)


class _Seat:
    def __init__(self, player):
        self.player, self.next_index = player, 0

    async def act(self, index, steps, message):
        player = self.player
        player.steps.append(steps)
        player.frames = message.frames
        if len(player.runs) == 1 and index == 20:
            raise RefusedError(grpc.StatusCode.UNAVAILABLE, "cut for a test")
        if index == 100:
            raise TrainingIsOver("a hundred steps")
        board = steps.observation[0]
        ball = board[:, :-1].any(axis=1).argmax(axis=1)
        paddle = board[:, -1].argmax(axis=1)
        return [(1 + np.sign(ball - paddle)).astype(np.int32)]

    def leave(self):
        pass


def test_the_actor_says_what_its_games_show_and_does_what_it_is_told(directory):
    player = _BestPlayer()
    service = InferenceService(player, "digest", _SPECS)
    server = TrainingServer(Address("127.0.0.1", 0), "digest", more=service.served_for(8))
    try:
        played = _node(directory, server.address, 0, 8)
    finally:
        server.close()
    assert played.returncode == 0, played.stderr
    assert "stopped: a hundred steps\nmean return 1\n" in played.stdout
    run_ids = {hello.sender.run_id for hello in player.runs}
    assert len(run_ids) == 2  # the stream that was cut was begun anew
    types = np.stack([steps.step_type for steps in player.steps[-101:]])
    assert (types[0] == FIRST).all() and (types[7] == LAST).all() and (types[8] == FIRST).all()
    assert player.frames == (types != FIRST).sum()  # of this run_id
    lasts = np.stack([steps.reward for steps in player.steps[-101:]])[types == LAST]
    assert lasts.tolist() == [1.0] * len(lasts) and len(lasts) == 8 * 12


def test_specs_that_do_not_fit_are_said(directory):
    other = ArraySpec((9, 5), np.dtype(np.float32), 0, 1)
    specs = EnvironmentSpecs((other,), (_ACTION,), 1, other, _ACTION)
    service = InferenceService(_BestPlayer(), "digest", specs)
    server = TrainingServer(Address("127.0.0.1", 0), "digest", more=service.served_for(8))
    try:
        played = _node(directory, server.address)
    finally:
        server.close()
    assert played.returncode == 1
    assert "the actor's is observation float32[8, 5]" in played.stderr


@pytest.mark.slow
def test_a_game_in_javascript_is_learnt_to_its_best_return(directory, tmp_path):
    port = next(addresses.free_ports())
    command = [sys.executable, "-m", "binaries.seed_learner", "--gin_file=catch.gin"]
    command += [f"--root_dir={tmp_path / 'run'}", f"--listen=localhost:{port}"]
    environment = {**os.environ, "PYTHONPATH": str(_CHECKOUT)}
    learner = subprocess.Popen(command, cwd=directory, env=environment)
    try:
        played = _node(directory, f"localhost:{port}")
        assert learner.wait(timeout=60) == 0
    finally:
        learner.kill()
        learner.wait()
    assert played.returncode == 0, played.stderr
    assert float(re.search(r"^mean return (\S+)$", played.stdout, re.MULTILINE)[1]) > 0.9
