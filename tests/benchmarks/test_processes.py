"""Workers of a benchmark: one function in a process with the configuration and a role's threads."""

import os

import paths
import pytest

from tfdrl.benchmarks.harness import Bench, BenchmarkSettings
from tfdrl.benchmarks.measuring import Rounds
from tfdrl.errors import TfdrlError, UnavailableError
from tfdrl.launch import process

_BINDINGS = ["experiment.seed = 7", "seed.environments_per_actor = 3"]


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", paths.python_path())
    settings = BenchmarkSettings(["seed/cartpole_vtrace.gin"], _BINDINGS, "a", 1.0, Rounds(1, 0.1))
    return Bench.of(settings, tmp_path)


def test_worker_answers_what_it_is_told_and_does_not_outlive_the_block(bench):
    with bench.worker("actor", "benchmark_workers:counting", 5) as worker:
        pid, *settings = worker.hear(60)
        assert settings == [7, 3]
        for told, counted in [(1, 6), (10, 16)]:
            worker.tell(told)
            assert worker.hear(60) == counted
        assert 0 < worker.cpu_secs < 60 and 1 < worker.rss_mb < 300
        assert "benchmark_workers:counting" in " ".join(process.arguments_of(pid))
    assert not os.path.exists(f"/proc/{pid}")


def test_worker_that_fails_is_named_with_its_exit_code(bench, capfd):
    words = r"failing failed \(exit code 1\); see above"
    with bench.worker("actor", "benchmark_workers:failing") as worker:
        with pytest.raises(TfdrlError, match=words):
            worker.hear(60)
        worker.tell("anything")  # nobody is there any more: the next answer says so
        with pytest.raises(TfdrlError, match=words):
            worker.hear(1)
    assert "RuntimeError: with seed 7" in capfd.readouterr().err


def test_worker_has_a_time_limit(bench):
    with bench.worker("actor", "benchmark_workers:sleeping") as worker:
        with pytest.raises(UnavailableError, match="sleeping took more than 1 s"):
            worker.hear(1)
