"""`tfdrl track` into a real MLflow server and into W&B's offline files.

It runs in the environment of docs/tracking.md, with mlflow and wandb; TRACK_VENV says where.
"""

import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter

import made_runs
import pytest
from paths import CHECKOUT

from tfdrl.launch.local import addresses
from tfdrl.runtime import locks
from tfdrl.tracking.points import EventFiles

_VENV = os.environ.get("TRACK_VENV", "")
_BIN = pathlib.Path(_VENV) / "bin"
_LIMIT_SECS = 90.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _VENV, reason="no TRACK_VENV: docs/tracking.md makes one"),
]


@pytest.fixture(scope="module", autouse=True)
def _packages():
    """An environment that is named has both packages, and MLflow with its server."""
    command = [_BIN / "python", "-c", "import mlflow.server, wandb"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_SECS)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def run(tmp_path):
    """A run that has ended, of 6 * 11 points."""
    metrics = {"loss": 0.5, "norm (global)": 2.0, "rate": 3.0}
    scalars = {"learner-0": metrics, "actor-0": {"actor/waiting_share": 0.3}}
    made = made_runs.make(tmp_path / "a", made_runs.impala(), scalars=scalars)
    odd = [(made_runs.BEGIN_SECS + i, i, "odd", x) for i, x in enumerate((float("nan"), -2.5))]
    made_runs.write_events(made / "tensorboard" / "evaluator-0", odd)
    (made / "report.html").write_text("<html>")
    (made / "summary.txt").write_text("ended               solved (exit code 0)\n")
    return made


def _points(run):
    """Its points as MLflow names them: (name, step, milliseconds)."""
    found, at = [], {}
    files = EventFiles(run / "tensorboard")
    while (look := files.take(at))[1] != at:
        found, at = found + look[0], look[1]
    names = {point.name: point.name.replace("(", "_").replace(")", "_") for point in found}
    return Counter((names[p.name], p.step, int(p.secs * 1000)) for p in found)


