"""The actor of SEED RL as a process of its own: what it loads, what it costs, how it ends."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tfdrl import configuration
from tfdrl.environments.registry import atari_environment
from tfdrl.rpc import environment_specs
from tfdrl.rpc.inference_server import InferenceService, TrainingIsOver
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.topology import Address

_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
_GIN = "seed/atari_pong_vtrace.gin"
_STEPS = 400
_SHORT_GAMES = ["atari_environment.max_episode_frames = 800"]  # more than one of 400 steps
_SCRIPT = """
import json, pathlib, sys
from tfdrl.launch import role
code = role.main(sys.argv, "actor")
status = pathlib.Path("/proc/self/status").read_text()
peak_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
print(json.dumps([code, peak_kb, sorted({name.split(".")[0] for name in sys.modules})]))
"""


class Player:
    """Random actions for some steps, then the end."""

    def __init__(self, steps):
        self.steps, self.frames, self.episodes = steps, 0, 0

    def join(self, hello):
        self.rows = hello.environments
        self.next_index = 0
        return self

    async def act(self, index, steps, message):
        self.frames, self.episodes = message.frames, self.episodes + len(message.episodes.returns)
        if index == self.steps:
            raise TrainingIsOver("enough")
        return [np.random.default_rng(index).integers(0, 6, self.rows).astype(np.int32)]

    def leave(self):
        pass


@pytest.fixture(scope="module")
def actor(tmp_path_factory):
    """Exit code, peak memory in KB, top-level modules, and the player, of a run on Pong."""
    player = Player(_STEPS)
    digest = configuration.check([_GIN], _SHORT_GAMES).digest
    with atari_environment(1, True, 0, id="Pong") as environment:
        specs = environment_specs.environment_specs(environment)
    service = InferenceService(player, digest, specs)
    server = TrainingServer(Address("127.0.0.1", 0), digest, more=service.served_for(32))
    root_dir = tmp_path_factory.mktemp("seed_actor")
    arguments = [f"--gin_file={_GIN}", f"--learner={server.address}", f"--root_dir={root_dir}"]
    arguments += [f"--gin_bindings={text}" for text in _SHORT_GAMES]
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, *arguments],
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        timeout=200,
    )
    server.close()
    assert done.returncode == 0, done.stderr
    assert "stopped: enough" in done.stderr
    return (*json.loads(done.stdout.splitlines()[-1]), player)


def test_it_never_imports_tensorflow(actor):
    _, _, modules, _ = actor
    assert {"grpc", "numpy", "ale_py", "tfdrl"} <= set(modules)
    heavy = {"tensorflow", "tf_agents", "reverb", "keras", "tensorflow_probability", "tree"}
    assert not heavy & set(modules)


def test_it_stays_below_120_megabytes_with_the_emulator(actor):
    _, peak_kb, _, _ = actor
    print(f"\npeak memory of a SEED actor with 16 emulators: {peak_kb / 1024:.0f} MB")
    assert peak_kb < 120 * 1024


def test_it_ends_well_when_the_learner_says_stop(actor):
    code, _, _, player = actor
    assert code == 0
    assert player.frames == (_STEPS * 16 - 16) * 4  # each was reset once: no step
    assert player.episodes > 0


def test_the_binary_calls_the_learner_server(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "binaries.seed_actor", "--server=nonsense:x", "--task=0"],
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    done = subprocess.run(
        [
            *(sys.executable, "-m", "binaries.seed_actor", "--server=127.0.0.1:1"),
            *("--gin_file=seed/cartpole_vtrace.gin", f"--root_dir={tmp_path}"),
            "--gin_bindings=seed.timeout_secs = 1.0",
        ],
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "the learner at 127.0.0.1:1 gave no answer for 1 s" in done.stderr
