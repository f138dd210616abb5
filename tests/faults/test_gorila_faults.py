"""One running Gorila system with a global replay, and what befalls it: nobody waits for anybody.

The tests are one story, told in order: each takes the system as the one before left it.
"""

import contextlib
import os
import signal
import time

import pytest
import reverb
from parameter_roles import ParameterRoles
from paths import DATA
from running_roles import wait

from tfdrl.replay.server import complete_checkpoints
from tfdrl.replay.transition_table import TABLE

#: Nine processes: minutes of two cores. A3C's story, with the same servers, is run every time.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

_GIN = DATA / "gorila_global_catch.gin"
_START_SECS = 150.0  # of a role, on a machine that has much else to do
_BINDINGS = ("experiment.solved_return = None", "experiment.max_minutes = None")


class System(ParameterRoles):
    """Actor 0 writes to replay 0, actor 1 to replay 1; learners read from both."""

    def table(self, task):
        """Reverb's TableInfo of a replay server; None while it does not answer."""
        client = reverb.Client(self.listener("replay", task))
        with contextlib.suppress(reverb.errors.DeadlineExceededError, RuntimeError):
            return client.server_info(timeout=2)[TABLE]

    def sampled(self, task):
        """How many items of a replay server were ever sampled; None while it does not answer."""
        table = self.table(task)
        return None if table is None else table.rate_limiter_info.sample_stats.completed

    def wait_for_samples(self, task, limit_secs):
        """Waits for two batches from this replay server."""
        start = wait(lambda: self.sampled(task) is not None, limit_secs, self.last_lines)
        start = self.sampled(task)
        wait(lambda: (self.sampled(task) or 0) > start + 64, limit_secs, self.last_lines)


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gorila")
    (directory / "run").mkdir()
    flags = [f"--gin_bindings={binding}" for binding in _BINDINGS]
    system = System(directory / "run", directory, _GIN, *flags, servers=1, replays=2)
    try:
        system.begin("parameter_server")
        system.begin("coordinator")
        for task in (0, 1):
            for role in ("replay", "actor", "learner"):
                system.begin(role, task)
        system.wait_for(
            lambda now: all(_gradients(now, task) > 0 for task in (0, 1)),
            *(2 * _START_SECS, "gradients of both learners"),
        )
        system.wait_for_progress(60)
        yield system
    finally:
        system.kill()


def _reports(status, role):
    """The newest report of each process of a role, by task."""
    return {found.task: found for found in status.roles if found.role == role and found.metrics}


def _gradients(status, task):
    """How many gradients of a learner were applied, since its start."""
    found = _reports(status, "learner").get(task)
    return found.metrics["worker/gradients"] if found else 0


def _wait_for_gradients(system, tasks, limit_secs=60, number=20):
    """Waits until each of these learners has so many more gradients applied."""
    start = system.wait_for(lambda now: True, limit_secs, "an answer of the coordinator")
    return system.wait_for(
        lambda now: all(_gradients(now, t) >= _gradients(start, t) + number for t in tasks),
        *(limit_secs, f"gradients of learners {tasks}"),
    )


def _size(status):
    """Of the whole replay, as learner 1 sees it."""
    return _reports(status, "learner")[1].metrics["replay/size"]


def test_learners_take_from_both_replay_servers(system):
    for task in (0, 1):
        system.wait_for_samples(task, 30)
    (server,) = system.servers()
    assert server["verdicts"]["accepted"] > 0
    assert server["verdicts"]["non_finite"] == 0


def test_others_go_on_without_a_killed_learner_actor_and_replay_server(system):
    last = complete_checkpoints(system.root_dir / "replay-1")[-1:]
    wait(
        lambda: complete_checkpoints(system.root_dir / "replay-1")[-1:] != last,
        *(30, "a checkpoint of replay server 1, which is being sampled"),
    )
    for name in (("learner", 0), ("actor", 1), ("replay", 1)):
        system.running[name].kill()
    before = system.status()
    system.wait_for_samples(0, 30)
    after = _wait_for_gradients(system, {1})
    assert _gradients(after, 0) == _gradients(before, 0)
    system.wait_for_progress(60, steps=20)
    assert system.running["learner", 1].returncode is None
    assert system.running["actor", 0].returncode is None


def test_a_learner_is_not_slower_beside_a_dead_replay_server(system):
    """Once it asked both servers for their sizes while it learnt, and waited for the dead one."""
    wait(
        lambda: _size(system.status()) <= system.table(0).current_size,
        *(20, "a report without the dead server"),
    )
    start, start_secs = _gradients(system.status(), 1), time.monotonic()
    system.wait_for(lambda now: _gradients(now, 1) > start + 50, 20, "gradients")
    rate = (_gradients(system.status(), 1) - start) / (time.monotonic() - start_secs)
    assert rate > 5


def test_all_come_back_and_the_replay_server_with_what_it_had(system):
    runs = {role: _reports(system.status(), role) for role in ("learner", "actor")}
    replay = system.begin("replay", 1)
    table = wait(lambda: system.table(1), _START_SECS, replay.log)
    assert table.current_size >= 200  # nobody writes to it yet
    system.begin("actor", 1)
    system.begin("learner", 0)
    system.wait_for_samples(1, 60)  # of the learner that was here all the time
    status = _wait_for_gradients(system, {0, 1}, _START_SECS)
    assert _reports(status, "learner")[0].run_id != runs["learner"][0].run_id
    assert _reports(status, "learner")[1].run_id == runs["learner"][1].run_id
    size = table.current_size
    wait(lambda: system.table(1).current_size > size, _START_SECS, "transitions of the new actor")
    frames = [now.frames for now in system.statuses]
    assert frames == sorted(frames)
    versions = [(now["epoch"], now["version"]) for now in system.history[0]]
    assert versions == sorted(versions)


def test_sigterm_ends_every_role_within_ten_seconds(system):
    system.look_no_more()
    checkpoints = complete_checkpoints(system.root_dir / "replay-0")
    alive = [process for process in system.running.values() if process.returncode is None]
    assert len(alive) >= 5
    for process in alive:
        os.kill(process.pid, signal.SIGTERM)
    deadline_secs = time.monotonic() + 10
    for process in alive:
        assert process.exit_code(max(deadline_secs - time.monotonic(), 0.1)) == 0, process.log
        assert "Traceback" not in process.log, process.log
    assert complete_checkpoints(system.root_dir / "replay-0")[-1] != checkpoints[-1]
    assert (system.root_dir / "result.json").exists()
