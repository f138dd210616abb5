"""tfdrl-compare-corrections: its arithmetic, what it skips, and one tiny comparison."""

import csv
import json
import math
import pathlib
import signal
import subprocess
import sys
import time

import gin
import pytest

from tfdrl import configuration
from tfdrl.errors import ConfigurationError, TfdrlError
from tfdrl.experiment import Experiment
from tfdrl.studies.corrections import plot, run, study
from tfdrl.studies.corrections import table as corrections_table
from tfdrl.studies.corrections.table import Cell, Result, Training, TrainingEnd

_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
_TINY = [
    *("--gin_bindings=impala.environments_per_actor = 8", "--gin_bindings=impala.batch_size = 4"),
    *("--gin_bindings=impala.policy_lag_steps = 3", "--gin_bindings=gym_environment.kwargs = {}"),
    "--gin_bindings=experiment.evaluation_episodes = 4",
    # Slow enough for the evaluator, which starts with the others, to see some of it.
    "--gin_bindings=impala.actor_max_frames_per_second = 1500.0",
]
_SETTINGS = study.StudySettings(
    gin_files=["impala/corrections.gin"],
    gin_bindings=[],
    corrections=["none", "vtrace"],
    replay_shares=[0.0, 0.5],
    seeds=2,
    frames=1000,
    policy_lag_steps=7,
    minutes=1.0,
)
_DONE = TrainingEnd(0, "reached max_frames = 1000")


def _start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "binaries.compare_corrections", *arguments],
        cwd=_REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _compare(*arguments, limit_secs=400):
    with _start(*arguments) as process:
        try:
            out, error = process.communicate(timeout=limit_secs)
        finally:
            process.terminate()
    return process.returncode, out, error


def _left_behind(directory):
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if str(directory).encode() in (path / "cmdline").read_bytes():
                found.append(path.name)
        except OSError:
            continue
    return found


def _rows(*pairs):
    return [{"frames": float(frames), "mean": float(mean)} for frames, mean in pairs]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tiny_comparison_trains_writes_and_is_not_repeated(tmp_path):
    arguments = [f"--root_dir={tmp_path}/all", "--seeds=1", "--frames=20000", *_TINY]
    arguments += ["--corrections=vtrace,none", "--replay=on"]
    code, out, error = _compare(*arguments)
    assert code == 0, out + error
    root = tmp_path / "all"
    assert out == (root / "table.txt").read_text()
    table = out.splitlines()[5:]
    assert [line.split()[0] for line in table] == ["none", "vtrace"], out
    rows = list(csv.DictReader((root / "table.csv").open()))
    assert [(row["correction"], row["replay_share"], row["seeds"]) for row in rows] == [
        ("none", "0.5", "1"),
        ("vtrace", "0.5", "1"),
    ]
    assert (root / "plot.png").read_bytes().startswith(b"\x89PNG")
    for name in ("none-on-1", "vtrace-on-1"):
        assert json.loads((root / name / "result.json").read_text())["frames"] >= 20000
        config = (root / name / "config.gin").read_text()
        assert f"VTraceAgent.correction = '{name.split('-')[0]}'" in config
    assert "[1/2] none, with replay, seed 1" in error

    start_secs = time.monotonic()
    code, again, error = _compare(*arguments)
    assert (code, again) == (0, out) and "2 of 2 runs are there already" in error
    assert time.monotonic() - start_secs < 20
    assert not _left_behind(tmp_path)


