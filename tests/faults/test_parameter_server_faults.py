"""One running A3C system with two parameter servers, and what befalls it.

The tests are one story, told in order: each takes the system as the one before left it.
"""

import os
import re
import signal
import time

import numpy as np
import pytest
from parameter_roles import ParameterRoles
from paths import DATA
from running_roles import checkpoint_contents, free_port, wait

_GIN = DATA / "a3c_catch.gin"
_START_SECS = 150.0  # of a role, on a machine that has much else to do
_BINDINGS = (
    "experiment.solved_return = None",
    "experiment.max_minutes = None",
    "gym_environment.id = 'faulty_environments:FaultyChain-v0'",  # a corridor, for faults
    "gym_environment.kwargs = {'rest_secs': 1e-3}",
    "parameter_server.snapshot_period_updates = 50",
    "parameter_server.snapshots = 100",  # what a command asks for is there when it has started
)


def _flags(*bindings):
    return [f"--gin_bindings={binding}" for binding in bindings]


class System(ParameterRoles):
    """Its workers' environments fail by a file of faults of each worker's own."""

    def faults_of(self, task):
        return self.root_dir.parent / f"faults-{task}"

    def start_worker(self, task):
        env = {"TFDRL_TEST_FAULTS": str(self.faults_of(task))}
        return self.begin("worker", task, env=env)

    def begin_all(self):
        """Starts two of each, and a coordinator; waits for both workers' reports."""
        for task in (0, 1):
            self.begin("parameter_server", task)
            self.start_worker(task)
        self.begin("coordinator")
        self.wait_for_workers()

    def wait_for_workers(self):
        self.wait_for(lambda now: len(_workers(now)) == 2, _START_SECS, "two workers")


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    directory = tmp_path_factory.mktemp("a3c")
    (directory / "run").mkdir()
    system = System(directory / "run", directory, _GIN, *_flags(*_BINDINGS))
    try:
        system.begin_all()
        system.wait_for_progress(60)
        yield system
    finally:
        system.kill()


def _workers(status, within_secs=3.0):
    """The workers that reported lately, by task."""
    roles = [role for role in status.roles if role.role == "worker" and role.metrics]
    return {role.task: role for role in roles if role.seconds_since_report < within_secs}


def _gradients(status, task):
    """How many of this worker's gradients were applied, since its start."""
    found = _workers(status, within_secs=1e9).get(task)
    return found.metrics["worker/gradients"] if found else 0


def _wait_for_gradients(system, tasks, limit_secs=60, number=20):
    """Waits until each of these workers has so many more gradients applied."""
    start = system.wait_for(lambda now: True, limit_secs, "an answer of the coordinator")
    return system.wait_for(
        lambda now: all(_gradients(now, t) >= _gradients(start, t) + number for t in tasks),
        *(limit_secs, f"gradients of workers {tasks}"),
    )


def _count(verdict, statuses):
    return statuses[0]["verdicts"][verdict]


def _checkpoints(system, task):
    """Versions of the checkpoints of a parameter server, oldest first."""
    directory = system.root_dir / f"parameters-{task}" / "checkpoints"
    return sorted(int(path.stem[11:]) for path in directory.glob("checkpoint-*.index"))


def test_others_go_on_without_a_killed_worker(system):
    system.running["worker", 0].kill()
    before = system.servers()
    _wait_for_gradients(system, {1})
    system.wait_for_progress(30)
    system.wait_for_servers(
        lambda now: all(n["version"] > b["version"] + 20 for n, b in zip(now, before)),
        *(10, "updates of both servers"),
    )


def test_a_late_worker_joins_and_a_checkpoint_is_written_on_demand(system):
    run_ids = {role.run_id for role in system.status().roles if role.role == "worker"}
    system.start_worker(0)
    asked = system.command("--checkpoint")
    assert asked.returncode == 0, asked.stdout + asked.stderr
    told = [int(version) for version in re.findall(r"last checkpoint +(\d+)", asked.stdout)]
    assert all(0 < told[task] <= _checkpoints(system, task)[-1] for task in (0, 1))
    status = system.wait_for(
        lambda now: {0, 1} == set(_workers(now)) and _workers(now)[0].run_id not in run_ids,
        *(_START_SECS, "the late worker"),
    )
    assert _workers(status)[1].run_id in run_ids
    _wait_for_gradients(system, {0, 1})


