"""One running Ape-X system and what befalls it: its processes are killed, stopped and starved.

The tests are one story, told in order: each takes the system as the one before left it.
"""

import contextlib
import pathlib
import shutil
import signal
import time

import numpy as np
import pytest
import reverb
import tensorflow as tf
from running_roles import APEX, Roles, actor_runs, can_make_pid_namespaces, small_disk, wait

from tfdrl.replay.server import complete_checkpoints
from tfdrl.replay.transition_table import TABLE

_DISK_MEGABYTES = 64


class System(Roles):
    """The processes that should be running, by role."""

    def __init__(self, root_dir, logs, has_small_disk):
        super().__init__(root_dir, logs, APEX)
        self.has_small_disk = has_small_disk
        self.can_be_pid_1 = can_make_pid_namespaces()
        self.replay = self.learner = None
        self.actors = []

    def start_replay(self):
        again = self.replay is not None
        self.replay = self.start("replay", as_pid_1=self.can_be_pid_1 and again)

    def start_learner(self, as_pid_1=False):
        self.learner = self.start("learner", as_pid_1=self.can_be_pid_1 and as_pid_1)

    def start_actor(self, task):
        again = len(self.actors) >= 2
        pid_1 = self.can_be_pid_1 and again
        self.actors.append(self.start("actor", f"--task={task}", as_pid_1=pid_1))

    def table(self):
        """Reverb's TableInfo."""
        client = reverb.Client(self.addresses["replay"])
        with contextlib.suppress(reverb.errors.DeadlineExceededError, RuntimeError):
            return client.server_info(timeout=2)[TABLE]

    def learner_checkpoints(self):
        paths = (self.root_dir / "checkpoints").glob("checkpoint-*.index")
        return sorted((path.with_suffix("") for path in paths), key=lambda p: int(p.name[11:]))

    def replay_checkpoints(self):
        return complete_checkpoints(self.root_dir / "replay")


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    directory = tmp_path_factory.mktemp("apex")
    (directory / "logs").mkdir()
    with small_disk(directory / "run", _DISK_MEGABYTES) as has_small_disk:
        system = System(directory / "run", directory / "logs", has_small_disk)
        try:
            system.start_replay()
            system.start_learner()
            system.start_actor(0)
            system.start_actor(1)
            system.wait_for(lambda status: status.learner_step > 100, 60, "the first 100 steps")
            yield system
        finally:
            system.kill()


@pytest.mark.slow
def test_others_go_on_beside_a_stopped_actor(system):
    def transitions(status, task):
        roles = {(role.role, role.task): role for role in status.roles}
        return roles["actor", task].metrics["actor/transitions"]

    before = system.wait_for(lambda now: len(actor_runs(now)) == 2, 30, "two actors")
    system.actors[1].signal(signal.SIGSTOP)
    system.wait_for_progress(20)
    system.wait_for(
        lambda now: transitions(now, 0) > transitions(before, 0) + 200,
        *(20, "transitions of the other actor"),
    )
    stopped = system.status()
    system.actors[1].signal(signal.SIGCONT)
    after = system.wait_for(
        lambda now: transitions(now, 1) > transitions(stopped, 1) + 200,
        *(20, "transitions of the actor that was stopped"),
    )
    assert actor_runs(after) == actor_runs(before)


def test_learner_rests_while_all_actors_are_dead_and_goes_on_with_them(system):
    for actor in system.actors:
        actor.kill()
    time.sleep(2.0)  # for the batches that it has ahead
    logged = len(system.learner.log)
    wait(
        lambda: "rate limiter wants more of the actors first" in system.learner.log[logged:],
        *(20, "the learner's word that it waits"),
    )
    before, cpu_secs, start_secs = system.status(), system.learner.cpu_secs(), time.monotonic()
    time.sleep(3.0)
    share = (system.learner.cpu_secs() - cpu_secs) / (time.monotonic() - start_secs)
    assert system.status().learner_step == before.learner_step
    assert share < 0.10
    system.start_actor(0)
    after = system.wait_for_progress(30)
    runs = {role.run_id for role in after.roles if role.role == "actor" and role.task == 0}
    assert runs.isdisjoint(role.run_id for role in before.roles)


