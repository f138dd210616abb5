"""kill -9 of one role after the other, where no other story has it: R2D2, of both kinds.

The tests are one story for each architecture, told in order.
"""

import pytest
from paths import DATA
from running_roles import actor_runs, wait
from whole_programs import WholeProgram

from tfdrl.replay.server import complete_checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

_START_SECS = 90.0


@pytest.fixture(scope="module", params=["seed_r2d2_catch", "r2d2_catch"])
def system(request, tmp_path_factory):
    often = f"{request.param.split('_')[0]}.replay_checkpoint_period_secs = 5.0"
    directory = tmp_path_factory.mktemp(request.param)
    system = WholeProgram(directory, DATA / f"{request.param}.gin", often)
    try:
        system.wait_for_progress(_START_SECS)
        yield system
    finally:
        system.kill()


def test_others_go_on_without_a_killed_actor(system):
    system.running["actor", 0].kill()
    before = actor_runs(system.wait_for_progress(30))[0]
    system.begin("actor", 0)
    system.wait_for(
        lambda now: actor_runs(now).get(0, before) != before,
        *(_START_SECS, "another run of actor 0"),
    )
    system.wait_for_progress(30)


def test_killed_replay_comes_back_with_what_its_checkpoint_had(system):
    directory = system.root_dir / "replay"
    before = wait(system.replay_table, 10, "the replay's answer")
    there = {path.name for path in complete_checkpoints(directory)}
    wait(  # the first may have been begun before
        lambda: len({path.name for path in complete_checkpoints(directory)} - there) > 1,
        *(60, "two checkpoints after that"),
    )
    system.running["replay", 0].kill()
    system.begin("replay", 0)
    after = wait(system.replay_table, _START_SECS, "the replay's return")
    assert after.current_size >= before.current_size > 0
    counts = [table.rate_limiter_info for table in (before, after)]
    assert counts[1].insert_stats.completed >= counts[0].insert_stats.completed > 0
    assert counts[1].sample_stats.completed >= counts[0].sample_stats.completed
    system.wait_for_progress(40)


def test_killed_learner_continues_from_its_checkpoint(system):
    wait(system.learner_checkpoints, 60, "a checkpoint of the learner")
    system.running["learner", 0].kill()
    step = int(system.learner_checkpoints()[-1].name[11:])
    system.begin("learner", 0)
    first = system.wait_for(lambda now: True, _START_SECS, "the learner's return")
    assert first.learner_step >= step > 0
    assert f"continuing from learner step {step}" in system.running["learner", 0].log
    system.wait_for_progress(_START_SECS)