@pytest.mark.slow
def test_processes_that_do_not_belong_here_are_refused(system):
    """They start all at once, to save time."""
    holder = system.running["parameter_server", 1].pid
    elsewhere = system.root_dir.parent / "elsewhere"
    elsewhere.mkdir()
    wider = system.beside("worker", 1, *_flags("MlpActorCriticNetwork.layer_units = (48,)"))
    second = system.beside("parameter_server", 1, listen=f"127.0.0.1:{free_port()}")
    third = system.beside("parameter_server", 1, root_dir=elsewhere)
    for process, words in {
        wider: ["worker 1 has another network than parameter server", "[5, 64]", "[5, 48]"],
        second: ["in use by another parameter server", f"process {holder} on"],
        third: [f"port {system.listener('parameter_server', 1).split(':')[1]} is in use"],
    }.items():
        assert process.exit_code(_START_SECS) == 2, process.log
        assert all(word in process.log for word in words), process.log
        assert "Traceback" not in process.log, process.log
    _wait_for_gradients(system, {0, 1})


def test_killed_server_continues_from_its_checkpoint_and_nobody_else_notices(system):
    before, status = system.servers(), system.status()
    system.running["parameter_server", 0].kill()
    version = _checkpoints(system, 0)[-1]
    again = system.begin("parameter_server", 0)
    after = system.wait_for_servers(
        lambda now: now[0]["epoch"] > before[0]["epoch"] and now[0]["version"] > version + 20,
        *(_START_SECS, "updates of the new server"),
    )
    assert f"continuing from version {version}" in again.log
    assert after[0]["verdicts"]["accepted"] >= version - 1
    assert after[1]["epoch"] == before[1]["epoch"]
    assert after[1]["version"] > before[1]["version"]
    now = _wait_for_gradients(system, {0, 1})
    for task, worker in _workers(status).items():
        assert _workers(now)[task].run_id == worker.run_id
        assert "lost parameter server 0 at" in system.running["worker", task].log
    system.wait_for_progress(20)


def test_rollback_under_load_discards_what_came_after(system):
    before = system.wait_for_servers(
        lambda now: all(server["snapshots"] for server in now), 30, "snapshots"
    )
    version = min(server["version"] for server in before)
    done = system.command(f"--rollback={version}")
    assert done.returncode == 0, done.stdout + done.stderr
    after = system.servers()
    for task in (0, 1):
        assert after[task]["epoch"] == before[task]["epoch"] + 1
        assert after[task]["version"] > before[task]["version"]
        assert after[task]["rollbacks"] == before[task]["rollbacks"] + 1
    assert "(1 rollbacks)" in done.stdout
    _wait_for_gradients(system, {0, 1})


def test_gradient_from_before_a_rollback_is_rejected(system):
    system.running["worker", 1].signal(signal.SIGSTOP)
    before = system.servers()
    system.roll_back(before[0]["version"])
    system.wait_for_servers(
        lambda now: all(n["epoch"] > b["epoch"] for n, b in zip(now, before)), 10, "a new epoch"
    )
    system.running["worker", 1].signal(signal.SIGCONT)
    system.wait_for_servers(
        lambda now: _count("old_epoch", now) > _count("old_epoch", before),
        *(20, "the rejection of a gradient of the discarded parameters"),
    )
    _wait_for_gradients(system, {0, 1})


def test_gradients_that_are_not_finite_are_rejected_and_counted(system):
    before, status = system.servers(), system.status()
    system.faults_of(1).write_text("overflow")
    system.wait_for_servers(
        lambda now: _count("non_finite", now) > _count("non_finite", before), 20, "a rejection"
    )
    _wait_for_gradients(system, {0})
    system.faults_of(1).unlink()
    after = _wait_for_gradients(system, {0, 1})
    rejected = _workers(after)[1].metrics["worker/rejected_gradients"]
    assert rejected > _workers(status, 1e9)[1].metrics["worker/rejected_gradients"]
    _, tensors = system.client(after.experiment).parameters(-1)
    assert all(np.isfinite(tensor).all() for tensor in tensors)


@pytest.mark.slow
def test_all_rest_while_the_workers_are_dead_and_go_on_with_them(system):
    for task in (0, 1):
        system.running["worker", task].kill()
    wait(
        lambda: "no worker has reported for" in system.running["coordinator", 0].log,
        *(30, "the coordinator's word that it waits"),
    )
    names = [("coordinator", 0), ("parameter_server", 0), ("parameter_server", 1)]
    before = [system.running[name].cpu_secs() for name in names]
    versions = [server["version"] for server in system.servers()]
    time.sleep(5.0)
    used = [system.running[name].cpu_secs() - secs for name, secs in zip(names, before)]
    assert all(secs < 0.10 * 5.0 for secs in used), used
    assert [server["version"] for server in system.servers()] == versions
    for task in (0, 1):
        system.start_worker(task)
    system.wait_for_workers()
    system.wait_for_progress(30)


