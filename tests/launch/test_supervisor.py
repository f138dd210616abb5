"""Supervision with real processes: restarts, deaths, and shutdown in order."""

import dataclasses
import os
import pathlib
import signal
import sys
import time

import pytest

from tfdrl.launch import exits
from tfdrl.launch.exits import describe, tail
from tfdrl.launch.local.processes import FreshProcesses
from tfdrl.launch.replica import Replica
from tfdrl.launch.settings import Limits
from tfdrl.launch.supervisor import RunEnd, Supervisor
from tfdrl.topology import Role

_LIMITS = Limits(first_backoff_secs=0.1, max_backoff_secs=0.2, max_restarts=3, grace_secs=0.5)
_WAIT = "import time; open(r'{0}/up-{1}', 'w').close(); time.sleep(60)"
_ORDERED = """
import os, signal, sys, time
def stop(*unused):
    os.write(os.open(r'{0}/order', os.O_CREAT | os.O_APPEND | os.O_WRONLY), b'{1}\\n')
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
open(r'{0}/up-{1}', 'w').close()
time.sleep(60)
"""
_DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + _WAIT


def _replica(directory, name, code, essential=False, task=0, replicas=1):
    role = Role(name, "unused:unused", replicas=replicas, essential=essential)
    code = code.format(directory, f"{name}-{task}")
    log = directory / f"{name}-{task}.log"
    return Replica(role, task, [sys.executable, "-c", code], log)


@pytest.fixture
def supervise():
    """Makes started supervisors, whose processes do not outlive the test."""
    started = []

    def start(replicas, finisher="learner", limits=_LIMITS):
        said = []
        supervisor = Supervisor(replicas, finisher, limits, said.append)
        started.append(supervisor)
        supervisor.start()
        return supervisor, said

    yield start
    for supervisor in started:
        supervisor.kill()


def _poll_until(supervisor, condition=lambda: False, limit_secs=20.0):
    deadline = time.monotonic() + limit_secs
    while time.monotonic() < deadline:
        ending = supervisor.poll()
        if ending or condition():
            return ending
        time.sleep(0.02)
    raise AssertionError("nothing happened")


def _wait_for(*paths):
    deadline = time.monotonic() + 20
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"{paths} did not appear"
        time.sleep(0.02)


def _is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_actor_is_restarted_with_growing_backoff_until_it_gives_up(supervise, tmp_path):
    actor = _replica(tmp_path, "actor", "print('no luck'); raise SystemExit(1)")
    learner = _replica(tmp_path, "learner", _WAIT, essential=True)
    supervisor, said = supervise([learner, actor])
    ending = _poll_until(supervisor)
    assert ending.exit_code == 1
    assert ending.reason == "actor died (exit code 1), after 3 restarts within 300 s"
    assert ending.details == "no luck"
    assert [line.split(";")[1].split(" in ")[1] for line in said] == ["0.1 s", "0.2 s", "0.2 s"]
    assert supervisor.restarts == 3
    assert actor.log.read_text().count("==== tfdrl: actor starts") == 4


@pytest.mark.parametrize(("share", "left"), [(0.5, 2), (0.75, 3), (1.0, 4), (0.0, 1)])
def test_actors_that_die_again_and_again_are_given_up_while_enough_are_left(
    supervise, tmp_path, share, left
):
    """Those that live are others' concern: a run of four ends when fewer than `left` would be."""
    limits = _LIMITS._replace(first_backoff_secs=0.02, max_restarts=1, min_replicas_share=share)
    dies = "import os, time\nwhile not os.path.exists(r'{0}/die-{1}'): time.sleep(0.01)\nexit(1)"
    actors = [_replica(tmp_path, "actor", dies, task=task, replicas=4) for task in range(4)]
    learner = _replica(tmp_path, "learner", _WAIT, essential=True)
    supervisor, said = supervise([learner, *actors], limits=limits)
    for gone in range(4 - left):
        (tmp_path / f"die-actor-{gone}").touch()
        condition = lambda: actors[gone].is_given_up  # noqa: B023, E731
        assert _poll_until(supervisor, condition) is None
        assert f"actor {gone} died (exit code 1), after 1 restarts within 300 s: it is" in said[-1]
        assert f"given up, and {3 - gone} of 4 actors go on without it" in said[-1]
        assert _poll_until(supervisor, lambda: supervisor.alive("actor") == 3 - gone) is None  # noqa: B023
    (tmp_path / "die-actor-3").touch()
    ending = _poll_until(supervisor)
    assert ending.exit_code == 1
    assert ending.reason == "actor 3 died (exit code 1), after 1 restarts within 300 s"


