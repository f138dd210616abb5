"""One running SEED system and what befalls it: actors and learner are killed, stopped, lied to.

The tests are one story, told in order: each takes the system as the one before left it.
"""

import signal
import threading
import time

import grpc
import pytest
from paths import DATA
from running_roles import SeedRoles, actor_runs, can_make_pid_namespaces, wait

from tfdrl.rpc import inference_pb2

_BINDINGS = [
    "experiment.solved_return = None",
    "gym_environment.id = 'faulty_environments:FaultyCatch-v0'",
    "gym_environment.kwargs = {'rest_secs': 1e-3}",
    "seed.unroll_steps = 8",
    "seed.batch_size = 4",
]
_FLAGS = [f"--gin_bindings={text}" for text in _BINDINGS]


class System(SeedRoles):
    """The processes that should be running."""

    def __init__(self, root_dir, logs, gin_file):
        super().__init__(root_dir, logs, gin_file, *_FLAGS)
        self.can_be_pid_1 = can_make_pid_namespaces()
        self.learner, self.actors = None, {}

    def start_learner(self):
        self.learner = self.start("learner", replay=None)

    def start_actor(self, task):
        pid_1 = self.can_be_pid_1 and task in self.actors
        self.actors[task] = self.start("actor", f"--task={task}", as_pid_1=pid_1, replay=None)


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    directory = tmp_path_factory.mktemp("seed")
    (directory / "run").mkdir()
    system = System(directory / "run", directory, DATA / "seed_catch.gin")
    try:
        system.start_actor(0)  # actors wait for the learner
        system.start_actor(1)
        system.start_learner()
        system.wait_for_actors(2)
        system.wait_for_progress(60)
        yield system
    finally:
        system.kill()


def test_others_go_on_without_a_killed_actor_and_it_comes_back(system):
    before = actor_runs(system.status())
    system.actors[0].kill()
    system.wait_for_actors(1, 20)
    system.wait_for_progress(20)
    system.start_actor(0)
    system.wait_for_actors(2)
    after = actor_runs(system.wait_for(lambda now: actor_runs(now) != before, 20, "a new run"))
    assert after[1] == before[1] and after[0] != before[0]


def test_others_go_on_beside_a_stopped_actor_within_the_time_limit(system):
    system.actors[1].signal(signal.SIGSTOP)
    time.sleep(1.0)
    system.wait_for_progress(20)
    status = system.wait_for(lambda now: "inference/p99_ms" in now.metrics, 20, "latencies")
    # The limit of a batch is 10 ms; the rest is a machine that has much else to do.
    assert status.metrics["inference/p99_ms"] < 1000
    run = actor_runs(status)[1]
    system.actors[1].signal(signal.SIGCONT)
    system.wait_for_actors(2, 30)
    system.wait_for_progress(20)
    assert actor_runs(system.status())[1] == run


def test_strangers_do_not_disturb(system):
    """Garbage, silence, half a message and a wrong Hello, all at once."""
    target, refused = system.addresses["learner"], []

    def garbage(data):
        with grpc.insecure_channel(target) as channel:
            call = channel.stream_stream("/tfdrl.v1.Inference/Act")
            try:
                list(call(iter([data]), timeout=10))
            except grpc.RpcError as error:
                refused.append(error.code().name)

    def silence():
        with grpc.insecure_channel(target) as channel:
            hold = threading.Event()
            call = channel.stream_stream("/tfdrl.v1.Inference/Act")(iter(hold.wait, None))
            time.sleep(3.0)
            call.cancel()
            hold.set()

    messages = [
        *(b"\xff" * 100, b"", b"\x12\x04" + bytes(8 << 20)),
        inference_pb2.ActRequest(hello=inference_pb2.Hello(environments=9)).SerializeToString(),
    ]
    threads = [threading.Thread(target=garbage, args=(data,)) for data in messages]
    threads += [threading.Thread(target=silence) for _ in range(3)]
    for thread in threads:
        thread.start()
    system.wait_for_progress(20)
    for thread in threads:
        thread.join(20)
    assert sorted(refused) == [
        *("FAILED_PRECONDITION", "INVALID_ARGUMENT", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"),
    ]
    system.wait_for_actors(2, 10)


def test_a_second_actor_with_the_same_task_waits_and_disturbs_nobody(system):
    before = actor_runs(system.status())
    second = system.start("actor", "--task=1", replay=None)
    wait(lambda: "ALREADY_EXISTS" in second.log, 60, lambda: second.log)
    system.wait_for_progress(20)
    assert actor_runs(system.status()) == before
    assert second.terminate() == 0


def test_killed_learner_comes_back_and_actors_rejoin(system):
    wait(lambda: len(system.learner_checkpoints()) >= 2, 60, "checkpoints")
    before = system.status()
    system.learner.kill()
    time.sleep(2.0)
    assert all(actor.returncode is None for actor in system.actors.values())
    system.start_learner()
    after = system.wait_for_actors(2)
    assert "continuing from learner step" in system.learner.log
    # Those of the last checkpoint, which is some seconds old, or more.
    assert after.frames > 0.3 * before.frames and after.learner_step > 0.3 * before.learner_step
    system.wait_for_progress(20)
    assert set(actor_runs(system.status())) == {0, 1}


def test_learner_rests_while_all_actors_are_dead(system):
    for actor in system.actors.values():
        actor.kill()
    logged = len(system.learner.log)
    wait(
        lambda: "waits for unrolls: 0 actors with 0 of 16" in system.learner.log[logged:],
        *(30, "the learner's word that it waits"),
    )
    time.sleep(2.0)  # the status that tells of the last step
    step, cpu_secs = system.status().learner_step, system.learner.cpu_secs()
    time.sleep(3.0)
    assert system.status().learner_step == step
    assert (system.learner.cpu_secs() - cpu_secs) / 3.0 < 0.10
    for task in (0, 1):
        system.start_actor(task)
    system.wait_for_actors(2)
    system.wait_for_progress(20)


def test_sigterm_ends_every_role_within_ten_seconds(system):
    assert system.actors[0].terminate(10.0) == 0
    system.wait_for_progress(20)
    assert system.learner.terminate(10.0) == 0
    assert system.actors[1].terminate(10.0) == 0
    assert "Traceback" not in system.learner.log + system.actors[1].log
