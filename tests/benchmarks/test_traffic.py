"""Bytes between the roles of a run that a benchmark has watched."""

import json

import pytest

from tfdrl.benchmarks import traffic


def test_traffic_is_that_of_the_window_and_of_all_processes_of_a_role(tmp_path):
    directory = tmp_path / "usage"
    directory.mkdir()
    for name in ("actor-0", "actor-1", "evaluator-0"):
        lines = [
            {
                "pid": 1,
                "secs": secs,
                "cpu_secs": 0.0,
                "memory_mb": 1.0,
                "flows": {
                    "learner": (10 * secs, 400 * secs, 1),
                    "clients": (9 * secs, 9 * secs, 1),
                },
            }
            for secs in (0.0, 10.0, 20.0, 1000.0)
        ]
        lines[-1]["flows"]["learner"] = (1e9, 1e9, 1)  # after the window
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    found = traffic.of_run(tmp_path, 0.0, 100.0)
    assert found == {("actor", "learner"): pytest.approx((20.0, 800.0))}
    assert traffic.of_run(tmp_path, 15.0, 100.0) == {}
