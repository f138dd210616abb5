"""tfdrl-benchmark on A3C and Gorila: real servers, figures that follow from each other."""

import benchmark_runs
import pytest
from benchmark_runs import figures


@pytest.mark.slow
@pytest.mark.timeout(250)
def test_cycles_are_measured_beside_the_same_step_locally(tmp_path):
    arguments = ["--gin_file=gorila/cartpole.gin", "--parts=a", "--rounds=2", "--round_secs=0.3"]
    arguments.append("--gin_bindings=gorila.parameter_servers = 2")
    (section,), _ = benchmark_runs.sections(tmp_path, *arguments, timeout_secs=240)
    found = figures(section)
    cycles = found["gradient, push, newest parameters"]
    assert 1 < cycles < found["the same gradient and update locally"]
    assert 0.02 < found["time spent communicating"] < 0.98
    # Two layers of 128, and the streams of a dueling head for 2 actions.
    sizes = [4 * 128, 128, 128 * 128, 128, 128 * 2, 2, 128, 1]
    assert found["parameters"] == pytest.approx(4e-6 * sum(sizes))
    assert found["moved, up and down"] == pytest.approx(2 * found["parameters"] * cycles)
    assert "parameter servers: 2" in section["title"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_more_workers_are_faster_where_the_environment_sleeps(tmp_path):
    """Wall time that a worker sleeps costs no core: the speed grows with the workers."""
    arguments = ["--gin_file=a3c/sleeping.gin", "--parts=b", "--seconds=10"]
    (section,), _ = benchmark_runs.sections(tmp_path, *arguments, timeout_secs=550)
    found = figures(section)
    assert found["2 workers / 1 worker"] == pytest.approx(found["2 workers"] / found["1 worker"])
    assert found["2 workers / 1 worker"] > 1.5
    assert found["8 workers / 1 worker"] > 4.0
