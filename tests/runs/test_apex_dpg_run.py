"""Ape-X DPG with every role as a real process, and a capacity that is full from early on."""

import numpy as np
import pytest
import tensorflow as tf
from local_runs import Run, train
from tf_agents.trajectories import time_step

_CAPACITY = 1500
_BINDINGS = (
    "experiment.solved_return = None",
    "experiment.max_learner_steps = 5000",
    "experiment.evaluation_episodes = 4",
    f"replay_table.max_size = {_CAPACITY}",
    "replay_table.min_size = 500",
    "apex.batch_size = 32",
    "apex.actor_max_frames_per_second = None",
    "noise_ladder.first_std = 0.1",
    "noise_ladder.last_std = 0.8",
    "NStepDpgAgent.noise = 'ornstein_uhlenbeck'",
)


@pytest.mark.slow  # most of a minute; what it shares with Ape-X DQN is tested there
def test_learns_from_a_full_replay_that_evicts_by_priority(tmp_path):
    ended = train("apex_dpg/pendulum.gin", tmp_path, *_BINDINGS)
    assert ended.result["learner_steps"] >= 5000
    metrics = ended.metrics
    assert ended.result["frames"] > 2 * _CAPACITY
    assert max(status.metrics.get("replay/size", 0) for status in ended.statuses) == _CAPACITY
    assert metrics["learner/bad_priorities"] == 0
    assert np.isfinite([metrics["learner/critic_loss"], metrics["learner/policy_loss"]]).all()
    config = (tmp_path / "config.gin").read_text()
    assert "replay_table.remover = 'prioritized'" in config

    policy = tf.saved_model.load(str(tmp_path / "policy"))
    observation = tf.constant(np.random.default_rng(0).normal(size=(64, 3)), tf.float32)
    action = policy.action(time_step.restart(observation, 64), ()).action
    assert action.shape == (64, 1)
    assert tf.reduce_max(tf.abs(action)) <= 2.0


@pytest.mark.slow  # its parts: test_training.py, test_sampled_batches.py
def test_an_agent_without_td_errors_is_refused_before_it_trains(tmp_path):
    bindings = "--gin_bindings=replay_table.sampler = 'prioritized'"
    run = Run("apex/sac_pendulum.gin", tmp_path, bindings)
    try:
        assert run.wait(120) == 2, run.output
    finally:
        run.kill()
    assert "SacAgent gives no td_error for each sample" in run.output
    assert "replay_table.sampler = 'uniform'" in run.output
    assert not (tmp_path / "result.json").exists()
