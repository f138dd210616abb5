"""Ape-X and IMPALA on three hosts: an actor's and then the replay's network is cut, and heals.

The tests are one story, told in order: each takes the system as the one before left it.
"""

import json
import pathlib
import signal
import time
from typing import NamedTuple

import pytest
import tensorflow as tf
from hosts import LOSSES, Hosts, back_within
from running_roles import APEX, IMPALA, Roles, actor_runs, wait

from tfdrl.replay.transition_table import TABLE
from tfdrl.replay.unroll_tables import QUEUE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

_REPLAY, _LEARNER, _ACTOR = range(3)  # the hosts, by the role that this is about
_FRAMES_PER_SECOND = 500.0  # of each of two actors, at most: as the gin file says


class Kind(NamedTuple):
    """What is counted: its metric, its table, how many are 200 frames or so, and under way."""

    gin_file: pathlib.Path
    metric: str
    table: str
    some: int
    unacknowledged: int


_KINDS = {
    "apex": Kind(APEX, "actor/transitions", TABLE, 200, 48),
    "impala": Kind(IMPALA, "actor/unrolls", QUEUE, 20, 8),
}


class System(Roles):
    """Replay, learner with an actor, and an actor alone, on three hosts."""

    def __init__(self, root_dir, logs, hosts: Hosts, kind: Kind):
        super().__init__(root_dir, logs, kind.gin_file, "--insecure_network")
        self.kind = kind
        self.addresses = {
            "replay": f"{hosts.address(_REPLAY)}:8000",
            "learner": f"{hosts.address(_LEARNER)}:8001",
        }
        self.hosts, self.start_secs = hosts, time.monotonic()
        self.processes = [
            self.start("replay", on=hosts.on(_REPLAY)),
            self.start("learner", on=hosts.on(_LEARNER)),
            self.start("actor", "--task=0", on=hosts.on(_LEARNER)),
            self.start("actor", "--task=1", on=hosts.on(_ACTOR)),
        ]

    def items_of(self, status, task: int) -> float:
        """How many transitions, or unrolls, an actor says that it wrote."""
        return next(
            role.metrics[self.kind.metric]
            for role in status.roles
            if (role.role, role.task) == ("actor", task)
        )

    def wait_for_items(self, task: int) -> None:
        """Waits until the replay took more of an actor's items than can be under way."""
        begin = self.items_of(self.wait_for_report("actor", task, 30), task)
        self.wait_for(
            lambda now: self.items_of(now, task) > begin + self.kind.some,
            *(30, f"items of actor {task}"),
        )

    def all_run(self) -> bool:
        return all(process.returncode is None for process in self.processes)


@pytest.fixture(scope="module", params=list(_KINDS))
def system(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("hosts")
    with Hosts(3) as hosts:
        system = System(directory / "run", directory, hosts, _KINDS[request.param])
        try:
            system.wait_for(
                lambda now: now.learner_step > 100 and len(actor_runs(now)) == 2,
                *(150, "100 steps with two actors"),
            )
            yield system
        finally:
            system.kill()


def test_others_go_on_without_a_host_that_is_cut_off_for_30_s(system):
    before = system.status()
    system.hosts.cut(_ACTOR)
    cut_secs = time.monotonic()
    time.sleep(3.0)  # what was on its way
    during = system.wait_for_progress(20)
    time.sleep(max(0.0, cut_secs + 30.0 - time.monotonic()))
    assert system.items_of(system.status(), 1) <= system.items_of(during, 1)
    assert system.all_run(), system.last_lines()
    system.hosts.heal(_ACTOR)
    with back_within(12.0):
        system.wait_for_items(1)
    assert actor_runs(system.status()) == actor_runs(before)
    assert system.all_run(), system.last_lines()


def test_all_wait_for_a_replay_that_is_cut_off_for_20_s_and_go_on(system):
    before = system.status()
    system.hosts.cut(_REPLAY)
    time.sleep(20.0)
    assert system.all_run(), system.last_lines()
    waiting = system.status()  # who waits for another still answers
    assert waiting.learner_step - before.learner_step < 1000  # the batches that it had
    system.hosts.heal(_REPLAY)
    with back_within(12.0):
        for task in (0, 1):
            system.wait_for_items(task)
        after = system.wait_for_progress(30)
    assert actor_runs(after) == actor_runs(before)
    assert system.all_run(), system.last_lines()


@pytest.mark.parametrize(("incoming", "outgoing"), LOSSES)
def test_a_host_whose_packets_are_lost(system, incoming, outgoing):
    before = system.status()
    system.hosts.lose(_ACTOR, incoming, outgoing)
    time.sleep(3.0)  # what was on its way
    during = system.wait_for_progress(20)
    time.sleep(20.0)
    if incoming < 1.0 and outgoing < 1.0:  # slow, but alive
        assert system.items_of(system.status(), 1) > system.items_of(during, 1)
    system.hosts.lose(_ACTOR)
    with back_within(12.0):
        system.wait_for_items(1)
    assert actor_runs(system.status()) == actor_runs(before)
    assert system.all_run(), system.last_lines()


def test_nothing_was_counted_twice(system):
    inserted = system.table(system.kind.table).rate_limiter_info.insert_stats.completed
    secs = time.monotonic() - system.start_secs
    for process in system.processes[2:]:
        process.signal(signal.SIGTERM)
    for process in system.processes[2:]:
        assert process.exit_code(10.0) == 0, process.log
    time.sleep(1.0)
    status = system.status()
    assert status.frames <= 2 * _FRAMES_PER_SECOND * secs + 200
    acted = sum(system.items_of(status, task) for task in (0, 1))
    # Of what was not acknowledged when a connection was lost, Reverb's writer sends all again.
    again = (inserted - acted) / system.kind.unacknowledged
    assert again <= 5 and acted <= status.frames  # at most once a test
    # And what was acknowledged is there: nothing of 30 s of acting was lost either.
    assert system.table(system.kind.table).rate_limiter_info.insert_stats.completed > 0.9 * acted
    wait(lambda: system.learner_checkpoints(), 20, "a checkpoint")
    assert system.processes[1].terminate() == 0
    reader = tf.train.load_checkpoint(str(system.learner_checkpoints()[-1]))
    (name,) = (n for n in reader.get_variable_to_shape_map() if n.startswith("counters"))
    runs = json.loads(reader.get_tensor(name))["service"]["runs"]
    assert len(runs) == 2 and sum(run[3] for run in runs) == status.frames
    assert system.processes[0].terminate() == 0
