"""Ape-X with every role as a real process: it learns, though an actor is killed."""

import contextlib
import json
import os
import signal

import pytest
import tensorflow as tf
from local_runs import Run, finish
from paths import DATA

_GIN = DATA / "apex_catch.gin"


@pytest.fixture(scope="module")
def root_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("apex") / "run"


def test_solves_catch_although_an_actor_is_killed(root_dir):
    run = Run(_GIN, root_dir)
    try:
        killed, returned, statuses, transitions = None, False, [], {}
        for status in run.statuses():
            statuses.append(status)
            for role in status.roles:
                if role.role == "actor" and "actor/transitions" in role.metrics:
                    transitions[role.task, role.run_id] = role.metrics["actor/transitions"]
            if killed is None and status.learner_step > 20 and len(transitions) == 2:
                killed = status
                (pid,) = run.processes("--role=actor", "--task=0")
                os.kill(pid, signal.SIGKILL)
                # Or the run could be over before the actor is back.
                (evaluator,) = run.processes("--role=evaluator")
                os.kill(evaluator, signal.SIGSTOP)
            if not returned and len(transitions) == 3:
                os.kill(evaluator, signal.SIGCONT)
                returned = True
        output = run.output
        assert run.popen.returncode == 0, output
        assert not run.processes()
    finally:
        run.kill()
    assert "actor 0 died (killed by SIGKILL); starting it again" in output
    assert "solved: mean return" in output
    result = json.loads((root_dir / "result.json").read_text())
    assert result["evaluation"]["mean"] >= 0.95
    assert result["learner_steps"] > killed.learner_step + 100

    tasks = sorted(task for task, _ in transitions)
    assert tasks == [0, 0, 1], "the killed actor came back as a new run"
    # Within what either may be ahead; an actor's last second, which was killed, is not counted.
    metrics = statuses[-1].metrics
    assert metrics["learner/replay_ratio"] == pytest.approx(8.0, rel=0.15)
    assert metrics["learner/replay_ratio_set"] == 8.0
    frames = [status.frames for status in statuses]
    assert frames == sorted(frames)
    # Nine of ten frames of Catch begin a transition; the newest are not written yet.
    assert 0.7 * result["frames"] < sum(transitions.values()) <= result["frames"]


def _ledger(root_dir):
    newest = max(
        (root_dir / "checkpoints").glob("checkpoint-*.index"), key=lambda p: int(p.stem[11:])
    )
    reader = tf.train.load_checkpoint(str(newest.with_suffix("")))
    (name,) = (n for n in reader.get_variable_to_shape_map() if n.startswith("counters"))
    return json.loads(reader.get_tensor(name))


def test_frames_are_the_sum_over_the_actors_runs(root_dir):
    runs = [run for run in _ledger(root_dir)["service"]["runs"] if run[0] == "actor"]
    result = json.loads((root_dir / "result.json").read_text())
    assert len(runs) == 3
    assert result["frames"] == sum(frames for _, _, _, frames, *_ in runs)


def test_leaves_summary_checkpoint_policy_and_events(root_dir):
    assert "solved: mean return" in (root_dir / "summary.txt").read_text()
    assert (root_dir / "config.gin").exists()
    assert (root_dir / "checkpoints" / "operative_config.gin").exists()
    assert len(list((root_dir / "replay").glob("*/*/DONE"))) >= 1
    assert len((root_dir / "evaluations.csv").read_text().splitlines()) >= 2
    assert (root_dir / "learning_curve.png").exists()
    assert tf.saved_model.contains_saved_model(root_dir / "policy")
    for role in ("learner-0", "replay-0", "actor-0", "actor-1", "evaluator-0"):
        assert list((root_dir / "tensorboard" / role).glob("events.*")), role


@pytest.mark.slow
def test_continues_and_ends_with_the_name_of_an_essential_role_that_dies(root_dir):
    finish(_GIN, root_dir)
    steps = json.loads((root_dir / "result.json").read_text())["learner_steps"]
    bindings = "--gin_bindings=experiment.solved_return = 2.0"
    run = Run(_GIN, root_dir, "--allow_config_change", bindings)
    try:
        for status in run.statuses():
            if status.learner_step > steps:
                (pid,) = run.processes("--role=replay")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                break
        run.popen.wait(timeout=60)
        output = run.output
        assert run.popen.returncode == 1, output
        assert "replay died (killed by SIGKILL)" in output
        assert not run.processes()
    finally:
        run.kill()
