"""Bytes between the roles of a run that a benchmark has watched."""

import json
import time
import types

import benchmark_runs
import pytest

from tfdrl.benchmarks import page, report, subjects, system, traffic
from tfdrl.benchmarks.harness import Measured


def _log(directory, name, looks):
    """The usage of a process: (seconds, bytes to the learner, bytes from it) at each look."""
    rows = [
        {
            "pid": 1,
            "secs": secs,
            "cpu_secs": 0.0,
            "memory_mb": 1.0,
            "flows": {"learner": (sent, received, 1), "clients": (9 * secs, 9 * secs, 1)},
        }
        for secs, sent, received in looks
    ]
    (directory / "usage").mkdir(exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (directory / "usage" / f"{name}.jsonl").write_text(lines)


def test_traffic_is_that_of_all_processes_of_a_role(tmp_path):
    for name in ("actor-0", "actor-1", "evaluator-0"):
        _log(tmp_path, name, [(secs, 10 * secs, 400 * secs) for secs in (0.0, 10.0, 20.0)])
    found = traffic.of_run(tmp_path, 0.0, 100.0)  # until the last look
    assert found == {("actor", "learner"): pytest.approx((20.0, 800.0))}
    assert traffic.of_run(tmp_path, 30.0, 100.0) == {}


def test_who_looks_seldom_counts_as_much(tmp_path):
    """Between two looks it is what flows on average; a window may have one of them, or none."""
    _log(tmp_path, "actor-0", [(0.0, 0, 0), (15.0, 150, 0), (30.0, 600, 0)])
    _log(tmp_path, "actor-1", [(0.0, 0, 0), (100.0, 1000, 0)])
    found = traffic.of_run(tmp_path, 10.0, 20.0)
    assert found == {("actor", "learner"): pytest.approx((10.0 + (50 + 150) / 10.0, 0.0))}
    found = traffic.of_run(tmp_path, 16.0, 28.0)
    assert found == {("actor", "learner"): pytest.approx((30.0 + 10.0, 0.0))}


def test_the_window_is_that_of_the_readings_in_the_time_of_the_roles():
    now_secs, unix_secs = time.monotonic(), time.time()
    nothing = (0, 0, {}, {}, {}, 0.0)
    readings = [system.Reading(now_secs - ago, 0.0, *nothing) for ago in (12.0, 5.0, 1.0)]
    begin_secs, end_secs = system.window(readings)
    assert end_secs - begin_secs == pytest.approx(11.0)
    assert end_secs == pytest.approx(unix_secs - 1.0, abs=1.0)


def test_traffic_is_shown_for_a_frame_both_ways():
    flows = {("actor", "learner"): traffic.Traffic(5000.0, 800.0)}
    whole = system.System(60.0, 200.0, 10.0, {}, {}, 0.0, traffic=flows)
    tables = report.sections(Measured(subjects.APEX, types.SimpleNamespace(), 4, 2, {}, whole))
    figures = benchmark_runs.by_name(page.as_json(tables))
    title = "Whole system"
    assert figures[title, "from actor to learner", "bytes/frame"] == 25.0
    assert figures[title, "to actor from learner", "bytes/frame"] == 4.0