def test_workers_that_wait_for_each_other_are_not_given_up(supervise, tmp_path):
    limits = _LIMITS._replace(max_restarts=0, min_replicas_share=0.0)
    codes = (_WAIT, "raise SystemExit(1)")
    workers = [_replica(tmp_path, "worker", c, task=t, replicas=2) for t, c in enumerate(codes)]
    for worker in workers:
        worker.role = dataclasses.replace(worker.role, needs_all=True)
    assert _poll_until(supervise(workers, limits=limits)[0]).reason.startswith("worker 1 died")


def test_restarts_outside_the_window_are_forgotten(supervise, tmp_path):
    limits = _LIMITS._replace(first_backoff_secs=0.2, max_restarts=1, restart_window_secs=0.15)
    supervisor, _ = supervise([_replica(tmp_path, "actor", "raise SystemExit(1)")], limits=limits)
    assert _poll_until(supervisor, lambda: supervisor.restarts == 3) is None


def test_other_processes_go_on_while_one_is_restarted(supervise, tmp_path):
    actors = [_replica(tmp_path, "actor", _WAIT, task=task, replicas=2) for task in (0, 1)]
    supervisor, said = supervise(actors)
    other = actors[1].process.pid
    _wait_for(tmp_path / "up-actor-0")
    os.kill(actors[0].process.pid, signal.SIGKILL)
    assert _poll_until(supervisor, lambda: supervisor.alive("actor") == 1) is None
    assert _poll_until(supervisor, lambda: supervisor.alive("actor") == 2) is None
    assert said[0].startswith("actor 0 died (killed by SIGKILL); starting it again in 0.1 s")
    assert actors[1].process.pid == other


@pytest.mark.parametrize(
    ("code", "exit_code", "words"),
    [
        ("print('boom'); raise SystemExit(7)", 7, "exit code 7"),
        ("print('boom'); raise SystemExit(3)", 3, "exit code 3"),
        ("import os; print('boom', flush=True); os.kill(os.getpid(), 9)", 1, "killed by SIGKILL"),
    ],
)
def test_death_of_an_essential_role_ends_the_run(supervise, tmp_path, code, exit_code, words):
    supervisor, _ = supervise([_replica(tmp_path, "learner", code, essential=True)])
    ending = _poll_until(supervisor)
    assert ending[:3] == (exit_code, f"learner died ({words})", "boom")


def test_a_kill_for_want_of_memory_is_said(supervise, tmp_path, monkeypatch):
    counts = tmp_path / "vmstat"
    monkeypatch.setattr(exits, "_KERNEL_COUNTS", counts)
    counts.write_text("pgfault 7\noom_kill 3\n")
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    for kills in (3, 4):
        supervisor, said = supervise([_replica(tmp_path, "replay", code, essential=True)])
        counts.write_text(f"pgfault 9\noom_kill {kills}\n")
        assert _poll_until(supervisor).reason == "replay died (killed by SIGKILL)"
        assert any("for want of memory: replay, as it seems" in line for line in said) == (
            kills > 3
        )


def test_the_reason_is_the_sentence_that_the_role_has_said(supervise, tmp_path):
    code = "print('noise'); print('tfdrl learner: no image here'); raise SystemExit(2)"
    supervisor, _ = supervise([_replica(tmp_path, "learner", code, essential=True)])
    ending = _poll_until(supervisor)
    assert ending[:2] == (2, "learner: no image here (exit code 2)")


def test_wrong_configuration_of_an_actor_is_not_tried_again(supervise, tmp_path):
    supervisor, said = supervise([_replica(tmp_path, "actor", "raise SystemExit(2)")])
    assert _poll_until(supervisor).exit_code == 2
    assert not said


def test_learner_that_finishes_ends_the_run_with_success(supervise, tmp_path):
    replay = _replica(tmp_path, "replay", _WAIT, essential=True)
    supervisor, _ = supervise([replay, _replica(tmp_path, "learner", "", essential=True)])
    assert _poll_until(supervisor)[:3] == (0, "learner finished", "")