@pytest.mark.timeout(150)
def test_told_to_stop_it_leaves_nothing_behind(tmp_path):
    with _start(f"--root_dir={tmp_path}/all", *_TINY) as process:
        try:
            deadline_secs = time.monotonic() + 60
            while not (tmp_path / "all/none-off-1/logs/learner-0.log").exists():
                assert time.monotonic() < deadline_secs and process.poll() is None
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=80)
        finally:
            process.terminate()
    assert process.returncode == 0 and "continues" in error, error
    assert not (tmp_path / "all/none-off-1/comparison.json").exists()
    assert not _left_behind(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--corrections=vtrace,retrace"], "retrace is none of none, epsilon, one_step_is, vtrace"),
        (["--corrections="], "nothing is none of none, epsilon"),
        (["--replay=often"], "often is none of off, on"),
        (["--replay_share=0"], "must be above 0 and below 1"),
        (["--gin_file=apex/cartpole.gin"], "the corrections are those of IMPALA's VTraceAgent"),
        (["--gin_file=impala/cartpole.gin"], "give --frames, or bind experiment.max_frames"),
        (["--seeds=0"], "seeds"),
        (["--gin_bindings=impala.batch_size = 1", "--replay_share=0.9"], "leaves no fresh unroll"),
    ],
)
def test_wrong_arguments_are_refused_at_once(tmp_path, arguments, words):
    start_secs = time.monotonic()
    code, out, error = _compare(f"--root_dir={tmp_path}/all", *arguments, limit_secs=30)
    assert code == 2 and words in error, out + error
    assert time.monotonic() - start_secs < 20 and not (tmp_path / "all").exists()


def test_bindings_differ_in_what_is_compared_only():
    one, other = (
        configuration.check(_SETTINGS.gin_files, study.bindings(_SETTINGS, training)).text
        for training in (Training("none", 0.0, 1), Training("vtrace", 0.5, 2))
    )
    changed = {line.split(":")[0] for line in configuration.differences(one, other)}
    assert changed == {"VTraceAgent.correction", "experiment.seed", "impala.replay_share"}
    gin.clear_config()
    configuration.load(
        _SETTINGS.gin_files,
        study.bindings(_SETTINGS, Training("none", 0.5, 3)),
        tensorflow=False,
    )
    experiment = Experiment.from_gin()
    config = experiment.architecture
    assert (experiment.seed, experiment.max_frames, experiment.solved_return) == (3, 1000, None)
    assert (config.replay_share, config.policy_lag_steps) == (0.5, 7)


def _pretend(monkeypatch, end):
    """Replaces the training by `end(job)`; returns the names of what was trained."""
    trained = []

    def train(job, interruptions, say):
        del interruptions, say
        trained.append(job.directory.name)
        job.directory.mkdir(parents=True)
        text = configuration.check(job.gin_files, job.gin_bindings).text
        (job.directory / "config.gin").write_text(text)
        (job.directory / "evaluations.csv").write_text("frames,mean\n500,1\n1000,3\n")
        ended = end(job)
        if ended is not None:
            (job.directory / "comparison.json").write_text(json.dumps(ended._asdict()))
        return ended

    monkeypatch.setattr(run, "train", train)
    return trained


def test_complete_runs_are_skipped_and_others_are_begun_again(tmp_path, monkeypatch):
    quiet = [].append

    def third_is_stopped(job):
        return None if job.directory.name == "none-on-1" else _DONE

    trained = _pretend(monkeypatch, third_is_stopped)
    assert not study.run(_SETTINGS, tmp_path, quiet)
    assert trained == ["none-off-1", "vtrace-off-1", "none-on-1"]
    half = (tmp_path / "table.txt").read_text()
    assert "-  " in half and "3.00 ± ?" in half

    trained = _pretend(monkeypatch, lambda job: _DONE)
    assert study.run(_SETTINGS, tmp_path, quiet)
    missing = ["none-on-1", "vtrace-on-1", "none-off-2", "vtrace-off-2", "none-on-2", "vtrace-on-2"]
    assert trained == missing
    assert study.run(_SETTINGS, tmp_path, quiet) and trained == missing
    fewer = _SETTINGS._replace(seeds=1, minutes=2.0)
    assert study.run(fewer, tmp_path, quiet) and trained == missing

    with pytest.raises(ConfigurationError, match=r"experiment\.max_frames: 1000 -> 2000"):
        study.run(_SETTINGS._replace(frames=2000), tmp_path, quiet)