def _counts(table):
    """Inserts and samples of the rate limiter."""
    limits = table.rate_limiter_info
    return np.array([limits.insert_stats.completed, limits.sample_stats.completed])


def _inserts_ahead(system):
    """By how many samples, at four for each, the inserts are ahead of what was sampled."""
    inserts, samples = _counts(system.table())
    return 4 * inserts - samples


def _priorities(system, samples=80):
    """Priority by key of what some samples hit."""
    client = reverb.Client(system.addresses["replay"])
    drawn = client.sample(TABLE, samples, emit_timesteps=False)
    return {sample.info.key: sample.info.priority for sample in drawn}


def _freeze_clients(system):
    """Stops the learner, then the actor some inserts later, so that there is room for samples."""
    system.learner.signal(signal.SIGSTOP)
    # The limiter lets samples through from 50 on, and inserts up to 350: see apex_chain.gin.
    wait(
        lambda: _inserts_ahead(system) >= 242,
        *(10, lambda: f"inserts while the learner is stopped: {_inserts_ahead(system)} ahead"),
    )
    system.actors[-1].signal(signal.SIGSTOP)
    time.sleep(0.5)  # what was on its way arrives


def _thaw_clients(system):
    system.learner.signal(signal.SIGCONT)
    system.actors[-1].signal(signal.SIGCONT)


def test_killed_replay_comes_back_from_its_checkpoint_and_clients_deliver_again(system):
    _freeze_clients(system)
    priorities = _priorities(system)
    last = system.replay_checkpoints()[-1].name
    wait(lambda: system.replay_checkpoints()[-1].name > last, 15, "a replay checkpoint")
    before = system.table()
    system.replay.kill()
    system.start_replay()
    after = wait(system.table, 30, "the restarted replay")
    assert after.current_size == before.current_size >= 50
    assert all(_counts(after) == _counts(before)) and all(_counts(after) > 0)
    restored = _priorities(system)
    common = priorities.keys() & restored.keys()
    assert common and all(priorities[key] == restored[key] for key in common)
    _thaw_clients(system)
    inserts, samples = _counts(after)
    wait(
        lambda: all(_counts(system.table()) > (inserts + 100, samples + 400)),
        *(30, lambda: f"deliveries\n{_counts(system.table())}\n{system.last_lines()}"),
    )


def _contents(checkpoint):
    reader = tf.train.load_checkpoint(str(checkpoint))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if "OBJECT_GRAPH" not in name and "counters" not in name
    }


def test_killed_learner_continues_exactly_from_its_checkpoint(system):
    number = len(system.learner_checkpoints())
    assert number >= 2
    before = system.status()
    system.learner.kill()
    kept = system.root_dir.parent / "kept"
    shutil.copytree(system.root_dir / "checkpoints", kept)
    newest = system.learner_checkpoints()[-1]
    expected = _contents(kept / newest.name)
    assert any("_optimizer" in name for name in expected)
    assert any("_target_q_network" in name for name in expected)

    system.replay.signal(signal.SIGSTOP)  # the learner starts and cannot learn
    system.start_learner(as_pid_1=True)
    status = system.wait_for(lambda status: status.version >= 0, 30, "the restarted learner")
    step = int(newest.name[11:])
    assert status.version == step > before.learner_step - 1000
    assert status.frames >= before.frames - 2000
    version, tensors = system.client(status.experiment).parameters(-1)
    network = [value for name, value in expected.items() if "agent/_q_network" in name]
    assert version == step and _sorted(tensors) == _sorted(network)
    assert system.learner.terminate() == 0
    assert f"continuing from learner step {step}" in system.learner.log
    again = _contents(system.learner_checkpoints()[-1])
    assert system.learner_checkpoints()[-1].name == newest.name
    assert again.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)

    system.replay.signal(signal.SIGCONT)
    system.start_learner()
    after = system.wait_for_progress(40)
    assert after.learner_step > step and after.frames > before.frames


