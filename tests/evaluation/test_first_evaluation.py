"""Which parameters an evaluator plays first."""

import contextlib
import functools
import threading
import types

import pytest
import tensorflow as tf

from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.architectures.apex import Apex
from tfdrl.environments import gym_environment
from tfdrl.evaluation import role
from tfdrl.networks.q_networks import MlpQNetwork
from tfdrl.topology import Context


class Connection:
    """To a learner that publishes its first 20 steps when it is waited for."""

    def __init__(self, stop, version):
        self.stop, self.version, self.frames_total, self.evaluations = stop, version, 0, []

    def wait_for_newer(self, period_secs):
        self.version += 20
        return True

    def report_now(self, evaluation):
        self.evaluations.append(evaluation.version)
        self.stop.set()

    def report(self, *unused):
        pass


def evaluated(monkeypatch, tmp_path, version, **settings):
    """The versions that were evaluated before the first report ended the role."""
    stop = threading.Event()
    connection = Connection(stop, version)
    monkeypatch.setattr(role, "connected", lambda *given: contextlib.nullcontext(connection))
    context = Context(role="evaluator", task=0, replicas=1, root_dir=tmp_path, stop=stop)
    role.evaluate_until_stopped(
        None,
        context,
        environment=functools.partial(gym_environment, id="tfdrl/Chain-v0"),
        agent=functools.partial(
            NStepDqnAgent,
            network=functools.partial(MlpQNetwork, layer_units=(4,)),
            optimizer=tf.keras.optimizers.Adam(1e-3),
        ),
        num_envs=1,
        episodes=1,
        seed=1,
        period_secs=0.0,
        timeout_secs=1.0,
        **settings,
    )
    return connection.evaluations


@pytest.mark.parametrize(
    ("version", "plays_untrained", "first"), [(0, False, 20), (0, True, 0), (7, False, 7)]
)
def test_what_has_not_learned_is_not_played(monkeypatch, tmp_path, version, plays_untrained, first):
    found = evaluated(monkeypatch, tmp_path, version, plays_untrained=plays_untrained)
    assert found == [first]


@pytest.mark.parametrize(
    ("limits", "plays"),
    [
        ((None, None, None), False),
        ((None, None, 30.0), False),
        ((1000, None, None), True),
        ((None, 3, 30.0), True),
        ((None, None, 0.2), True),
    ],
)
def test_a_run_that_may_end_at_once_has_an_evaluation(limits, plays):
    frames, steps, minutes = limits
    experiment = types.SimpleNamespace(
        evaluation_episodes=1,
        evaluation_policy=None,
        seed=1,
        max_frames=frames,
        max_learner_steps=steps,
        max_minutes=minutes,
    )
    values = Apex(environment=None, agent=None, table=None).evaluation(experiment)
    assert values["plays_untrained"] == plays
