"""R2D2 with every role a real process: it learns though an actor is killed, and continues."""

import json
import os
import signal

import pytest
from local_runs import Run, finish
from paths import DATA

_GIN = DATA / "r2d2_catch.gin"
_RATIO, _BATCH, _STEPS = 2.0, 16, 12


@pytest.fixture(scope="module")
def root_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("r2d2") / "run"


def test_solves_catch_in_its_ratio_although_an_actor_is_killed(root_dir):
    run = Run(_GIN, root_dir)
    try:
        is_killed, statuses = False, []
        for status in run.statuses():
            statuses.append(status)
            if not is_killed and status.learner_step > 20:
                (pid,) = run.processes("--role=actor", "--task=0")
                os.kill(pid, signal.SIGKILL)
                is_killed = True
        output = run.output
        assert run.popen.returncode == 0, output
        assert not run.processes()
    finally:
        run.kill()
    assert "actor 0 died (killed by SIGKILL); starting it again" in output
    assert "solved: mean return" in output
    result = json.loads((root_dir / "result.json").read_text())
    assert result["evaluation"]["mean"] >= 0.95
    # Sequences that were trained on, over those that were acted, within the buffers' slack.
    found = result["learner_steps"] * _BATCH / (result["frames"] / _STEPS)
    assert 0.5 * _RATIO < found < 1.2 * _RATIO
    metrics = statuses[-1].metrics
    assert metrics["replay/size"] > 64 and metrics["learner/bad_priorities"] == 0
    assert metrics["learner/td_error"] > 0
    actors = [role for role in statuses[-1].roles if role.role == "actor" and role.metrics]
    assert any(role.metrics["actor/sequences"] > 8 for role in actors)
    frames = [status.frames for status in statuses]
    assert frames == sorted(frames)


@pytest.mark.slow
def test_continues_with_its_replay(root_dir):
    finish(_GIN, root_dir)
    before = json.loads((root_dir / "result.json").read_text())
    steps = before["learner_steps"] + 20
    run = Run(
        *(_GIN, root_dir, "--allow_config_change"),
        "--gin_bindings=experiment.solved_return = None",
        f"--gin_bindings=experiment.max_learner_steps = {steps}",
    )
    statuses, _ = run.to_its_end()
    sizes = [status.metrics.get("replay/size") for status in statuses]
    after = json.loads((root_dir / "result.json").read_text())
    assert after["learner_steps"] >= steps and after["frames"] > before["frames"]
    assert next(size for size in sizes if size) > 64  # it did not begin with an empty replay
    log = (root_dir / "logs" / "learner-0.log").read_text()
    assert f"continuing from learner step {before['learner_steps']}" in log
