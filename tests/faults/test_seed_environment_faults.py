"""One SEED system under mutual TLS, whose environments and whose network fail.

The tests are one story, told in order: each takes the system as the one before left it.
"""

import socket
import threading
import time

import certificates
import pytest
from paths import DATA
from running_roles import SeedRoles, actor_runs, free_port, wait

from tfdrl.rpc.security import Security

_GIN = DATA / "seed_chain.gin"


class Wire:
    """A network cable to the learner: forwards bytes, or loses one direction, or both."""

    def __init__(self, target):
        self.port = free_port()
        self.passes_up = self.passes_down = True
        self._target = target.split(":")
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            client, _ = self._listener.accept()
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client):
        while not (self.passes_up and self.passes_down):
            time.sleep(0.1)
        try:
            server = socket.create_connection((self._target[0], int(self._target[1])))
        except OSError:
            client.close()
            return
        pairs = [(client, server, "passes_up"), (server, client, "passes_down")]
        for source, sink, name in pairs:
            threading.Thread(target=self._forward, args=(source, sink, name), daemon=True).start()

    def _forward(self, source, sink, name):
        try:
            while data := source.recv(1 << 16):
                while not getattr(self, name):
                    time.sleep(0.1)
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            end.close()


class System(SeedRoles):
    """Learner and two actors; actor 1 reaches the learner by a wire of its own."""

    def __init__(self, root_dir, logs, files):
        security = Security.from_files(
            *(str(files / name) for name in ("actor.pem", "actor.key", "ours.pem", "token"))
        )
        super().__init__(root_dir, logs, _GIN, security=security)
        self._files = files
        self.wire = Wire(self.addresses["learner"])
        self.learner, self.actors = None, {}

    def start_learner(self):
        flags = certificates.flags(self._files, "learner")
        self.learner = self.start("learner", *flags, replay=None)

    def start_actor(self, task):
        address = f"127.0.0.1:{self.wire.port}" if task else self.addresses["learner"]
        flags = [f"--task={task}", *certificates.flags(self._files, "actor")]
        self.actors[task] = self.start("actor", *flags, replay=None, learner=address)

    def actor_logs(self):
        return "".join(actor.log for actor in self.actors.values())


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    directory = tmp_path_factory.mktemp("seed_tls")
    (directory / "run").mkdir()
    files = tmp_path_factory.mktemp("tls")
    certificates.make_all(files)
    system = System(directory / "run", directory, files)
    try:
        system.start_learner()
        system.start_actor(0)
        system.start_actor(1)
        system.wait_for_actors(2)
        system.wait_for_progress(60)
        yield system
    finally:
        system.kill()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raise once", "RuntimeError: the emulator has a bad day"),
        ("hang once", "TimeoutError: a step took longer than 2 s"),
    ],
)
def test_environment_that_fails_is_rebuilt_and_its_run_begins_anew(system, fault, words):
    before = actor_runs(system.wait_for(lambda now: len(actor_runs(now)) == 2, 20, "two runs"))
    system.faults.write_text(fault)
    # The others' batches do not wait for the one that hangs.
    system.wait_for_progress(20)
    after = actor_runs(system.wait_for(lambda now: actor_runs(now) != before, 30, "a new run"))
    assert len(set(before.values()) & set(after.values())) >= 1
    wait(lambda: words in system.actor_logs(), 10, "the reason in a log")
    system.wait_for_actors(2, 20)
    system.wait_for_progress(20)


@pytest.mark.parametrize("direction", ["both", pytest.param("down", marks=pytest.mark.slow)])
def test_network_cut_is_noticed_and_healed_with_every_step_counted_once(system, direction):
    before = actor_runs(system.status())
    system.wire.passes_up = direction == "down"
    system.wire.passes_down = direction == "up"
    time.sleep(1.0)
    system.wait_for_progress(20)  # of the other actor
    system.wait_for_actors(1, 30)  # keepalive found out
    wait(
        lambda: "waits for the learner" in system.actors[1].log,
        *(40, lambda: system.actors[1].log),
    )
    system.wire.passes_up = system.wire.passes_down = True
    healed_secs = time.monotonic()
    after = system.wait_for_actors(2, 30)
    assert time.monotonic() - healed_secs < 10
    assert actor_runs(after) == before  # nobody's steps are counted anew
    assert all(actor.returncode is None for actor in system.actors.values())
    system.wait_for_progress(20)
    system.actors[1].log_path.write_text("")  # for the next wait


def test_single_loss_that_is_not_finite_is_skipped(system):
    system.faults.write_text("overflow once")
    wait(lambda: not system.faults.exists(), 10, "the fault")
    system.wait_for(lambda now: now.metrics.get("learner/bad_steps", 0) >= 1, 30, "a skipped step")
    system.wait_for_progress(20)


@pytest.mark.parametrize(
    ("fault", "words"),
    [("nan", "Chain-v0 returned nan in the reward"), ("raise", "the emulator has a bad day")],
)
def test_environments_that_fail_again_and_again_end_their_actor_with_1(system, fault, words):
    system.faults.write_text(fault)
    for actor in system.actors.values():
        assert actor.exit_code(30) == 1
        assert "failed again after it was rebuilt 3 times" in actor.log and words in actor.log
    system.faults.unlink()
    assert system.learner.returncode is None
    for task in (0, 1):
        system.start_actor(task)
    system.wait_for_actors(2)
    system.wait_for_progress(20)


def test_losses_that_stay_not_finite_end_the_run_with_3_and_a_good_checkpoint(system):
    assert len(system.learner_checkpoints()) >= 1
    system.faults.write_text("overflow")
    assert system.learner.exit_code(30) == 3
    system.faults.unlink()
    for actor in system.actors.values():
        assert actor.exit_code(10) == 0  # it was told that the run is over
    system.start_learner()
    for task in (0, 1):
        system.start_actor(task)
    system.wait_for_actors(2)
    assert "continuing from learner step" in system.learner.log
    system.wait_for_progress(20)


def test_port_in_use_and_a_second_learner_of_the_same_run(system):
    second = system.start("learner", replay=None)
    assert second.exit_code(60) == 2
    assert "learner" in second.log and str(system.learner.pid) in second.log
    elsewhere = system.root_dir.with_name("elsewhere")
    elsewhere.mkdir()
    third = system.start("learner", replay=None, root_dir=elsewhere)
    assert third.exit_code(60) == 2
    port = system.addresses["learner"].split(":")[1]
    assert f"port {port} is in use" in third.log
