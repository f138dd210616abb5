"""tfdrl-compare: what it trains and skips, what it writes, and one tiny comparison."""

import contextlib
import json
import pathlib
import signal
import subprocess
import sys
import time

import made_runs
import pytest

from binaries import compare
from tfdrl import configuration
from tfdrl.errors import ConfigurationError, TfdrlError
from tfdrl.studies.comparison import settings, study, training
from tfdrl.studies.comparison.settings import Budget, Setting
from tfdrl.studies.comparison.training import TrainingEnd

_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
_BASE = Setting("corrections", ("impala/corrections.gin",), ())
_STUDY = study.Study(
    settings.varied(_BASE, ["VTraceAgent.correction=none,vtrace", "impala.replay_share=0.0,0.5"]),
    seeds=(1, 2),
    budget=Budget(frames=1000, minutes=1.0),
)
_NAMES = [
    f"correction-{correction}-replay_share-{share}-{seed}"
    for seed in (1, 2)
    for correction in ("none", "vtrace")
    for share in ("0.0", "0.5")
]
_DONE = TrainingEnd(0, "reached max_frames = 1000")
_TINY = [
    "--gin_file=impala/corrections.gin",
    *("--gin_bindings=impala.environments_per_actor = 8", "--gin_bindings=impala.batch_size = 4"),
    *("--gin_bindings=impala.policy_lag_steps = 3", "--gin_bindings=gym_environment.kwargs = {}"),
    "--gin_bindings=experiment.evaluation_episodes = 4",
    # Slow enough for the evaluator, which starts with the others, to see some of it.
    "--gin_bindings=impala.actor_max_frames_per_second = 1500.0",
]


def _start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "binaries.compare", *arguments],
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
        with contextlib.suppress(OSError):
            if str(directory).encode() in (path / "cmdline").read_bytes():
                found.append(path.name)
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_tiny_comparison_trains_writes_and_is_not_repeated(tmp_path):
    root = tmp_path / "all"
    arguments = [f"--root_dir={root}", "--seeds=1", "--frames=20000", *_TINY]
    arguments.append("--vary=VTraceAgent.correction=none,vtrace")
    code, out, error = _compare(*arguments)
    assert code == 0, out + error
    assert out.startswith((root / "table.txt").read_text())
    assert out.splitlines()[0].split() == ["correction", "=", "none", "correction", "=", "vtrace"]
    page = (root / "report.html").read_text()
    assert page.count('<svg class="figure"') == 2 and "correction = vtrace" in page
    for name in ("none", "vtrace"):
        directory = root / f"correction-{name}-1"
        assert json.loads((directory / "result.json").read_text())["frames"] >= 20000
        assert f"VTraceAgent.correction = '{name}'" in (directory / "config.gin").read_text()
    assert "[1/2] correction = none, seed 1" in error

    start_secs = time.monotonic()
    code, again, error = _compare(*arguments)
    assert (code, again) == (0, out) and "2 of 2 runs are there already" in error
    assert time.monotonic() - start_secs < 20
    assert not _left_behind(tmp_path)


