"""A machine wants its place back: SIGTERM to one role after the other, and each comes back.

Each run is one story, told in order. Every role ends within ten seconds, with the exit code that
says that the run is not over; who comes back goes on from what it had, and no count goes back.
"""

import pathlib
import threading

import gin
import pytest
from running_roles import Roles, free_port, wait

from tfdrl import configuration
from tfdrl.experiment import Experiment
from tfdrl.parts.parameter_watch import ParameterWatch
from tfdrl.parts.unroll_tables import QUEUE
from tfdrl.topology import Address

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

_DATA = pathlib.Path(__file__).parent / "data"
_EXIT_CODE = 143
_START_SECS = 90.0
_BINDINGS = ["experiment.solved_return = None", "experiment.max_minutes = None"]


class System(Roles):
    """All roles of a program, and every status that its chief ever gave."""

    def __init__(self, directory, gin_file):
        flags = [f"--gin_bindings={binding}" for binding in _BINDINGS]
        root_dir = directory / "run"
        root_dir.mkdir()
        super().__init__(root_dir, directory, gin_file, *flags)
        configuration.load([str(gin_file)], _BINDINGS, tensorflow=False)
        self.program = Experiment.from_gin().architecture.program()
        gin.clear_config()
        self.listeners = {
            role.name: [f"127.0.0.1:{free_port()}" for _ in range(role.replicas)]
            for role in self.program.roles
            if role.serves
        }
        self.addresses["learner"] = self.listeners[self.program.chief][0]  # whom `status` asks
        self.running, self.statuses = {}, []
        self._stop = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        for role in self.program.roles:
            for task in range(role.replicas):
                self.begin(role.name, task)
        self._watching.start()

    def begin(self, name, task=0):
        role = self.program.role(name)
        addresses = dict.fromkeys(("learner", "replay", "listen"))
        addresses.update({other: ",".join(self.listeners[other]) for other in role.talks_to})
        if role.serves:
            addresses["listen"] = self.listeners[name][task]
        flags = [f"--task={task}", f"--stopped_exit_code={_EXIT_CODE}"]
        self.running[name, task] = self.start(name, *flags, **addresses)

    def preempt(self, name, task=0):
        """SIGTERM, and the same role again."""
        process = self.running[name, task]
        assert process.terminate(10.0) == _EXIT_CODE, process.log
        assert "Traceback" not in process.log
        self.begin(name, task)

    def kill(self):
        self._stop.set()
        self._watching.join()
        super().kill()

    def _watch(self):
        while not self._stop.wait(0.2):
            if (status := self.status()) is not None:
                self.statuses.append(status)


_RUNS = ["apex_catch", "impala_catch", "seed_r2d2_catch", "a3c_catch", "gorila_global_catch"]


@pytest.fixture(scope="module", params=_RUNS)
def system(request, tmp_path_factory):
    system = System(tmp_path_factory.mktemp(request.param), _DATA / f"{request.param}.gin")
    try:
        system.wait_for_progress(_START_SECS)
        yield system
    finally:
        system.kill()


def _has(system, name):
    return any(role.name == name for role in system.program.roles)


def test_actors(system):
    for name in ("actor", "worker", "evaluator"):
        if _has(system, name):
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
    if not _has(system, "replay"):
        pytest.skip("no replay")
    system.addresses["replay"] = system.listeners["replay"][0]

    def table():
        import reverb

        client = reverb.Client(system.addresses["replay"])
        try:
            tables = client.server_info(timeout=2)
        except (reverb.errors.DeadlineExceededError, RuntimeError):
            return None
        return tables.get(QUEUE) or next(iter(tables.values()))

    before = wait(table, 10, "the replay's answer")
    system.preempt("replay")
    after = wait(table, _START_SECS, "the replay's return")
    acknowledged = before.rate_limiter_info.insert_stats.completed
    assert after.rate_limiter_info.insert_stats.completed >= acknowledged > 0
    taken = before.rate_limiter_info.sample_stats.completed
    assert after.rate_limiter_info.sample_stats.completed >= taken
    if after.name != QUEUE:  # of a queue, unrolls may be gone to the learner meanwhile
        assert after.current_size >= before.current_size > 0
    system.wait_for_progress(_START_SECS)


def test_parameter_servers(system):
    if not _has(system, "parameter_server"):
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
