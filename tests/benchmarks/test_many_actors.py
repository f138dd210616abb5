"""tfdrl-benchmark --parts=n: clients that do what actors do, and figures that belong together."""

import benchmark_runs
import numpy as np
import pytest
from paths import python_path

from tfdrl.benchmarks import many_actors, many_clients
from tfdrl.benchmarks.harness import Bench, BenchmarkSettings
from tfdrl.benchmarks.many_clients import Order
from tfdrl.benchmarks.measuring import Rounds
from tfdrl.benchmarks.processes import Job
from tfdrl.errors import UnavailableError
from tfdrl.launch.credentials import Credentials
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.rpc.security import Security
from tfdrl.topology import Address


@pytest.fixture
def server():
    server = TrainingServer(Address("127.0.0.1", 0), "digest")
    server.publish(1, [np.zeros(1000, np.float32)])
    yield server
    server.close(0.0)


def test_clients_pull_and_report_as_they_are_told(server, tmp_path):
    job = Job(None, 1, "digest", tmp_path, Rounds(1, 0.1))
    clients = many_clients.clients(job, server.address, Credentials(), range(1, 4))
    assert next(clients) is None
    joined = clients.send(Order("join", 3))
    assert (joined.replies, joined.failures, len(joined.times_ms)) == (3, 0, 3)
    lived = clients.send(Order("live", 2, secs=1.2, pull_secs=0.2))
    assert 8 <= lived.replies <= 12 and not lived.failures
    assert lived.size_bytes == 2 * 4000  # each of the two: once, and then nothing is newer
    assert 2 * 20 <= server.frames() <= 2 * 40
    pulled = clients.send(Order("pull", 3, secs=0.2))
    assert pulled.size_bytes == 4000 * pulled.replies and pulled.replies > 0
    with many_actors.Chief(server.address, Security()) as chief:
        asked = chief.ask()
    assert [(role.role, role.task) for role in asked.status.roles] == [("actor", 1), ("actor", 2)]
    assert 2 * 20 * 20 < asked.size_bytes < 3000
    rows, _ = many_actors._panel(asked.status)
    assert rows == 4  # elapsed, frames, learner steps, processes


def test_a_client_counts_what_fails(tmp_path):
    job = Job(None, 1, "digest", tmp_path, Rounds(1, 0.1))
    clients = many_clients.clients(job, Address("127.0.0.1", 1), Credentials(), range(1))
    next(clients)
    answer = clients.send(Order("pull", 1, secs=0.1))
    assert answer.failures and not answer.replies


def test_a_learner_that_does_not_answer_or_train_is_said(server, monkeypatch):
    for name in ("_ANSWER_SECS", "START_LIMIT_SECS", "_STATUS_SECS"):
        monkeypatch.setattr(many_actors, name, 0.2)
    with many_actors.Chief(Address("127.0.0.1", 1), Security()) as chief:
        with pytest.raises(UnavailableError, match="the learner at 127"):
            chief.ask()
    monkeypatch.setattr(many_actors, "_ANSWER_SECS", 30.0)
    with many_actors.Chief(server.address, Security()) as chief:
        with pytest.raises(UnavailableError, match="made no step within"):
            chief.wait_for_steps()
    with pytest.raises(ValueError, match="closed channel"):
        chief.ask()


def test_what_a_launcher_spends_is_of_real_processes(tmp_path):
    class Bench:
        @staticmethod
        def new_directory():
            return tmp_path

    figures = {(f.name, f.unit): f.value for f in many_actors._supervision(Bench, 5)}
    assert len(list(tmp_path.glob("actor-*.log"))) == 5
    assert figures["launcher, 5 actors: a look at all, ten times a second", "CPU ms"] > 0
    assert figures["launcher, 5 actors: until all were started", "s"] > 0


@pytest.mark.slow
def test_roles_clients_and_launcher_are_measured_level_by_level(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", python_path())
    (tmp_path / "tiny.gin").write_text("import tiny_program\nexperiment.architecture = @tiny()\n")
    serving = ["tiny.replay = 'serve'", "tiny.learner = 'serve'", "tiny.learner_serves = True"]
    bindings = [*serving, "tiny.actors = 13"]
    settings = BenchmarkSettings(
        [f"{tmp_path}/tiny.gin"], bindings, "n", secs=1.0, rounds=Rounds(1, 1.5)
    )
    figures = many_actors.measure(Bench.of(settings, tmp_path)).figures
    found = {(figure.name, figure.unit): figure.value for figure in figures}
    for level in (1, 10, 12):
        assert found[f"{level} actors: calls that failed", ""] == 0
        assert 0 < found[f"{level} actors: pulls answered, of {level}/s", "/s"] <= 2 * level
        assert found[f"launcher, {level} actors: open files", ""] > 3
    status = [found[f"{level} actors: status", "KB"] for level in (1, 10, 12)]
    assert status[2] - status[1] == pytest.approx(2 / 9 * (status[1] - status[0]), rel=0.2)
    assert found["12 actors pull whole sets: size of a set", "MB"] == 0.004


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_many_actors_of_a_real_learner_are_measured(tmp_path):
    arguments = ["--gin_file=impala/sleeping.gin", "--parts=n", "--rounds=1", "--round_secs=3"]
    # One of the actors is real, and makes the learner's batches: several in each round.
    bindings = ("impala.actors = 21", "impala.batch_size = 1")
    bindings += ("gym_environment.kwargs = {'step_secs': 0.01}",)
    arguments += [f"--gin_bindings={binding}" for binding in bindings]
    tables, done = benchmark_runs.sections(tmp_path, *arguments, timeout_secs=350)
    figures = {(f["name"], f["unit"]): f["value"] for f in tables[0]["figures"]}
    assert "  20 actors" in done.stderr
    for level in (1, 10, 20):
        assert figures[f"{level} actors: calls that failed", ""] == 0
        assert figures[f"{level} actors: learner steps", "/s"] > 0
    status = [figures[f"{level} actors: status", "KB"] for level in (1, 10, 20)]
    assert status[1] - status[0] == pytest.approx(0.9 * (status[2] - status[1]), rel=0.1)
    assert figures["20 actors pull whole sets: out of the learner", "MB/s"] > 0
