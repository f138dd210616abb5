"""A one-process run that is started again goes on where it was."""

import dataclasses
import functools
import json
import socket

import gin
import numpy as np
import pytest

import tfdrl.agents.normalization  # noqa: F401  (gin knows it then)
from tfdrl.acting.exploration import AnnealedEpsilon
from tfdrl.agents import optimizers
from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.architectures import dqn
from tfdrl.environments import gym_environment
from tfdrl.evaluation.policies import acting_policy
from tfdrl.experience.uniform_replay import UniformReplay
from tfdrl.experiment import Experiment
from tfdrl.learning.one_process import OneProcess
from tfdrl.networks.q_networks import MlpQNetwork
from tfdrl.topology import Address, Context


def make_agent(*specs, **more):
    return NStepDqnAgent(*specs, network=MlpQNetwork, optimizer=optimizers.sgd(), **more)


CONFIG = dqn.Dqn(
    environment=functools.partial(gym_environment, id="tfdrl/Chain-v0"),
    agent=make_agent,
    environments=8,
    min_replay_steps=16,
    replay_capacity_steps=1000,
    epsilon_end=0.25,
    epsilon_decay_steps=100,
)


class Recorded:
    """What the real loop does: the epsilon and the agent steps before each step; it stops it."""

    def __init__(self, monkeypatch):
        self.epsilons, self.steps, self.stored = [], [], 0
        self.stop_after, self.agent, self.sums_at_start = 0, None, None
        update, add = AnnealedEpsilon.update, UniformReplay.add
        tell, begin = OneProcess.evaluate_and_checkpoint_if_due, OneProcess.__init__

        def recorded_begin(run, *arguments, **more):
            begin(run, *arguments, **more)
            self.agent = run.agent
            self.sums_at_start = self.sums()

        def recorded_update(epsilon, step):
            update(epsilon, step)
            self.steps.append(step + CONFIG.min_replay_steps)  # annealing begins with learning
            value = getattr(epsilon._policy, "_epsilon", None)
            self.epsilons.append(None if value is None else value.numpy())

        def recorded_add(replay, *step):
            add(replay, *step)
            self.stored = replay.size_steps

        def stopping(run):
            tell(run)
            if len(self.steps) >= self.stop_after:
                run._context.stop.set()

        monkeypatch.setattr(AnnealedEpsilon, "update", recorded_update)
        monkeypatch.setattr(UniformReplay, "add", recorded_add)
        monkeypatch.setattr(OneProcess, "__init__", recorded_begin)
        monkeypatch.setattr(OneProcess, "evaluate_and_checkpoint_if_due", stopping)

    def sums(self):
        """Of the running statistics of observations, if there are any."""
        statistics = getattr(self.agent, "statistics", None)
        return None if statistics is None else statistics.sums[0].numpy()


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts (again) in one directory, for so many steps of the environments."""

    def run(vector_steps, config=CONFIG, **limits):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        with monkeypatch.context() as patch:
            recorded = Recorded(patch)
            recorded.stop_after = vector_steps
            context = Context("learner", 0, 1, tmp_path, Address("127.0.0.1", port))
            dqn.learner(Experiment(config, **limits), context)
        return recorded

    return run


def test_exploration_is_annealed_and_stays_so_after_a_restart(start):
    first = start(40)
    assert len(first.steps) == 40 and first.steps[0] == 0
    for steps, epsilon in zip(first.steps, first.epsilons):
        expected = max(1 - 0.75 * max(steps - 16, 0) / 100, 0.25)
        np.testing.assert_allclose(epsilon, np.full(8, expected), rtol=1e-6)
    assert first.stored == 320 and 250 < first.steps[-1] < 320  # a reset is stored, and is no step
    second = start(1)
    assert first.steps[-1] < second.steps[0] <= first.steps[-1] + 8
    # The step at which the episodes were cut off is stored, too.
    assert second.stored == 320 + 8 + 8
    np.testing.assert_allclose(second.epsilons[0], np.full(8, 0.25))


def test_a_run_that_is_started_again_and_is_over_at_once_keeps_its_checkpoint(start, tmp_path):
    first = start(40)
    again = start(1, max_learner_steps=1)
    assert not again.steps
    assert json.loads((tmp_path / "result.json").read_text())["reason"].startswith("reached")
    third = start(1)
    assert first.steps[-1] < third.steps[0] <= first.steps[-1] + 8
    assert third.stored == 320 + 8 + 8


def test_foreign_files_beside_the_replay_are_left_alone_and_half_a_replay_is_not(start, tmp_path):
    for name in ("steps-x", "steps-7b", "steps-5.new"):
        (tmp_path / "replay" / name).mkdir(parents=True)
    start(40, dataclasses.replace(CONFIG, checkpoint_period_steps=64))
    names = sorted(path.name for path in (tmp_path / "replay").iterdir())
    assert {"steps-x", "steps-7b"} < set(names) and len(names) == 5 and "steps-5.new" not in names


def test_evaluations_play_the_policy_that_gin_names(start, tmp_path):
    asked = []

    def policy(agent, num_envs, seed):
        asked.append(num_envs)
        return acting_policy(agent, num_envs, seed, exploration=1.0)

    config = dataclasses.replace(CONFIG, evaluation_period_steps=64)
    start(20, config, evaluation_episodes=3, evaluation_policy=policy)
    assert json.loads((tmp_path / "result.json").read_text())["evaluation"]["episodes"] == 3
    assert asked == [3]


def test_an_evaluation_does_not_depend_on_those_before_it(start, monkeypatch):
    """So those of a run that is started again are those of one that goes on."""
    evaluate, states = OneProcess._evaluate, []

    def evaluate_twice(run):
        for _ in range(2):
            evaluate(run)
            states.append(run._evaluated.generator.state.numpy().tolist())

    monkeypatch.setattr(OneProcess, "_evaluate", evaluate_twice)
    config = dataclasses.replace(CONFIG, evaluation_period_steps=64)
    policy = functools.partial(acting_policy, exploration=1.0)
    start(20, config, evaluation_episodes=3, evaluation_policy=policy)
    assert len(states) >= 4
    for first, second, third in zip(states[::2], states[1::2], states[2::2]):
        assert first == second != third


def test_learning_starts_where_the_capacity_is_no_multiple_of_the_environments(start, tmp_path):
    start(20, dataclasses.replace(CONFIG, min_replay_steps=100, replay_capacity_steps=100))
    assert json.loads((tmp_path / "result.json").read_text())["learner_steps"] > 0


def test_running_statistics_go_on_after_a_restart_and_only_learning_adds_to_them(start, tmp_path):
    config = dataclasses.replace(CONFIG, update_period_steps=32, evaluation_period_steps=64)
    gin.bind_parameter("normalization.observations", True)
    try:
        first = start(20, config, evaluation_episodes=2)
        result = json.loads((tmp_path / "result.json").read_text())
        assert result["evaluation"] and result["learner_steps"] >= 2
        assert first.sums()[0] == 32 * result["learner_steps"]
        second = start(1, config)
        np.testing.assert_array_equal(second.sums_at_start, first.sums())
    finally:
        gin.clear_config()
