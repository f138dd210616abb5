"""Ape-X that holds a replay ratio, and what befalls it: whatever dies, nobody waits for ever.

The tests are one story, told in order: each takes the system as the one before left it.
"""

import shutil
import time

import pytest
from running_roles import APEX, Roles, wait

pytestmark = pytest.mark.slow
_RATIO = 4.0
_BINDINGS = (
    f"apex.replay_ratio = {_RATIO}",
    "replay_table.samples_per_insert = None",
    "replay_table.error_buffer = None",
    "apex.actor_max_frames_per_second = None",
)


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ratio")
    (directory / "run").mkdir()
    flags = [f"--gin_bindings={binding}" for binding in _BINDINGS]
    system = Roles(directory / "run", directory, APEX, *flags)
    try:
        system.replay = system.start("replay")
        system.learner = system.start("learner")
        system.actors = [system.start("actor", f"--task={task}") for task in (0, 1)]
        system.wait_for(lambda status: status.learner_step > 100, 60, "the first 100 steps")
        yield system
    finally:
        system.kill()


def _held(system, limit_secs=30):
    """Waits until the ratio is held within what either may be ahead."""
    return system.wait_for(
        lambda now: abs(now.metrics.get("learner/replay_ratio", 0.0) / _RATIO - 1) < 0.1,
        *(limit_secs, "the ratio"),
    )


def test_the_ratio_is_held(system):
    status = _held(system)
    assert status.metrics["learner/replay_ratio_set"] == _RATIO
    actors = [role for role in status.roles if role.role == "actor" and role.metrics]
    waited = [role.metrics["actor/ratio_waiting_share"] for role in actors]
    waited.append(status.metrics["learner/ratio_waiting_share"])
    assert max(waited) > 0.01, "somebody is the faster one"


def test_a_learner_without_actors_says_so_and_goes_on_with_them(system):
    for actor in system.actors:
        actor.kill()
    wait(lambda: "the learner waits for actors" in system.learner.log, 30, "its word")
    before = system.status()
    time.sleep(2.0)
    assert system.status().learner_step == before.learner_step
    system.actors = [system.start("actor", f"--task={task}") for task in (0, 1)]
    system.wait_for_progress(40, steps=200)


def test_a_learner_from_an_older_checkpoint_catches_up(system):
    before = system.status()
    system.learner.kill()
    time.sleep(2.0)  # the actors come to the end of what they may
    inserted = system.table("transitions").rate_limiter_info.insert_stats.completed
    time.sleep(2.0)
    table = system.table("transitions")
    assert table.rate_limiter_info.insert_stats.completed - inserted <= 100
    system.learner = system.start("learner")
    system.wait_for(
        lambda now: now.learner_step > before.learner_step + 100, 40, "the restarted learner"
    )
    _held(system)


def test_a_replay_that_comes_back_empty_is_filled(system):
    before = system.status()
    system.replay.kill()
    shutil.rmtree(system.root_dir / "replay")
    system.replay = system.start("replay")
    system.wait_for(
        lambda now: now.learner_step > before.learner_step + 200, 60, "steps on the new replay"
    )
    assert system.learner.returncode is None
    assert all(actor.returncode is None for actor in system.actors)
    _held(system)