def _start(run, *flags):
    return subprocess.Popen(
        [_BIN / "python", "-m", "binaries.track", *flags, str(run)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _track(run, *flags):
    process = _start(run, *flags)
    output, _ = process.communicate(timeout=_LIMIT_SECS)
    return process.returncode, output


class _Mlflow:
    """An MLflow server, and what it tells over REST."""

    def __init__(self, directory):
        self.directory, self.port = directory, next(addresses.free_ports())
        self.uri, self._process = f"http://127.0.0.1:{self.port}", None

    def start(self):
        command = [_BIN / "mlflow", "server", f"--port={self.port}", "--workers=1"]
        command += [f"--backend-store-uri=sqlite:///{self.directory}/mlflow.db"]
        command += [f"--artifacts-destination={self.directory}/artifacts"]
        log = (self.directory / "mlflow.log").open("a")
        self._process = subprocess.Popen(
            command, cwd=self.directory, stdout=log, stderr=log, start_new_session=True
        )
        _wait_for(self._answers, "the MLflow server")

    def stop(self):
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)  # its workers, too
            self._process.wait()

    def _answers(self):
        assert self._process.poll() is None, (self.directory / "mlflow.log").read_text()
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return True
        except OSError:
            return False

    def get(self, path, **query):
        url = f"{self.uri}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as reply:
            return json.load(reply)

    def the_run(self):
        experiment = self.get("experiments/get-by-name", experiment_name="tfdrl")["experiment"]
        body = json.dumps({"experiment_ids": [experiment["experiment_id"]]}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.uri}/api/2.0/mlflow/runs/search", body, headers)
        with urllib.request.urlopen(request, timeout=10) as reply:
            (found,) = json.load(reply)["runs"]
        return found

    def points(self):
        """Everything in every metric's history but the result's."""
        run, found = self.the_run(), Counter()
        for metric in run["data"].get("metrics", ()):
            key = metric["key"]
            query = {"run_id": run["info"]["run_id"], "metric_key": key}
            for m in self.get("metrics/get-history", **query)["metrics"]:
                found[key, int(m.get("step", 0)), int(m["timestamp"])] += 1
        return Counter({p: n for p, n in found.items() if not p[0].startswith("result/")})


def _wait_for(condition, what):
    until_secs = time.monotonic() + _LIMIT_SECS
    while not condition():
        assert time.monotonic() < until_secs, what
        time.sleep(0.2)


@pytest.fixture
def mlflow(tmp_path):
    (tmp_path / "server").mkdir()
    server = _Mlflow(tmp_path / "server")
    yield server
    server.stop()


def test_mlflow_has_every_point_once_the_settings_the_result_and_the_files(run, mlflow):
    mlflow.start()
    code, output = _track(run, "--to=mlflow", f"--uri={mlflow.uri}")
    assert (code, "57 points sent to MLflow's experiment 'tfdrl'" in output) == (0, True), output
    assert mlflow.points() == _points(run) and mlflow.points().total() == 57
    found = mlflow.the_run()
    settings = {entry["key"]: entry["value"] for entry in found["data"]["params"]}
    assert settings["gym_environment.id"] == "'CartPole-v1'"
    metrics = {entry["key"]: entry["value"] for entry in found["data"]["metrics"]}
    assert metrics["learner-0/loss"] == 0.5 and metrics["result/frames"] == 30_000
    tags = {entry["key"]: entry["value"] for entry in found["data"]["tags"]}
    assert tags["result/ended"] == "solved (exit code 0)" and tags["mlflow.runName"] == "a"
    assert found["info"]["status"] == "FINISHED"
    artifacts = mlflow.get("artifacts/list", run_id=found["info"]["run_id"])["files"]
    assert {file["path"] for file in artifacts} == {"config.gin", "report.html"}

    (run / "config.gin").write_text("experiment.seed = 2\n")
    more = [(made_runs.BEGIN_SECS + 99, 999, "loss", 0.25)]
    made_runs.write_events(run / "tensorboard" / "learner-0", more)
    code, output = _track(run, "--to=mlflow", f"--uri={mlflow.uri}")
    assert (code, "1 points sent" in output) == (0, True), output
    assert mlflow.points() == _points(run) and mlflow.points().total() == 58
    tags = {entry["key"]: entry["value"] for entry in mlflow.the_run()["data"]["tags"]}
    assert tags["changed/experiment.seed"] == "2"

    (run / "config.gin").write_text("experiment.seed = 1\n")
    code, output = _track(run, "--to=mlflow", f"--uri={mlflow.uri}")
    assert code == 0, output
    tags = {entry["key"] for entry in mlflow.the_run()["data"]["tags"]}
    assert "changed/experiment.seed" not in tags


_OPEN_TWICE = """
import pathlib, sys
from mlflow.exceptions import MlflowException
from tfdrl.errors import UnavailableError
from tfdrl.tracking.destinations import RunToTrack
from tfdrl.tracking.mlflow_server import MlflowServer

class Late(MlflowServer):
    seen = 0
    def _experiment_id(self):
        self.seen += 1  # the first look was before another process made it
        return None if self.seen == 1 else super()._experiment_id()

run = RunToTrack("a", {}, pathlib.Path(sys.argv[2]))
MlflowServer(sys.argv[1], "tfdrl", 30).open("", run, 0)
server = Late(sys.argv[1], "tfdrl", 30)
client, get_run = server._client, server._client.get_run
def away(run_id):
    client.get_run = get_run
    raise MlflowException("away")
client.get_run = away
try:
    server.open("", run, 0)
    raise SystemExit("no error")
except UnavailableError:
    server.open("", run, 0)
print(len(client.search_runs(["1"])))
"""


def test_two_that_start_together_make_one_experiment_and_a_retry_no_second_run(run, mlflow):
    mlflow.start()
    command = [_BIN / "python", "-c", _OPEN_TWICE, mlflow.uri, str(run / "config.gin")]
    done = subprocess.run(
        command, cwd=CHECKOUT, capture_output=True, text=True, timeout=_LIMIT_SECS
    )
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["2"]), done.stderr