def _learners(directory, chief, other):
    codes = enumerate((chief, other))
    return [_replica(directory, "learner", code, True, task, replicas=2) for task, code in codes]


def test_end_of_the_chief_is_the_end_of_the_run(supervise, tmp_path):
    limits = _LIMITS._replace(finish_secs=20.0)
    supervisor, _ = supervise(
        _learners(tmp_path, "import time; time.sleep(1.0)", ""), limits=limits
    )
    assert _poll_until(supervisor)[:3] == (0, "learner finished", "")


def test_other_learner_may_not_leave_the_chief_alone_for_long(supervise, tmp_path):
    limits = _LIMITS._replace(finish_secs=0.5)
    supervisor, _ = supervise(_learners(tmp_path, _WAIT, ""), limits=limits)
    reason = "learner 1 stopped, though the run goes on (exit code 0)"
    assert _poll_until(supervisor)[:3] == (1, reason, "")


def test_death_of_any_learner_ends_the_run(supervise, tmp_path):
    supervisor, _ = supervise(_learners(tmp_path, _WAIT, "raise SystemExit(3)"))
    assert _poll_until(supervisor)[:3] == (3, "learner 1 died (exit code 3)", "")


def test_replay_that_leaves_unasked_is_a_failure(supervise, tmp_path):
    learner = _replica(tmp_path, "learner", _WAIT, essential=True)
    supervisor, _ = supervise([_replica(tmp_path, "replay", "", essential=True), learner])
    ending = _poll_until(supervisor)
    assert (ending.exit_code, ending.reason.split(" (")[0]) == (
        1,
        "replay stopped, though the run goes on",
    )


def test_actor_that_was_told_to_stop_stays_stopped(supervise, tmp_path):
    learner = _replica(tmp_path, "learner", _WAIT, essential=True)
    supervisor, said = supervise([learner, _replica(tmp_path, "actor", "")])
    assert _poll_until(supervisor, lambda: supervisor.alive("actor") == 0) is None
    time.sleep(0.3)
    assert supervisor.poll() is None
    assert supervisor.alive("actor") == 0 and not said


def test_stop_ends_actors_then_the_learner_then_replay(supervise, tmp_path):
    roles = [("replay", True), ("learner", True), ("actor", False)]
    replicas = [_replica(tmp_path, name, _ORDERED, essential) for name, essential in roles]
    supervisor, _ = supervise(replicas)
    _wait_for(*(tmp_path / f"up-{name}-0" for name, _ in roles))
    assert supervisor.stop() == []
    assert (tmp_path / "order").read_text().split() == ["actor-0", "learner-0", "replay-0"]


def test_stop_kills_what_ignores_sigterm_after_the_grace_time(supervise, tmp_path):
    actor = _replica(tmp_path, "actor", _DEAF)
    supervisor, _ = supervise([actor])
    _wait_for(tmp_path / "up-actor-0")
    pid, start = actor.process.pid, time.monotonic()
    departures = supervisor.stop()
    assert [(d.replica.name, d.exit_code) for d in departures] == [("actor", -9)]
    assert 0.5 <= time.monotonic() - start < 2.0
    assert not _is_alive(pid)


def test_a_role_that_writes_to_disk_gets_the_time_for_it(supervise, tmp_path):
    slow = _ORDERED.replace("sys.exit(0)", "import time; time.sleep(1.5); sys.exit(0)")
    replay = _replica(tmp_path, "replay", slow, essential=True)
    replay.role = dataclasses.replace(replay.role, flush_secs=20.0)
    supervisor, said = supervise([replay])
    _wait_for(tmp_path / "up-replay-0")
    assert supervisor.stop() == []  # it was not killed
    assert said == ["replay still writes to disk"]


def test_hurry_kills_at_once(supervise, tmp_path):
    limits = _LIMITS._replace(grace_secs=60.0)
    supervisor, _ = supervise([_replica(tmp_path, "actor", _DEAF)], limits=limits)
    _wait_for(tmp_path / "up-actor-0")
    start = time.monotonic()
    assert len(supervisor.stop(hurry=lambda: time.monotonic() - start > 0.2)) == 1
    assert time.monotonic() - start < 5.0