def _sorted(tensors):
    return sorted(np.asarray(tensor).tobytes() for tensor in tensors)


@contextlib.contextmanager
def _full(directory: pathlib.Path):
    path = directory / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16) if shutil.disk_usage(directory).free >= 1 << 16 else b"x")
    yield
    path.unlink()


def test_full_disk_costs_checkpoints_and_nothing_else(system):
    if not system.has_small_disk:
        pytest.skip("mounting a small file system is not permitted")
    logs = {process: len(process.log) for process in (system.learner, system.replay)}
    with _full(system.root_dir):
        for process in logs:
            wait(
                lambda process=process: (
                    "ould not be written" in process.log[logs[process] :]
                    or "COULD NOT BE WRITTEN" in process.log[logs[process] :]
                ),
                *(20, lambda process=process: f"a warning\n{process.log}"),
            )
        system.wait_for_progress(15)
        learner, replay = system.learner_checkpoints(), system.replay_checkpoints()
        assert len(learner) >= 2 and len(replay) >= 1
        time.sleep(2.5)
        assert system.learner_checkpoints() == learner
    wait(lambda: system.learner_checkpoints()[-1] != learner[-1], 15, "the learner's checkpoint")
    wait(lambda: system.replay_checkpoints()[-1] != replay[-1], 15, "the replay's checkpoint")
    assert not (system.root_dir / "checkpoints" / "partial").exists()


def test_sigterm_flushes_checkpoints_and_ends_every_role(system):
    """In the worst order: each role ends while those it talks to are gone or going."""
    system.start_actor(1)
    wait(lambda: system.status().roles and len(_recent_actors(system)) == 2, 30, "the second actor")
    assert system.actors[-1].terminate() == 0
    replays = system.replay_checkpoints()
    assert system.replay.terminate() == 0
    assert system.replay_checkpoints()[-1] != replays[-1]
    step = system.status().learner_step
    assert system.learner.terminate() == 0
    assert int(system.learner_checkpoints()[-1].name[11:]) >= step
    assert (system.root_dir / "result.json").exists()
    assert system.actors[-2].terminate() == 0


def _recent_actors(system):
    roles = system.status().roles
    return [r for r in roles if r.role == "actor" and r.seconds_since_report < 3]


def _damage(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.slow
def test_damaged_checkpoints_are_passed_over_and_never_forgotten(system):
    wait(lambda: len(system.learner_checkpoints()) > 1, 60, "checkpoints of the learner")
    wait(system.replay_checkpoints, 60, "a checkpoint of the replay")
    for process in (*system.actors, system.learner, system.replay):
        if process.returncode is None:
            assert process.terminate() == 0
    newest, older = system.learner_checkpoints()[-1], system.learner_checkpoints()[-2]
    _damage(next(newest.parent.glob(f"{newest.name}.data*")))
    for path in system.replay_checkpoints()[-1].glob("*.tfrecord"):
        _damage(path)
    system.start_replay()
    system.start_learner()
    status = system.wait_for(lambda status: status.version >= 0, 40, "the learner")
    table = wait(system.table, 30, "the replay")
    assert status.version == int(older.name[11:])
    assert table.current_size >= 50
    for process in (system.replay, system.learner):
        assert "cannot be read" in process.log and "older checkpoint" in process.log
        process.kill()

    for path in system.learner_checkpoints():
        _damage(path.with_suffix(".index"))
    for checkpoint in system.replay_checkpoints():
        for path in checkpoint.glob("*.tfrecord"):
            _damage(path)
    system.start_replay()
    system.start_learner()
    for process in (system.replay, system.learner):
        assert process.exit_code(40) == 1
        assert "none of the" in process.log and "Traceback" not in process.log