@pytest.mark.slow
def test_gradients_that_stay_not_finite_end_the_run_with_3(tmp_path):
    (tmp_path / "run").mkdir()
    more = ("parameter_server.rollback_nonfinite = 10", "parameter_server.max_rollbacks = 1")
    system = System(tmp_path / "run", tmp_path, _GIN, *_flags(*_BINDINGS, *more))
    try:
        system.begin_all()
        system.wait_for_servers(lambda now: all(s["snapshots"] for s in now), 60, "snapshots")
        for task in (0, 1):
            system.faults_of(task).write_text("overflow")
        coordinator = system.running["coordinator", 0]
        assert coordinator.exit_code(90) == 3, coordinator.log
        assert "Traceback" not in coordinator.log
        system.look_no_more()
        for task in (0, 1):
            assert system.running["worker", task].exit_code(10) == 0  # the run is over
            assert system.running["parameter_server", task].terminate() == 0
            directory = system.root_dir / f"parameters-{task}" / "checkpoints"
            newest = directory / f"checkpoint-{_checkpoints(system, task)[-1]}"
            arrays = checkpoint_contents(newest).values()
            numbers = [array for array in arrays if getattr(array, "dtype", None) == np.float32]
            assert numbers and all(np.isfinite(array).all() for array in numbers)
    finally:
        system.kill()


def test_killed_coordinator_goes_on_counting_from_its_checkpoint(system):
    wait(system.learner_checkpoints, 30, "a checkpoint of the coordinator")
    before, versions = system.status(), system.servers()
    system.running["coordinator", 0].kill()
    checkpoint = int(system.learner_checkpoints()[-1].name[11:])
    system.begin("coordinator")
    first = system.wait_for(
        lambda now: now.learner_step > 0, _START_SECS, "the new coordinator's count"
    )
    assert first.learner_step >= checkpoint > 0
    assert f"continuing from learner step {checkpoint}" in system.running["coordinator", 0].log
    # Workers kept counting, and their reports are of all that they ever did.
    after = system.wait_for(lambda now: now.frames > before.frames, 60, "the workers' frames")
    assert {r.run_id for r in _workers(after, 1e9).values()} <= {
        r.run_id for r in _workers(before, 1e9).values()
    }
    system.wait_for_progress(20)
    assert all(n["version"] > v["version"] for n, v in zip(system.servers(), versions))


def test_stopped_server_holds_everybody_up_and_nobody_ends(system):
    server = system.running["parameter_server", 1]
    server.signal(signal.SIGSTOP)
    time.sleep(4.0)
    server.signal(signal.SIGCONT)
    _wait_for_gradients(system, {0, 1})
    system.wait_for_progress(20)
    assert all(process.returncode is None for process in system.running.values())


def test_no_count_ever_went_back(system):
    for history in system.history:
        states = [(status["epoch"], status["version"]) for status in history]
        assert len(states) > 20 and states == sorted(states)
    assert {status["epoch"] for status in system.history[1]} == {0, 1, 2}
    # Of the coordinator, between its starts: a new one first has the counts of its checkpoint.
    starts = [*system.coordinators, len(system.statuses)]
    assert len(starts) == 3
    for begin, end in zip(starts, starts[1:]):
        for name in ("frames", "learner_step", "version"):
            counts = [getattr(status, name) for status in system.statuses[begin:end]]
            assert len(counts) > 5 and counts == sorted(counts), name


def test_sigterm_ends_every_role_within_ten_seconds(system):
    system.look_no_more()
    # What a server said last; the checkpoints before are up to two seconds older.
    versions = [history[-1]["version"] for history in system.history]
    start_secs = time.monotonic()
    names = [("worker", 0), ("worker", 1), ("coordinator", 0)]
    names += [("parameter_server", 0), ("parameter_server", 1)]
    for name in names:
        os.kill(system.running[name].pid, signal.SIGTERM)
    for name in names:
        assert system.running[name].exit_code(10) == 0, system.running[name].log
    assert time.monotonic() - start_secs < 10
    assert all(_checkpoints(system, task)[-1] >= versions[task] for task in (0, 1))
    assert (system.root_dir / "result.json").exists()
    logs = "".join(system.running[name].log for name in names)
    assert "Traceback" not in logs, system.last_lines()
