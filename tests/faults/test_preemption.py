"""A machine wants its place back: SIGTERM to one role after the other, and each comes back.

Each run is one story, told in order. Every role ends within ten seconds, with the exit code that
says that the run is not over; who comes back goes on from what it had, and no count goes back.
"""

import signal

import pytest
from paths import DATA
from running_roles import actor_runs, wait
from whole_programs import EXIT_CODE, WholeProgram

from tfdrl.parameter_server.watch import ParameterWatch
from tfdrl.replay.unroll_tables import QUEUE
from tfdrl.topology import Address

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

_START_SECS = 90.0


_RUNS = ["apex_catch", "impala_catch", "seed_r2d2_catch", "a3c_catch", "gorila_global_catch"]


@pytest.fixture(scope="module", params=_RUNS)
def system(request, tmp_path_factory):
    system = WholeProgram(tmp_path_factory.mktemp(request.param), DATA / f"{request.param}.gin")
    try:
        system.wait_for_progress(_START_SECS)
        yield system
    finally:
        system.kill()


def test_actors(system):
    for name in ("actor", "worker", "evaluator"):
        if system.has(name):
            system.preempt(name)
    system.wait_for_progress(_START_SECS)


def test_chief(system):
    before = system.status()
    system.preempt(system.program.chief)
    after = system.wait_for(lambda status: True, _START_SECS, "the chief's return")
    assert after.learner_step >= before.learner_step > 0
    assert after.frames >= before.frames > 0
    system.wait_for_progress(_START_SECS)


def test_replay(system):
    if not system.has("replay"):
        pytest.skip("no replay")
    before = wait(system.replay_table, 10, "the replay's answer")
    system.preempt("replay")
    after = wait(system.replay_table, _START_SECS, "the replay's return")
    acknowledged = before.rate_limiter_info.insert_stats.completed
    assert after.rate_limiter_info.insert_stats.completed >= acknowledged > 0
    taken = before.rate_limiter_info.sample_stats.completed
    assert after.rate_limiter_info.sample_stats.completed >= taken
    if after.name != QUEUE:  # of a queue, unrolls may be gone to the learner meanwhile
        assert after.current_size >= before.current_size > 0
    system.wait_for_progress(_START_SECS)


def test_parameter_servers(system):
    if not system.has("parameter_server"):
        pytest.skip("no parameter servers")
    listeners = system.listeners["parameter_server"]
    watch = ParameterWatch(tuple(map(Address.parse, listeners)), "the test")
    for task in range(len(listeners)):
        before = wait(lambda: all(found := watch.statuses()) and found, 30, "all servers")
        system.preempt("parameter_server", task)
        after = wait(lambda: all(found := watch.statuses()) and found, _START_SECS, "its return")
        assert after[task]["version"] >= before[task]["version"] > 0
        assert after[task]["verdicts"]["accepted"] >= before[task]["verdicts"]["accepted"]
    system.wait_for_progress(_START_SECS)


def test_no_count_ever_went_back(system):
    assert len(system.statuses) > 20
    for name in ("learner_step", "frames"):
        counts = [getattr(status, name) for status in system.statuses]
        assert counts == sorted(counts), name


@pytest.mark.parametrize("preempted", [0, 1])
def test_learners_that_train_together_stop_and_come_back_together(tmp_path, preempted):
    """No Job, and no unit, may take the one that was not preempted for a finished one."""
    more = ("impala.learners = 2", "strategy.kind = 'multi_worker'", "impala.batch_size = 4")
    system = WholeProgram(tmp_path, DATA / "impala_catch.gin", *more)
    learners = [("learner", task) for task in (0, 1)]
    try:
        before = system.wait_for_progress(2 * _START_SECS)
        system.running["learner", preempted].signal(signal.SIGTERM)
        for learner in learners:
            process = system.running[learner]
            assert process.exit_code(12.0) == EXIT_CODE, process.log
            assert "Traceback" not in process.log, process.log
        for learner in learners:
            system.begin(*learner)
        after = system.wait_for(lambda status: True, _START_SECS, "the chief's return")
        assert after.learner_step >= before.learner_step > 0
        assert after.frames >= before.frames > 0
        last = system.wait_for_progress(2 * _START_SECS)
        assert actor_runs(last) == actor_runs(before)  # they waited
    finally:
        system.kill()
