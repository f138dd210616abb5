"""A run that is killed and started again, again and again, at any moment: no count goes back."""

import json
import os
import random
import time

import numpy as np
import pytest
import tensorflow as tf
from running_roles import APEX, Roles, wait

from tfdrl.replay.server import complete_checkpoints
from tfdrl.replay.transition_table import TABLE

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
_RESTARTS = int(os.environ.get("TFDRL_TEST_RESTARTS", 50))
_START_SECS = 90.0
_LONGEST_LIFE_SECS = 3.0
_ROLES = ("replay", "learner", "actor")


def _saved(roles):
    """Of the learner's newest checkpoint: learner step, frames, items inserted."""
    if not (checkpoints := roles.learner_checkpoints()):
        return np.zeros(3, int)
    reader = tf.train.load_checkpoint(str(checkpoints[-1]))
    (name,) = (n for n in reader.get_variable_to_shape_map() if n.startswith("counters"))
    state = json.loads(reader.get_tensor(name))["service"]
    runs = [[frames, inserted] for *_, frames, _, inserted, _ in state["runs"]]
    step = int(checkpoints[-1].name[11:])
    return np.array([step, *np.sum([state["forgotten"][:2], *runs], axis=0)])


def _replay_checkpoints(roles):
    return {path.name for path in complete_checkpoints(roles.root_dir / "replay")}


def _inserted(roles):
    """How many items were ever put into the replay, as its server says; None: no answer."""
    table = roles.table(TABLE)
    return table and table.rate_limiter_info.insert_stats.completed


def test_no_count_goes_back_however_often_and_whenever_roles_are_killed(tmp_path):
    """One, two or all of Ape-X's roles at a time; what was killed starts again at once."""
    (tmp_path / "run").mkdir()
    roles = Roles(tmp_path / "run", tmp_path, APEX, "--gin_bindings=apex.actors = 1")
    moments, saved = random.Random(1), _saved(roles)
    least = inserted = 0  # what a replay that is started must have, and what one had last
    there = set()  # the checkpoints of then
    try:
        running = {name: roles.start(name) for name in _ROLES}
        wait(roles.learner_checkpoints, _START_SECS, "the first checkpoint")
        for restart in range(_RESTARTS):
            time.sleep(moments.uniform(0.0, _LONGEST_LIFE_SECS))
            killed = moments.sample(_ROLES, moments.choice([1, 1, 2, 3]))
            for name in killed:
                running[name].kill()
            before, saved, now_there = saved, _saved(roles), _replay_checkpoints(roles)
            if len(now_there - there) > 1:  # the first may have been begun before
                least = inserted
            assert np.all(saved >= before), (restart, killed, before, saved)
            running |= {name: roles.start(name) for name in killed}
            first = roles.wait_for(lambda status: True, _START_SECS, "the learner's answer")
            assert first.learner_step >= saved[0] and first.frames >= saved[1], (restart, killed)
            if "replay" in killed:
                inserted = wait(lambda: _inserted(roles), _START_SECS, "the replay's answer")
                there = now_there
                assert inserted >= least, (restart, killed)
        roles.wait_for_progress(_START_SECS)
        assert np.all(_saved(roles) > 0)
    finally:
        roles.kill()