@pytest.mark.timeout(150)
def test_told_to_stop_it_leaves_nothing_behind(tmp_path):
    first = tmp_path / "all" / "dqn-1"
    arguments = ["--task=cartpole", "--architectures=dqn", "--seeds=1", "--minutes=5"]
    with _start(f"--root_dir={tmp_path}/all", *arguments) as process:
        try:
            deadline_secs = time.monotonic() + 60
            while not (first / "logs/learner-0.log").exists():
                assert time.monotonic() < deadline_secs and process.poll() is None
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=80)
        finally:
            process.terminate()
    assert process.returncode == 0 and "continues" in error, error
    assert not (first / "comparison.json").exists()
    assert not _left_behind(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "what is compared"),
        (["--task=cartpole", "--gin_file=apex/cartpole.gin"], "what is compared"),
        (["--task=chess"], "the tasks are cartpole, catch_memory, pong"),
        (["--task=cartpole", "--architectures=dqn,r2d2"], "r2d2 is none of those that have a gin"),
        (["--gin_file=a.gin", "--architectures=dqn"], "--architectures goes with --task"),
        (["--task=cartpole", "--vary=dqn.batch_size=1,2"], "varies one architecture"),
        ([_TINY[0], "--vary=dqn.batch_size"], "write a setting and its values"),
        ([_TINY[0], "--vary=dqn.batch_size=1,,2"], "write a setting and its values"),
        ([_TINY[0], "--vary=impala.batch_size=1"], "has nothing to compare"),
        ([_TINY[0], "--vary=impala.timeout_secs=60,60.0,6e1"], "has nothing to compare"),
        (
            [_TINY[0], "--vary=experiment.seed=1,2"],
            "a comparison sets experiment.seed itself, as --s",
        ),
        (
            ["--task=cartpole", "--gin_bindings=experiment.max_frames = 9"],
            "itself, as --frames says",
        ),
        (["--task=cartpole", "--minutes=nan"], "--minutes=nan"),
        ([_TINY[0], "--vary=impala.batch_size=8,16"], "give --frames or --minutes"),
        (["--task=cartpole", "--seeds="], "'nothing' is no seed"),
        (["--task=cartpole", "--seeds=1,b"], "'b' is no seed"),
        (["runs/a", "--frames=3"], "--frames is for training"),
        (["runs/none"], "is no run"),
        (["--task=cartpole", "--seed=1"], "did you mean --seeds"),
    ],
)
def test_wrong_arguments_are_refused(arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        compare.main(["tfdrl-compare", *arguments])


def test_a_wrong_setting_is_refused_before_anything_is_trained(tmp_path):
    wrong = settings.varied(_BASE, ["impala.batchsize=8,16"])
    with pytest.raises(ConfigurationError, match="batch_size"):
        study.run(_STUDY._replace(settings=wrong), tmp_path / "all", [].append)
    wrong = settings.varied(_BASE, ["impala.replay_share=0.5,2.0"])
    with pytest.raises(ConfigurationError, match=r"replay_share = 2\.0 must be"):
        study.run(_STUDY._replace(settings=wrong), tmp_path / "all", [].append)
    assert not (tmp_path / "all").exists()


def _pretend(monkeypatch, end):
    """Replaces the training by `end(one)`; returns the names of what was trained."""
    trained = []

    def train(one, interruptions, say):
        del interruptions, say
        trained.append(one.directory.name)
        made_runs.make(one.directory, made_runs.impala(), returns=(1.0, 3.0))
        text = configuration.check(one.gin_files, one.gin_bindings).text
        (one.directory / "config.gin").write_text(text)
        ended = end(one)
        if ended is not None:
            (one.directory / "comparison.json").write_text(json.dumps(ended._asdict()))
        return ended

    monkeypatch.setattr(training, "train", train)
    return trained


def test_complete_runs_are_skipped_and_others_are_begun_again(tmp_path, monkeypatch):
    quiet = [].append

    def third_is_stopped(one):
        return None if one.directory.name == _NAMES[2] else _DONE

    trained = _pretend(monkeypatch, third_is_stopped)
    assert not study.run(_STUDY, tmp_path, quiet)
    assert trained == _NAMES[:3]
    half = (tmp_path / "table.txt").read_text()
    assert "correction = vtrace, replay_share = 0.0, seed 1: not trained yet" in half
    assert "not trained yet" in (tmp_path / "report.html").read_text()

    trained = _pretend(monkeypatch, lambda one: _DONE)
    assert study.run(_STUDY, tmp_path, quiet)
    assert trained == _NAMES[2:]
    assert study.run(_STUDY, tmp_path, quiet) and trained == _NAMES[2:]
    assert study.run(_STUDY._replace(seeds=(1,)), tmp_path, quiet) and trained == _NAMES[2:]
    assert "not trained" not in (tmp_path / "table.txt").read_text()

    with pytest.raises(ConfigurationError, match=r"experiment\.max_frames: 1000 -> 2000"):
        study.run(_STUDY._replace(budget=Budget(2000, 1.0)), tmp_path, quiet)


def test_failure_ends_the_comparison_and_keeps_what_is_complete(tmp_path, monkeypatch):
    def second_fails(one):
        if one.directory.name == _NAMES[1]:
            raise TfdrlError(f"{one.directory.name} failed")
        return _DONE

    trained = _pretend(monkeypatch, second_fails)
    with pytest.raises(TfdrlError, match=f"{_NAMES[1]} failed"):
        study.run(_STUDY, tmp_path, [].append)
    assert trained == _NAMES[:2]
    assert "correction = none, replay_share = 0.0" in (tmp_path / "table.txt").read_text()


def test_runs_that_did_not_see_all_frames_are_named(tmp_path, monkeypatch):
    ends = iter([TrainingEnd(3, "diverged"), TrainingEnd(0, "reached max_minutes = 1"), _DONE])
    _pretend(monkeypatch, lambda one: next(ends, _DONE))
    study.run(_STUDY._replace(seeds=(1,)), tmp_path, [].append)
    table = (tmp_path / "table.txt").read_text()
    assert "replay_share = 0.0, seed 1: diverged\n" in table
    assert "replay_share = 0.5, seed 1: reached max_minutes = 1, before its frames\n" in table


def test_unreadable_ending_is_none(tmp_path):
    assert training.ending(tmp_path) is None
    (tmp_path / "comparison.json").write_text('{"exit_code": 0')
    assert training.ending(tmp_path) is None
    (tmp_path / "comparison.json").write_text('{"exit_code": 0, "reason": "x"}')
    assert training.ending(tmp_path) == TrainingEnd(0, "x")