def test_killed_senders_and_a_server_that_comes_back_cost_no_point_and_double_none(run, mlflow):
    mlflow.start()
    flags = ["--to=mlflow", f"--uri={mlflow.uri}"]
    with locks.lock(run, "launcher"):
        for look in range(4):
            sender = _start(run, *flags)
            seen = mlflow.points().total() if look else 0
            row = (made_runs.BEGIN_SECS + 50 + look, 500 + look, "rate", 1.0)
            made_runs.write_events(run / "tensorboard" / "learner-0", [row])
            _wait_for(lambda seen=seen: _total(mlflow) > seen, "points")
            sender.kill()
            sender.communicate()
        sender = _start(run, *flags)
        mlflow.stop()
        many = [(made_runs.BEGIN_SECS + 60 + i, 600 + i, "rate", 2.0) for i in range(2500)]
        made_runs.write_events(run / "tensorboard" / "learner-0", many)
        time.sleep(5)
        mlflow.start()
        _wait_for(lambda: _total(mlflow) == _points(run).total(), "all points")
    output, _ = sender.communicate(timeout=_LIMIT_SECS)
    assert sender.returncode == 0, output
    assert mlflow.points() == _points(run)


def _total(mlflow):
    try:
        return mlflow.points().total()
    except urllib.error.HTTPError:  # no experiment yet
        return 0


def test_a_server_that_is_not_there_is_said_in_time(run, mlflow):
    begun = time.monotonic()
    code, output = _track(run, "--to=mlflow", f"--uri={mlflow.uri}", "--timeout_secs=3")
    assert code == 1 and time.monotonic() - begun < 30, output
    assert f"at {mlflow.uri} did not answer for" in output and "is it started" in output
    assert "(MLflow says: [Errno 111] Connection refused)" in output


# W&B keeps records in LevelDB's log format: blocks, and in them pieces of records.
_READ_WANDB = """
import glob, json, struct, sys
from wandb.proto import wandb_internal_pb2

def records(data, at=7, block=32768):
    record = b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole, or the last piece
            yield wandb_internal_pb2.Record.FromString(record)
            record = b""

for path in sorted(glob.glob(sys.argv[1])):
    for record in records(open(path, "rb").read()):
        kind = record.WhichOneof("record_type")
        there = getattr(record, kind)
        if kind in ("history", "summary", "config"):
            items = there.item if kind == "history" else there.update
            row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
            print(json.dumps([kind, row]))
        elif kind in ("run", "artifact"):
            print(json.dumps([kind, there.run_id if kind == "run" else there.name]))
"""


def _read_wandb(run):
    there = run / "tracking" / "wandb" / "offline-run-*" / "run-*.wandb"
    done = subprocess.run(
        [_BIN / "python", "-c", _READ_WANDB, str(there)],
        capture_output=True,
        text=True,
        timeout=_LIMIT_SECS,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_wandb_has_every_point_once_in_its_offline_files(run):
    for _ in range(2):  # the second sends only what is new
        code, output = _track(run, "--to=wandb", "--offline")
        assert code == 0, output
        more = [(made_runs.BEGIN_SECS + 99, 999, "loss", 0.25)]
        made_runs.write_events(run / "tensorboard" / "learner-0", more)
    records = _read_wandb(run)
    history = [row for kind, row in records if kind == "history"]
    values = Counter()
    for row in history:
        (process,) = {key.partition("/")[0] for key in row if not key.startswith("_")}
        own = {f"{process}/step", f"{process}/secs"}
        values.update(
            (key, row[f"{process}/step"], int(row[f"{process}/secs"] * 1000))
            for key in row
            if not key.startswith("_") and key not in own
        )
    wanted = {(p.name, p.step, int(p.secs * 1000)) for p in _all(run)[:-1]}
    assert set(values) == wanted and values.total() == 58
    steps = [row["_step"] for row in history]
    assert steps == sorted(set(steps))
    kinds = Counter(kind for kind, _ in records)
    assert kinds["artifact"] >= 1 and len({x for kind, x in records if kind == "run"}) == 1
    config = {k: v for kind, row in records if kind == "config" for k, v in row.items()}
    assert config["gym_environment.id"] == "'CartPole-v1'"
    summary = {k: v for kind, row in records if kind == "summary" for k, v in row.items()}
    assert summary["result/frames"] == 30_000 and summary["ended"] == "solved (exit code 0)"


def _all(run):
    return EventFiles(run / "tensorboard").take({})[0]
