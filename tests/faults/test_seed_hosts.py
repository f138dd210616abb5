"""SEED RL on three hosts: an actor's and then the learner's network is cut, and heals.

The tests are one story, told in order: each takes the system as the one before left it.
"""

import time

import pytest
from hosts import LOSSES, Hosts, back_within
from paths import DATA
from running_roles import SeedRoles, actor_runs, wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

_GIN = DATA / "seed_chain.gin"
_LEARNER, _FIRST, _SECOND = range(3)  # the hosts, by the role that is there


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    directory = tmp_path_factory.mktemp("hosts")
    (directory / "run").mkdir()
    with Hosts(3) as hosts:
        system = SeedRoles(directory / "run", directory, _GIN, "--insecure_network")
        system.hosts = hosts
        learner = system.addresses["learner"] = f"{hosts.address(_LEARNER)}:8000"
        system.processes = [
            system.start("learner", replay=None, on=hosts.on(_LEARNER)),
            *(
                system.start(
                    *("actor", f"--task={task}"), replay=None, learner=learner, on=hosts.on(host)
                )
                for task, host in enumerate((_FIRST, _SECOND))
            ),
        ]
        try:
            system.wait_for_actors(2)
            system.wait_for_progress(60)
            yield system
        finally:
            system.kill()


def _all_run(system):
    return all(process.returncode is None for process in system.processes)


def test_others_go_on_without_a_host_that_is_cut_off_for_30_s(system):
    before = system.status()
    system.hosts.cut(_SECOND)
    cut_secs = time.monotonic()
    system.wait_for_progress(20)
    system.wait_for_actors(1, 30)  # keepalive found out
    time.sleep(max(0.0, cut_secs + 30.0 - time.monotonic()))
    assert _all_run(system), system.last_lines()
    wait(lambda: "waits for the learner" in system.processes[2].log, 5, "the actor's word for it")
    system.hosts.heal(_SECOND)
    with back_within(15.0):
        after = system.wait_for_actors(2, 30)
    assert actor_runs(after) == actor_runs(before)  # nobody's steps are counted anew
    system.wait_for_progress(20)


def test_actors_wait_for_a_learner_that_is_cut_off_for_20_s(system):
    before = system.status()
    system.hosts.cut(_LEARNER)
    time.sleep(20.0)
    assert _all_run(system), system.last_lines()
    system.hosts.heal(_LEARNER)
    with back_within(15.0):
        after = system.wait_for_actors(2, 30)
    assert actor_runs(after) == actor_runs(before)
    last = system.wait_for_progress(20)
    assert last.frames > after.frames >= before.frames
    assert last.learner_step > before.learner_step


@pytest.mark.parametrize(("incoming", "outgoing"), LOSSES)
def test_a_host_whose_packets_are_lost(system, incoming, outgoing):
    before = system.status()
    system.hosts.lose(_SECOND, incoming, outgoing)
    time.sleep(20.0)
    system.wait_for_progress(20)  # of the other actor at least
    assert _all_run(system), system.last_lines()
    system.hosts.lose(_SECOND)
    with back_within(15.0):
        after = system.wait_for_actors(2, 30)
    assert actor_runs(after) == actor_runs(before)  # nobody's steps are counted anew
    system.wait_for_progress(20)


def test_sigterm_ends_every_role(system):
    for process in reversed(system.processes):
        assert process.terminate() == 0, process.log