def test_a_failure_while_stopping_is_reported(supervise, tmp_path):
    failing = _ORDERED.replace("sys.exit(0)", "sys.exit(1)")
    supervisor, _ = supervise([_replica(tmp_path, "learner", failing, essential=True)])
    _wait_for(tmp_path / "up-learner-0")
    assert [(d.replica.name, d.exit_code) for d in supervisor.stop()] == [("learner", 1)]


def test_children_of_a_dead_role_die_too(supervise, tmp_path):
    code = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "raise SystemExit(5)"
    )
    supervisor, _ = supervise([_replica(tmp_path, "learner", code, essential=True)])
    child = int(_poll_until(supervisor).details)
    deadline = time.monotonic() + 5
    while _is_alive(child):
        assert time.monotonic() < deadline, "the child outlived its role"
        time.sleep(0.02)


def test_tail_shows_the_last_process_only(tmp_path):
    log = tmp_path / "log"
    lines = "\n".join(f"new {i}" for i in range(20))
    log.write_text(f"==== tfdrl: a ====\nold\n==== tfdrl: b ====\n{lines}\n")
    assert tail(log).splitlines() == [f"new {i}" for i in range(5, 20)]
    assert tail(tmp_path / "none") == ""


def test_exit_codes_in_words():
    assert describe(3) == "exit code 3"
    assert describe(-signal.SIGSEGV) == "killed by SIGSEGV"
    assert describe(-63) == "killed by signal 63"


class _Scheduled(FreshProcesses):
    """Starts processes of a job that a scheduler may end."""

    def __init__(self, is_ended):
        self._is_ended = is_ended

    def is_ending(self):
        return self._is_ended


@pytest.mark.parametrize(
    ("is_ended", "ending"),
    [
        (True, RunEnd(0, "told to stop")),
        (False, RunEnd(1, "learner died (killed by SIGTERM)")),
    ],
)
def test_a_role_that_a_scheduler_ends_has_not_failed(tmp_path, is_ended, ending):
    code = "import os, signal; os.kill(os.getpid(), signal.SIGTERM)"
    learner = _replica(tmp_path, "learner", code, essential=True)
    supervisor = Supervisor([learner], "learner", starter=_Scheduled(is_ended))
    supervisor.start()
    assert _poll_until(supervisor)[:2] == ending[:2]


class _Nodes(FreshProcesses):
    """Starts processes of nodes, of which one is lost."""

    def gone(self, nodes):
        return {"n2"} & set(nodes)


@pytest.mark.parametrize(
    ("role", "node", "code", "ending"),
    [
        ({"essential": True}, "n2", 1, RunEnd(1, "learner has lost its node n2")),
        ({"essential": True, "restarts": True}, "n2", 1, RunEnd(1, "learner has lost its node n2")),
        ({"serves": True}, "n2", 1, RunEnd(1, "learner has lost its node n2")),
        ({"essential": True}, "n1", 1, RunEnd(1, "learner died (exit code 1)")),
        ({"essential": True}, "n2", 3, RunEnd(3, "learner died (exit code 3)")),
    ],
)
def test_who_needs_the_same_node_and_has_lost_it_starts_with_all_others(
    tmp_path, role, node, code, ending
):
    learner = _replica(tmp_path, "learner", f"import sys; sys.exit({code})")
    learner.role, learner.node = dataclasses.replace(learner.role, **role), node
    supervisor = Supervisor([learner], "learner", starter=_Nodes())
    supervisor.start()
    found = _poll_until(supervisor)
    assert found[:2] == ending[:2]
    assert found.is_node_lost == ("lost" in ending.reason)


def test_a_loss_that_no_process_survives_ends_the_run_before_they_end(tmp_path):
    learner = _replica(tmp_path, "learner", _WAIT, essential=True)
    starter = FreshProcesses()
    supervisor = Supervisor([learner], "learner", starter=starter)
    supervisor.start()
    assert supervisor.poll() is None
    starter.lost = "the head is gone"
    assert supervisor.poll() == RunEnd(1, "the head is gone")
    assert learner.is_running  # and can still be asked to stop
    supervisor.kill()


def test_a_starter_need_not_say_what_is_lost(tmp_path):
    class Older:
        is_ready, start = FreshProcesses.is_ready, FreshProcesses.start

    learner = _replica(tmp_path, "learner", _WAIT, essential=True)
    supervisor = Supervisor([learner], "learner", starter=Older())
    supervisor.start()
    assert supervisor.poll() is None
    supervisor.kill()
