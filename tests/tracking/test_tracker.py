"""A run's events reach a tracker once each, whatever is cut off, killed or not finished yet."""

import contextlib
import csv
import functools
import json
import math
import shutil
import subprocess
import sys
import threading
import time

import made_runs
import pytest
from paths import CHECKOUT
from tensorboard.compat.proto import event_pb2

from binaries import track
from tfdrl.errors import ConfigurationError, TfdrlError, UnavailableError
from tfdrl.reports import events
from tfdrl.runtime import locks
from tfdrl.runtime.metrics import MetricsWriter
from tfdrl.tracking import state as states
from tfdrl.tracking import tracker
from tfdrl.tracking.csv_files import CsvFiles
from tfdrl.tracking.points import EventFiles, Point
from tfdrl.tracking.tracker import Tracker


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that has ended: 11 points of the learner, 11 of an actor."""
    monkeypatch.setattr(tracker, "_LOOK_SECS", 0.2)
    monkeypatch.setattr(tracker, "_RETRY_SECS", 0.2)
    scalars = {"actor-0": {"actor/waiting_share": 0.3}}
    return made_runs.make(tmp_path / "a", made_runs.impala(), scalars=scalars)


def _track(run, *flags):
    return track.main(["tfdrl track", "--to=csv", str(run), *flags])


def _rows(run, name="points.csv"):
    with (run / "tracking" / "csv" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def _events_of(run, process):
    return run / "tensorboard" / process / "events.out.tfevents.1"


def _write_record(path, data):
    with path.open("ab") as file:
        made_runs.RecordWriter(file).write(data)


def test_an_ended_run_is_sent_as_its_report_reads_it(run, capsys):
    assert _track(run) == 0
    assert "22 points sent" in capsys.readouterr().out
    rows = [row for row in _rows(run) if row["process"] == "learner-0"]
    frames = events.read(run / "tensorboard" / "learner-0")["environment/frames"]
    assert {row["tag"] for row in rows} == {"environment/frames"}
    assert [int(row["step"]) for row in rows] == frames.steps.tolist()
    assert [float(row["secs"]) for row in rows] == frames.secs.tolist()
    assert [float(row["value"]) for row in rows] == frames.values.tolist()
    settings = {row["name"]: row["value"] for row in _rows(run, "settings.csv")}
    assert settings["gym_environment.id"] == "'CartPole-v1'" and settings["experiment.seed"] == "1"
    result = {row["name"]: row["value"] for row in _rows(run, "result.csv")}
    assert result["reason"] == "solved" and result["frames"] == "30000"


def test_what_tensorflow_writes_is_read(run):
    shutil.rmtree(run / "tensorboard")
    writer = MetricsWriter(run, "learner", 0)
    writer.settings("adam.learning_rate = 1e-3\n")  # text and hparams: no points
    writer.write(7, {"loss": 2.5, "norm": math.nan})
    writer.write(8, {"loss": -math.inf})
    writer.close()
    assert _track(run) == 0
    own = [row for row in _rows(run) if row["tag"] in ("loss", "norm")]
    found = [(row["tag"], row["step"], row["value"]) for row in own]
    assert found == [("loss", "7", "2.5"), ("norm", "7", "nan"), ("loss", "8", "-inf")]


def test_the_same_command_sends_what_came_since(run, capsys):
    _track(run)
    rows = [(made_runs.BEGIN_SECS + 40, 400, "environment/frames", 31_000.0)]
    made_runs.write_events(run / "tensorboard" / "learner-0", rows)
    made_runs.write_events(run / "tensorboard" / "learner-1", rows)
    _track(run)
    assert "\n2 points sent" in capsys.readouterr().out
    assert len(_rows(run)) == 24 and _rows(run)[-1]["value"] == "31000.0"
    _track(run)
    assert capsys.readouterr().out.startswith("0 points") and len(_rows(run)) == 24


def test_only_the_roles_that_are_asked_for(run):
    _track(run, "--roles=actor,evaluator")
    assert {row["process"] for row in _rows(run)} == {"actor-0"}


@pytest.mark.parametrize("cut", [1, 4, 5, 11, 12, 20, 40])
def test_a_record_that_is_being_written_is_waited_for(run, cut):
    whole = _events_of(run, "actor-0").read_bytes()
    _events_of(run, "actor-0").write_bytes(whole[:-cut])
    files = EventFiles(run / "tensorboard", ["actor"])
    points, reached = files.take({})
    assert len(points) == 10 and files.take(reached) == ([], reached)
    _events_of(run, "actor-0").write_bytes(whole[:-cut] + bytes(cut))  # its room, not its bytes
    assert files.take(reached) == ([], reached)
    _events_of(run, "actor-0").write_bytes(whole)
    more, after = files.take(reached)
    assert [point.step for point in more] == [301]
    assert after == {"actor-0/events.out.tfevents.1": len(whole)}


def test_a_record_that_nobody_finished_is_told(run, capsys):
    path = _events_of(run, "actor-0")
    path.write_bytes(path.read_bytes()[:-3])
    _track(run)
    said = "actor-0/events.out.tfevents.1 ends in the middle of a record: "
    assert said in capsys.readouterr().out and len(_rows(run)) == 21


def test_files_longer_than_one_look_are_read_in_several(run, monkeypatch):
    monkeypatch.setattr("tfdrl.tracking.points._LOOK_BYTES", 100)
    event = event_pb2.Event(wall_time=1.0, step=1)
    event.summary.value.add(tag="long").tensor.string_val.append(bytes(500))
    event.summary.value.add(tag="short").simple_value = 3.0
    _write_record(_events_of(run, "actor-0"), event.SerializeToString())
    _track(run)
    assert len(_rows(run)) == 23 and "short" in {row["tag"] for row in _rows(run)}


class _Server(CsvFiles):
    """Tables that break off after so many points, as a connection does."""

    def __init__(self, directory, failures=()):
        super().__init__(directory)
        self.failures = list(failures)

    def add(self, points):
        if self.failures:
            super().add(points[: self.failures.pop(0)])
            raise UnavailableError("connection refused")
        super().add(points)


def _points(run):
    rows = [tuple(row.values()) for row in _rows(run)]
    assert len(rows) == len(set(rows))
    return len(rows)


def test_a_server_that_comes_back_gets_the_rest_once(run):
    server = _Server(run / "tracking" / "csv", [5, 0, 3])
    said = []
    assert Tracker(run, server, say=said.append).follow() == 22 == _points(run)
    assert not server.failures
    assert len(said) == 1 and "does not answer (connection refused); trying for 60 s" in said[0]


def test_a_server_that_stays_away_is_told_and_the_same_command_goes_on(run, capsys):
    server = _Server(run / "tracking" / "csv", [7, *[0] * 9])
    with pytest.raises(UnavailableError, match=r"csv did not answer for \d s \(connection refused"):
        Tracker(run, server, timeout_secs=1.5).follow()
    assert _points(run) == 7
    event = event_pb2.Event(wall_time=1.0, step=1)  # what the first knew nothing of
    event.summary.value.add(tag="later").simple_value = 3.0
    _write_record(_events_of(run, "learner-0"), event.SerializeToString())
    points = run / "tracking" / "csv" / "points.csv"
    points.write_bytes(points.read_bytes() + b"actor-0,actor/wait")  # cut by a kill
    _track(run)
    assert _points(run) == 23


def test_a_run_is_followed_until_its_launcher_leaves(run, capsys):
    whole = _events_of(run, "learner-0").read_bytes()
    half = len(whole) // 2  # in a record
    _events_of(run, "learner-0").write_bytes(whole[:half])
    launcher = locks.lock(run, "launcher")
    sent = []

    def follow():
        sent.append(Tracker(run, CsvFiles(run / "tracking" / "csv")).follow())

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        _wait_for(lambda: (run / "tracking/csv/points.csv").exists() and _rows(run))
        with _events_of(run, "learner-0").open("ab") as file:
            file.write(whole[half:])
        assert thread.is_alive()
    finally:
        launcher.release()
        thread.join(20)
    assert sent == [22] and _points(run) == 22
    assert "following" in capsys.readouterr().out


def _wait_for(condition, limit_secs=20.0):
    until_secs = time.monotonic() + limit_secs
    while not condition():
        assert time.monotonic() < until_secs
        time.sleep(0.05)


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_stop_is_heeded_after_the_batch_under_way_and_says_no_end(run, monkeypatch, goes_on):
    monkeypatch.setattr("tfdrl.tracking.points._LOOK_BYTES", 100)
    states_asked = iter([False, False, True])
    files, said = CsvFiles(run / "tracking" / "csv"), []
    with locks.lock(run, "launcher") if goes_on else contextlib.nullcontext():
        stopped = functools.partial(next, states_asked, True)
        sent = Tracker(run, files, stopped=stopped, say=said.append).follow()
    assert 0 < sent < 22 and _points(run) == sent
    assert said[-1] == "stopped; the same command goes on from here"
    assert not (run / "tracking" / "csv" / "result.csv").exists()
    _track(run)
    assert _points(run) == 22 and (run / "tracking" / "csv" / "result.csv").exists()


def test_a_stop_ends_the_wait_for_new_points(run):
    def has_all():
        return (run / "tracking/csv/points.csv").exists() and len(_rows(run)) == 22

    with locks.lock(run, "launcher"):
        files = CsvFiles(run / "tracking" / "csv")
        assert Tracker(run, files, stopped=has_all).follow() == 22
    assert not (run / "tracking" / "csv" / "result.csv").exists()


@pytest.mark.parametrize("name", ["points.csv", "settings.csv", "result.csv"])
def test_a_disk_that_is_full_is_said(run, name):
    (run / "c").mkdir()
    (run / "c" / name).symlink_to("/dev/full")
    with pytest.raises(TfdrlError, match=f"{name} cannot be written: No space left on device"):
        Tracker(run, CsvFiles(run / "c")).follow()


def test_tables_whose_directory_cannot_be_made_are_refused(run):
    (run / "c").write_text("")
    with pytest.raises(ConfigurationError, match="c cannot be written: File exists"):
        Tracker(run, CsvFiles(run / "c")).follow()


def test_rows_with_line_ends_in_their_tags_are_read_back(tmp_path):
    files = CsvFiles(tmp_path)
    points = [Point("learner-0", f"a{end}b", 1, 1.5, 2.0) for end in "\n\r\u2028"]
    files.add(points)
    assert files.missing([*points, points[0]._replace(step=2)]) == [points[0]._replace(step=2)]
    (tmp_path / "points.csv").write_bytes((tmp_path / "points.csv").read_bytes()[:-1])
    assert files.missing(points) == points[2:]
    (tmp_path / "points.csv").write_bytes(b"pro")
    assert files.missing(points[:2]) == points[:2]
    files.add(points[:2])
    files.add(points[2:])
    assert files.missing(points) == []


def test_how_a_run_ended_is_read(run):
    assert tracker.end_of(run)[:2] == ("", False)
    (run / "summary.txt").write_text("ended               a role died (exit code 1)\nlogs  x\n")
    (run / "report.html").write_text("<html>")
    found = tracker.end_of(run)
    assert found[:2] == ("a role died (exit code 1)", True) and found.report.name == "report.html"
    (run / "summary.txt").write_text("ended               solved (exit code 0)\n")
    assert not tracker.end_of(run).failed
    stopped = "learner 1 stopped, though the run goes on (exit code 0)"
    (run / "summary.txt").write_text(f"ended               {stopped}\nexit code           1\n")
    assert tracker.end_of(run)[:2] == (stopped, True)
    (run / "summary.txt").write_text("ended               solved\nexit code           0\n")
    assert not tracker.end_of(run).failed
    (run / "result.json").write_text(json.dumps({"evaluation": {"mean": 2.5}, "none": None}))
    assert tracker.end_of(run).result == {"evaluation/mean": 2.5}


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda run: shutil.rmtree(run / "tensorboard"), "goes on with it; --wait waits"),
        (lambda run: shutil.rmtree(run / "tensorboard/actor-0"), "has no events of actor, and"),
        (lambda run: (run / "config.gin").unlink(), "is no run: it has no config.gin; give the"),
        (lambda run: (run / "tracking").write_text(""), "tracking cannot be made"),
        (lambda run: _write_record(_events_of(run, "actor-0"), b"hello"), "something else than"),
    ],
)
def test_what_cannot_be_sent_is_said(run, break_it, words):
    break_it(run)
    with pytest.raises(TfdrlError, match=words):
        _track(run, "--roles=actor")
    assert not (run / "tracking" / "csv" / "result.csv").exists()


def test_two_at_once_are_refused_and_two_trackers_are_not(run):
    place = str(run / "tracking" / "csv")
    path = states.path_of(run, "csv", place)
    path.parent.mkdir()
    with locks.lock(path.parent, path.stem):
        with pytest.raises(ConfigurationError, match="is in use by another csv-"):
            _track(run)
        assert _track(run, f"--output={run / 'elsewhere'}") == 0


def test_tables_that_are_gone_are_not_begun_in_the_middle(run):
    _track(run)
    shutil.rmtree(run / "tracking" / "csv")
    with pytest.raises(ConfigurationError, match=r"points\.csv is gone, where 22 points"):
        _track(run)


def test_a_state_that_cannot_be_read_is_said(run):
    _track(run)
    path = states.path_of(run, "csv", str(run / "tracking" / "csv"))
    path.write_text('{"place": "x", "unknown": 1}')
    with pytest.raises(ConfigurationError, match="which says how far the run was sent, cannot be"):
        _track(run)


def test_a_package_that_is_missing_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigurationError, match="has no package mlflow, which --to=mlflow needs"):
        track.main(["tfdrl track", "--to=mlflow", "--uri=http://localhost:1", str(run)])
    with pytest.raises(ConfigurationError, match="which server"):
        track.main(["tfdrl track", "--to=mlflow", str(run)])
    with pytest.raises(ConfigurationError, match="which run"):
        track.main(["tfdrl track"])


def test_the_command_loads_no_tensorflow(run):
    script = (
        "import sys; from binaries import track; "
        f"track.main(['tfdrl track', '--to=csv', {str(run)!r}]); "
        "heavy = {'tensorflow', 'reverb', 'tf_agents', 'keras', 'grpc', 'matplotlib', 'gymnasium'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert len(_rows(run)) == 22
