"""`tfdrl track` into a real MLflow server.

It runs in the environment of docs/tracking.md, with mlflow and wandb; TRACK_VENV says where.
"""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter

import made_runs
import pytest
import tracked_runs
from paths import CHECKOUT
from tracked_runs import BIN, LIMIT_SECS, points, start, track, wait_for

from tfdrl.launch.local import addresses
from tfdrl.runtime import locks

pytestmark = tracked_runs.MARKS


@pytest.fixture(scope="module", autouse=True)
def _packages():
    """An environment that is named has both packages, and MLflow with its server."""
    command = [BIN / "python", "-c", "import mlflow.server, wandb"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECS)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def run(tmp_path):
    return tracked_runs.make(tmp_path / "a")


class _Mlflow:
    """An MLflow server, and what it tells over REST."""

    def __init__(self, directory):
        self.directory, self.port = directory, next(addresses.free_ports())
        self.uri, self._process = f"http://127.0.0.1:{self.port}", None

    def start(self):
        command = [BIN / "mlflow", "server", f"--port={self.port}", "--workers=1"]
        command += [f"--backend-store-uri=sqlite:///{self.directory}/mlflow.db"]
        command += [f"--artifacts-destination={self.directory}/artifacts"]
        log = (self.directory / "mlflow.log").open("a")
        self._process = subprocess.Popen(
            command,
            cwd=self.directory,
            # Seven processes that evaluate prompts, and take most of the start.
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        wait_for(self._answers, "the MLflow server")

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


@pytest.fixture
def mlflow(tmp_path):
    (tmp_path / "server").mkdir()
    server = _Mlflow(tmp_path / "server")
    yield server
    server.stop()


def test_mlflow_has_every_point_once_the_settings_the_result_and_the_files(run, mlflow):
    mlflow.start()
    code, output = track(run, "--to=mlflow", f"--uri={mlflow.uri}")
    assert (code, "57 points sent to MLflow's experiment 'tfdrl'" in output) == (0, True), output
    assert mlflow.points() == points(run) and mlflow.points().total() == 57
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
    code, output = track(run, "--to=mlflow", f"--uri={mlflow.uri}")
    assert (code, "1 points sent" in output) == (0, True), output
    assert mlflow.points() == points(run) and mlflow.points().total() == 58
    tags = {entry["key"]: entry["value"] for entry in mlflow.the_run()["data"]["tags"]}
    assert tags["changed/experiment.seed"] == "2"

    (run / "config.gin").write_text("experiment.seed = 1\n")
    code, output = track(run, "--to=mlflow", f"--uri={mlflow.uri}")
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
    command = [BIN / "python", "-c", _OPEN_TWICE, mlflow.uri, str(run / "config.gin")]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=LIMIT_SECS)
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["2"]), done.stderr


def test_killed_senders_and_a_server_that_comes_back_cost_no_point_and_double_none(run, mlflow):
    mlflow.start()
    flags = ["--to=mlflow", f"--uri={mlflow.uri}"]
    with locks.lock(run, "launcher"):
        for look in range(4):
            sender = start(run, *flags)
            seen = mlflow.points().total() if look else 0
            row = (made_runs.BEGIN_SECS + 50 + look, 500 + look, "rate", 1.0)
            made_runs.write_events(run / "tensorboard" / "learner-0", [row])
            wait_for(lambda seen=seen: _total(mlflow) > seen, "points")
            sender.kill()
            sender.communicate()
        sender = start(run, *flags)
        mlflow.stop()
        many = [(made_runs.BEGIN_SECS + 60 + i, 600 + i, "rate", 2.0) for i in range(2500)]
        made_runs.write_events(run / "tensorboard" / "learner-0", many)
        time.sleep(5)
        mlflow.start()
        wait_for(lambda: _total(mlflow) == points(run).total(), "all points")
    output, _ = sender.communicate(timeout=LIMIT_SECS)
    assert sender.returncode == 0, output
    assert mlflow.points() == points(run)


def _total(mlflow):
    try:
        return mlflow.points().total()
    except urllib.error.HTTPError:  # no experiment yet
        return 0


def test_a_server_that_is_not_there_is_said_in_time(run, mlflow):
    begun = time.monotonic()
    code, output = track(run, "--to=mlflow", f"--uri={mlflow.uri}", "--timeout_secs=3")
    assert code == 1 and time.monotonic() - begun < 30, output
    assert f"at {mlflow.uri} did not answer for" in output and "is it started" in output
    assert "(MLflow says: [Errno 111] Connection refused)" in output
