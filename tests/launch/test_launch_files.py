"""Locks, the run's directory, progress and summary."""

import dataclasses
import errno
import json
import multiprocessing
import os
import pathlib
import re
import subprocess
import sys
import time
import types
from unittest import mock

import pytest

from tfdrl.errors import ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.launch import curves, panel, run_directory, summary
from tfdrl.launch.status import RunStatus, Tracker, combined
from tfdrl.learning import run_files
from tfdrl.rpc.run_messages import Evaluation, RoleStatus, Status
from tfdrl.runtime.locks import lock
from tfdrl.topology import Role

_EVALUATION = Evaluation(3, 1000, 432.1, 430.0, 5.25, 100.0, 500.0, 100, 2.0)


def _status(step=100, frames=2000, evaluation=None, metrics=None, roles=()):
    return Status("x", step, frames, 1, metrics or {}, list(roles), evaluation, False, "")


def test_lock_names_its_holder_and_dies_with_it(tmp_path):
    code = (
        "import sys, time; from tfdrl.runtime.locks import lock\n"
        "held = lock(sys.argv[1], 'learner'); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ConfigurationError, match=f"another learner: process {holder.pid} on "):
        lock(tmp_path, "learner")
    lock(tmp_path, "launcher").release()  # another name is another lock
    holder.kill()
    with lock(tmp_path, "learner", wait_secs=5.0):
        assert f"process {os.getpid()} on" in (tmp_path / "learner.lock").read_text()
    holder.wait()


def test_forked_child_does_not_keep_the_lock(tmp_path):
    context = multiprocessing.get_context("fork")
    held = lock(tmp_path, "learner")
    child = context.Process(target=time.sleep, args=(30,))
    child.start()
    held.release()
    lock(tmp_path, "learner", wait_secs=2.0).release()
    child.kill()
    child.join()


def test_fresh_directories_differ(tmp_path):
    first = run_directory.fresh(["apex/cartpole.gin"], tmp_path)
    assert first.parent == tmp_path / "apex-cartpole"
    first.mkdir(parents=True)
    assert run_directory.fresh(["/gin/apex/cartpole.gin"], tmp_path) != first


def test_directory_that_cannot_be_written_is_a_configuration_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        run_directory.claim(tmp_path / "file" / "run")
    with pytest.raises(ConfigurationError, match=r"could not read checkpoints back.* of '.x00'"):
        run_directory.claim(tmp_path / "a\0b")


def test_configuration_is_kept_compared_and_replaced(tmp_path):
    run_directory.keep_configuration(tmp_path, "a.b = 1\n")
    run_directory.keep_configuration(tmp_path, "a.b = 1\n")
    with pytest.raises(ConfigurationError, match=r"a\.b: 1 -> 2"):
        run_directory.keep_configuration(tmp_path, "a.b = 2\n")
    run_directory.keep_configuration(tmp_path, "a.b = 2\n", allow_change=True)
    run_directory.keep_configuration(tmp_path, "a.b = 3\n", allow_change=True)
    kept = [(tmp_path / name).read_text() for name in ("config.gin.1", "config.gin.2")]
    assert kept == ["a.b = 1\n", "a.b = 2\n"]
    assert (tmp_path / "config.gin").read_text() == "a.b = 3\n"


def test_rates_are_measured_unless_reported():
    tracker = Tracker(now_secs=0.0)
    tracker.add(_status(step=0, frames=1000), 10.0)
    tracker.add(_status(step=50, frames=1500), 15.0)
    assert tracker.snapshot.frames_per_second == (1500 - 1000) / (15 - 10)
    assert tracker.snapshot.steps_per_second == 50 / (15 - 10)
    reported = {"learner/steps_per_second": 11.0}
    tracker.add(_status(step=60, frames=1500, metrics=reported), 16.0)
    assert tracker.snapshot.steps_per_second == 11.0


def test_progress_is_a_step_or_a_frame():
    tracker = Tracker(now_secs=0.0)
    for now_secs, step, frames in ((1, 5, 5), (2, 5, 6), (3, 6, 6), (9, 6, 6)):
        tracker.add(_status(step, frames), float(now_secs))
    assert tracker.snapshot.progress_secs == 3.0
    assert tracker.snapshot.answered_secs == 9.0


def test_best_evaluation_is_remembered():
    tracker = Tracker(now_secs=0.0)
    for mean in (1.0, 7.0, 3.0):
        tracker.add(_status(evaluation=_EVALUATION._replace(mean=mean)), 1.0)
    assert tracker.snapshot.best.mean == 7.0
    assert tracker.snapshot.status.evaluation.mean == 3.0


def test_metrics_of_roles_that_have_gone_silent_do_not_count():
    roles = [
        RoleStatus("actor", task, 1, silent_secs, {"actor/waiting_share": share})
        for task, silent_secs, share in ((0, 1.0, 0.1), (1, 1.0, 0.3), (2, 90.0, 0.9))
    ]
    snapshot = RunStatus(status=_status(roles=roles))
    assert snapshot.metric("actor/waiting_share") == pytest.approx((0.1 + 0.3) / 2)
    assert snapshot.metric("learner/loss") is None


def test_learners_are_shown_as_one():
    rate = "environment/frames_per_second"
    actors = [RoleStatus("actor", task, 1, 1.0, {}) for task in (0, 1)]
    chief = _status(50, 1000, None, {rate: 100.0, "learner/waiting_share": 0.1}, actors[:1])
    metrics = {rate: 300.0, "learner/waiting_share": 0.3, "learner/queue": 7.0}
    other = _status(49, 3000, _EVALUATION, metrics, actors[1:])
    assert combined([None, other]) is None
    assert combined([chief, None]) is combined([chief]) is chief
    both = combined([chief, other])
    assert (both.learner_step, both.frames, both.evaluation) == (50, 4000, _EVALUATION)
    assert both.roles == actors
    assert both.metrics == {rate: 400.0, "learner/waiting_share": 0.2, "learner/queue": 7.0}


def test_line_shows_what_is_known_and_nothing_else():
    metrics = {"learner/waiting_share": 0.04, "actor/waiting_share": 0.12, "replay/size": 5000}
    snapshot = RunStatus(
        status=_status(12000, 1234567, _EVALUATION, metrics),
        answered_secs=60.0,
        best=_EVALUATION._replace(mean=450.0),
        frames_per_second=12345.0,
        steps_per_second=9.5,
    )
    crews = [panel.RoleProcesses(Role("actor", "", replicas=8), 7)]
    rows = panel.facts(
        *(snapshot, crews, 1),
        elapsed_secs=3725,
        now_secs=61.0,
        experiment=_experiment(solved_return=475.0),
        load=panel.Load(1.9, 2),
    )
    assert panel.line(rows) == (
        "elapsed 1:02:05 | frames 1,234,567 (12,345/s) | learner steps 12,000 (9.5/s) | "
        "evaluation return 432.1 ± 5.2 (best 450.0, target 475.0) | replay 5,000 items | "
        "waiting learner 4 %, actors 12 % | processes actor 7/8, 1 restart"
    )


@pytest.mark.parametrize(
    "share, words", [(0.02, "actors 10 %"), (0.62, "actors 10 %, actors for parameters 62 %")]
)
def test_a_wait_for_parameters_is_shown_where_it_costs_something(share, words):
    metrics = {"actor/waiting_share": 0.1, "actor/pulling_share": share}
    snapshot = RunStatus(status=_status(roles=[RoleStatus("actor", 0, 1, 1.0, metrics)]))
    assert panel.waiting(snapshot) == words


def _experiment(**limits):
    program = types.SimpleNamespace(program=lambda: None)
    return Experiment(architecture=program, **limits)


def test_the_way_to_each_end_is_shown():
    first, best = _EVALUATION._replace(mean=20.0), _EVALUATION._replace(mean=248.0)
    snapshot = RunStatus(
        status=_status(500, 9000), answered_secs=90.0, first_answered_secs=60.0, first=first
    )
    limits = _experiment(
        solved_return=476.0, max_frames=12000, max_learner_steps=400, max_minutes=2.5
    )

    def rows(snapshot):
        found = panel.facts(snapshot, (), 0, elapsed_secs=120, now_secs=90.0, experiment=limits)
        return {row.label: row.value for row in found if row.label.startswith("to ")}

    assert rows(snapshot) == {
        "to max_frames": "███████████████░░░░░ 75 % (9,000 of 12,000)",
        "to max_learner_steps": "████████████████████ 100 % (500 of 400)",
        "to max_minutes": "████░░░░░░░░░░░░░░░░ 20 % (0.5 of 2.5)",
    }
    half = dataclasses.replace(snapshot, best=best)
    assert rows(half)["to solved_return"] == "██████████░░░░░░░░░░ 50 % (best 248.0 of 476.0)"
    worse = dataclasses.replace(snapshot, best=_EVALUATION._replace(mean=10.0))
    assert rows(worse)["to solved_return"].startswith("░░░░░░░░░░░░░░░░░░░░ 0 %")
    solved = dataclasses.replace(snapshot, first=_EVALUATION._replace(mean=480.0), best=best)
    solved = dataclasses.replace(solved, best=_EVALUATION._replace(mean=490.0))
    assert rows(solved)["to solved_return"].startswith("████████████████████ 100 %")


def test_first_evaluation_is_where_the_way_begins():
    tracker = Tracker(now_secs=0.0)
    for secs, mean in ((1.0, 2.0), (2.0, 7.0)):
        tracker.add(_status(evaluation=_EVALUATION._replace(mean=mean)), secs)
    assert tracker.snapshot.first.mean == 2.0
    assert tracker.snapshot.first_answered_secs == 1.0


def test_machine_with_more_to_do_than_cores_is_said():
    def waiting(load):
        snapshot = RunStatus(status=_status(metrics={"learner/waiting_share": 0.0}))
        rows = panel.facts(snapshot, (), 0, elapsed_secs=70, now_secs=1.0, load=load)
        return dict(rows)["waiting"]

    assert waiting(panel.Load(2.0, 2)) == "learner 0 %"
    assert waiting(panel.Load(5.3, 2)) == (
        "for cores: 5.3 runnable threads on 2 (mean of a minute); learner 0 %"
    )
    now = panel.Load.now()
    assert now.threads >= 0 and now.cores >= 1


# Each: the learner's metrics, the actors' share of time, the row.
REPLAY_RATIOS = {
    "nobody counts": ({}, None, None),
    "not set": ({"learner/replay_ratio": 6.31}, None, "6.3 (not set)"),
    "held": (
        {
            "learner/replay_ratio": 7.912,
            "learner/replay_ratio_set": 8.0,
            "learner/ratio_waiting_share": 0.02,
        },
        *(0.3, "7.91 (set 8); waiting for it: actors 30 %, learner 2 %"),
    ),
    "before learning starts": (
        {"learner/replay_ratio_set": 0.75, "learner/ratio_waiting_share": 1.0},
        *(None, "not known yet (set 0.75); waiting for it: learner 100 %"),
    ),
}


@pytest.mark.parametrize("name", REPLAY_RATIOS)
def test_the_replay_ratio_and_who_waits_for_it(name):
    metrics, share, row = REPLAY_RATIOS[name]
    told = {} if share is None else {"actor/ratio_waiting_share": share}
    roles = [RoleStatus("actor", 0, 1, 1.0, told)]
    snapshot = RunStatus(status=_status(metrics=metrics, roles=roles), answered_secs=1.0)
    rows = panel.facts(snapshot, [], 0, elapsed_secs=1, now_secs=1.0)
    assert dict(rows).get("replay ratio") == row


def test_start_and_silence_are_said():
    crews = [
        panel.RoleProcesses(Role("learner", ""), 1),
        panel.RoleProcesses(Role("actor", "", replicas=4), 4),
    ]
    before = panel.facts(RunStatus(), crews, 0, elapsed_secs=3, now_secs=3.0)
    assert panel.line(before) == (
        "elapsed 0:00:03 | starting learner, 4 actors "
        "(5 of 5 processes run; they build their networks)"
    )
    imports = panel.facts(
        RunStatus(), crews, 0, elapsed_secs=3, now_secs=3.0, doing="importing TensorFlow"
    )
    assert panel.line(imports) == (
        "elapsed 0:00:03 | starting learner, 4 actors (importing TensorFlow)"
    )
    silent = RunStatus(status=_status(), answered_secs=10.0)
    rows = panel.facts(silent, crews, 0, elapsed_secs=200, now_secs=200.0)
    assert ("WARNING", "no answer from the learner for 0:03:10") in rows


def test_learner_says_what_it_does_before_its_first_step():
    status = _status(0)._replace(doing="replay: 512 of 1,000 items")
    rows = panel.facts(RunStatus(status=status), (), 0, elapsed_secs=9, now_secs=1.0)
    assert ("learner", "replay: 512 of 1,000 items") in rows


def test_summary_comes_from_what_the_learner_wrote(tmp_path):
    result = {
        "reason": "solved: mean return 476.0",
        "learner_steps": 500,
        "frames": 90000,
        "evaluation": {"mean": 476.0, "standard_error": 2.5, "episodes": 100},
        "training_secs": 61.0,
    }
    (tmp_path / "result.json").write_text(json.dumps(result))
    (tmp_path / "logs").mkdir()
    page = _page(tmp_path)
    assert "solved: mean return 476.0 (exit code 0)" in page
    assert re.search("^exit code +0$", page, re.MULTILINE)
    assert "return 476.00 ± 2.50 (standard error) over 100 episodes; the target is 475.00" in page
    assert "90,000" in page and "0:01:01" in page and str(tmp_path / "logs") in page
    assert "tfdrl-train --root_dir=x" in page and "checkpoints" not in page


def test_how_an_earlier_start_ended_is_kept_aside(tmp_path):
    run_directory.put_end_aside(tmp_path)
    for number in range(1, 3):
        result = {"reason": f"solved {number}", "frames": 77}
        (tmp_path / "result.json").write_text(json.dumps(result))
        summary.write(tmp_path, _page(tmp_path))
        assert summary.read(tmp_path)["ended"] == f"solved {number} (exit code 0)"
        run_directory.put_end_aside(tmp_path)
        assert summary.read(tmp_path) == {} and "solved" not in _page(tmp_path)
        assert f"solved {number}" in (tmp_path / f"summary.txt.{number}").read_text()
        assert json.loads((tmp_path / f"result.json.{number}").read_text()) == result


def test_files_of_one_end_share_a_number(tmp_path):
    """Whatever a learner that starts again within a start of the run puts aside between them."""
    results = run_files.RunFiles(tmp_path)
    for number in (2, 4):
        results.write_result({"reason": "a learner that starts again"})
        results.put_result_aside()
        results.write_result({"reason": f"end {number}"})
        summary.write(tmp_path, _page(tmp_path))
        run_directory.put_end_aside(tmp_path)
        for name in ("summary.txt", "result.json"):
            assert f"end {number}" in (tmp_path / f"{name}.{number}").read_text()
            assert not (tmp_path / name).exists()
    assert not (tmp_path / "summary.txt.1").exists() and not (tmp_path / "summary.txt.3").exists()


def test_an_earlier_end_that_cannot_be_put_aside_is_said(tmp_path, monkeypatch):
    (tmp_path / "summary.txt").write_text("ended  solved\n")
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(pathlib.Path, "rename", mock.Mock(side_effect=full))
    with pytest.raises(ConfigurationError, match=r"summary\.txt cannot be written: No space left"):
        run_directory.put_end_aside(tmp_path)


def _page(directory):
    return summary.text(
        directory,
        reason="learner finished",
        exit_code=0,
        elapsed_secs=61.0,
        snapshot=RunStatus(status=_status()),
        target=475.0,
        command=["tfdrl-train", "--root_dir=x"],
    )


def test_learning_curve_is_drawn_from_the_complete_rows(tmp_path):
    assert curves.draw(tmp_path) is None
    header = "seconds,frames,learner_steps,mean,standard_error,minimum,maximum,episodes"
    rows = ["1,100,10,20.0,1.0,5,40,10", "2,200,20,30.0,1.5,5,50,10", "3,30"]
    (tmp_path / "evaluations.csv").write_text("\n".join([header, *rows]))
    assert [row["mean"] for row in curves.read(tmp_path)] == [20.0, 30.0]
    pytest.importorskip("matplotlib")
    assert curves.draw(tmp_path, 475.0).read_bytes().startswith(b"\x89PNG")


def test_rows_that_a_crash_has_made_of_other_bytes_are_left_out(tmp_path):
    (tmp_path / "evaluations.csv").write_bytes(b"mean\n20.0\n\xff\xfe\n\0\0\0\n30.0\n\0")
    assert [row["mean"] for row in curves.read(tmp_path)] == [20.0, 30.0]


def test_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "a")
    with pytest.raises(ConfigurationError, match="leads to itself by symbolic links"):
        run_directory.resolved(tmp_path / "a")


def test_without_evaluations_matplotlib_is_not_even_imported(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from tfdrl.launch import curves\n"
        f"assert curves.draw(pathlib.Path({str(tmp_path)!r})) is None\n"
        "sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_launcher_loads_without_tensorflow():
    code = (
        "import sys, binaries.train, binaries.actor\n"
        "from tfdrl.launch import local, role, curves\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
