"""Ape-X with every role as a real process: it learns, though an actor is killed."""

import contextlib
import json
import os
import signal

import pytest
import tensorflow as tf
from local_runs import Run, check_files, check_solved, finish, have_reported, train
from paths import DATA

_GIN = DATA / "apex_catch.gin"


@pytest.fixture(scope="module")
def root_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("apex") / "run"


def test_solves_catch_although_an_actor_is_killed(root_dir):
    ended = train(
        *(_GIN, root_dir),
        kills=[("actor", 0)],
        ready=have_reported("actor", 2, "actor/transitions"),
        steps_after=100,
    )
    check_solved(ended)
    transitions = ended.newest("actor", "actor/transitions")
    tasks = sorted(task for task, _ in transitions)
    assert tasks == [0, 0, 1], "the killed actor came back as a new run"
    # Within what either may be ahead; an actor's last second, which was killed, is not counted.
    assert ended.metrics["learner/replay_ratio"] == pytest.approx(8.0, rel=0.15)
    assert ended.metrics["learner/replay_ratio_set"] == 8.0
    # Nine of ten frames of Catch begin a transition; the newest are not written yet.
    frames = ended.result["frames"]
    assert 0.7 * frames < sum(transitions.values()) <= frames


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
    check_files(root_dir, "learner-0", "replay-0", "actor-0", "actor-1", "evaluator-0")
    assert len(list((root_dir / "replay").glob("*/*/DONE"))) >= 1


@pytest.mark.slow
def test_continues_and_ends_with_the_name_of_an_essential_role_that_dies(root_dir):
    steps = finish(_GIN, root_dir)["learner_steps"]
    bindings = "--gin_bindings=experiment.solved_return = 2.0"
    run = Run(_GIN, root_dir, "--allow_config_change", bindings)
    try:
        for status in run.statuses():
            if status.learner_step > steps:
                (pid,) = run.processes("--role=replay")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                break
        assert run.wait(60) == 1, run.output
        assert "replay died (killed by SIGKILL)" in run.output
        assert not run.processes()
    finally:
        run.kill()