def test_failure_ends_the_comparison_and_keeps_what_is_complete(tmp_path, monkeypatch):
    def second_fails(job):
        if job.directory.name == "vtrace-off-1":
            raise TfdrlError("vtrace-off-1 failed")
        return _DONE

    trained = _pretend(monkeypatch, second_fails)
    with pytest.raises(TfdrlError, match="vtrace-off-1 failed"):
        study.run(_SETTINGS, tmp_path, [].append)
    assert trained == ["none-off-1", "vtrace-off-1"]
    assert "3.00 ± ?" in (tmp_path / "table.txt").read_text()


def test_final_return_is_of_the_last_quarter_of_the_frames():
    rows = _rows((0, -9), (100, -9), (299, -9), (300, 1), (310, 2), (400, 6))
    assert corrections_table.final_return(rows) == pytest.approx((1 + 2 + 6) / 3)
    assert corrections_table.final_return(_rows((100, 5))) == 5
    assert math.isnan(corrections_table.final_return([]))


def test_standard_error_is_that_of_the_mean_over_seeds():
    results = [
        Result(Training("none", 0.5, seed), _rows((100, value)), _DONE)
        for seed, value in enumerate([1.0, 2.0, 6.0])
    ]
    results.append(Result(Training("none", 0.0, 0), [], _DONE))
    deviation = math.sqrt(((1 - 3) ** 2 + (2 - 3) ** 2 + (6 - 3) ** 2) / 2)
    (cell,) = corrections_table.cells(results).values()
    assert cell == Cell("none", 0.5, (1.0, 2.0, 6.0), 3.0, pytest.approx(deviation / math.sqrt(3)))
    assert "none, without replay, seed 0: no evaluation" in corrections_table.notes(results)


def test_table_has_corrections_in_rows_and_replay_in_columns():
    cells = {
        ("none", 0.0): Cell("none", 0.0, (1.0, 2.0), 1.5, 0.3),
        ("none", 0.5): Cell("none", 0.5, (0.5, 1.5), 1.0, 0.4),
        ("vtrace", 0.5): Cell("vtrace", 0.5, (12.0,), 12.0, math.nan),
    }
    page = corrections_table.text(cells, ["none", "vtrace"], [0.0, 0.5], "the task")
    title, task, empty, head, rule, *rows = page.splitlines()
    assert "2 seeds" in title and (task, empty, set(rule)) == ("the task", "", {"-"})
    assert head.split() == [
        "correction",
        "without",
        "replay",
        "with",
        "replay",
        "gain",
        "by",
        "replay",
    ]
    assert [" ".join(row.split()) for row in rows] == [
        "none 1.50 ± 0.30 1.00 ± 0.40 -0.50 ± 0.50",
        "vtrace - 12.00 ± ? -",
    ]


def test_runs_that_did_not_see_all_frames_are_named():
    training = Training("none", 0.0, 2)
    page = corrections_table.notes(
        [
            Result(training, _rows((1, 1)), TrainingEnd(3, "diverged")),
            Result(training, _rows((1, 1)), _DONE),
            Result(training, _rows((1, 1)), TrainingEnd(0, "reached max_minutes = 1")),
        ]
    )
    assert page == (
        "none, without replay, seed 2: diverged\n"
        "none, without replay, seed 2: reached max_minutes = 1\n"
    )


def test_learning_curves_are_averaged_over_the_frames_that_all_seeds_have():
    frames, mean, error = plot.average([_rows((0, 0), (100, 10)), _rows((50, 9), (150, 19))])
    assert (frames[0], frames[-1]) == (50, 100)
    assert (mean[0], mean[-1]) == pytest.approx(((5 + 9) / 2, (10 + 14) / 2))
    assert error == pytest.approx(2.0)  # values 4 apart: s = 4 / sqrt(2), over sqrt(2)


def test_unreadable_ending_is_none(tmp_path):
    assert run.ending(tmp_path) is None
    (tmp_path / "comparison.json").write_text('{"exit_code": 0')
    assert run.ending(tmp_path) is None
    (tmp_path / "comparison.json").write_text('{"exit_code": 0, "reason": "x"}')
    assert run.ending(tmp_path) == TrainingEnd(0, "x")
