"""With one actor and no lag IMPALA is on-policy: pi / mu is 1 at every step of every update.

Actor and learner have an agent each. Between them are the real parts: the actor's loop, unrolls in
a Reverb queue, the learner's dataset and trainer, the training service and the actor's connection.
"""

import functools

import gymnasium
import numpy as np
import pytest
import reverb
import tensorflow as tf

from tfdrl.acting.exploration import collect_policy
from tfdrl.acting.learner_connection import LearnerConnection
from tfdrl.acting.loop import ActorLoop
from tfdrl.agents import optimizers
from tfdrl.agents.v_trace import VTraceAgent
from tfdrl.environments.registry import gym_environment
from tfdrl.experience.unroll_assembler import UnrollAssembler
from tfdrl.experience.unroll_batches import train_arguments
from tfdrl.learning.publisher import Publisher
from tfdrl.learning.trainer import Trainer
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.replay import unroll_tables
from tfdrl.replay.unroll_dataset import unroll_dataset
from tfdrl.replay.unroll_writer import UnrollWriter
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.runtime import agent_factory
from tfdrl.topology import Address, Context
from tfdrl.types import FIRST, LAST

NUM_ENVS, UNROLL_STEPS, UPDATES = 3, 6, 24
#: Episodes that are cut after some steps: CartPole's poles fall a little before or after that, and
#: the rooms of Doors, which raises at an action that its mask forbids, end before.
EPISODE_STEPS = {"CartPole": 13, "Pendulum": 10, "Doors": 10}


@pytest.fixture(scope="module", autouse=True)
def short_episodes():
    for name, entry_point in (
        ("CartPole", "gymnasium.envs.classic_control:CartPoleEnv"),
        ("Pendulum", "gymnasium.envs.classic_control:PendulumEnv"),
        ("Doors", "tfdrl.environments.toys:Doors"),
    ):
        gymnasium.register(f"short/{name}-v0", entry_point, max_episode_steps=EPISODE_STEPS[name])
    yield
    for name in EPISODE_STEPS:
        del gymnasium.registry[f"short/{name}-v0"]


def make_agent(environment, lstm_units, is_told, seed):
    agent_factory.set_seed(seed)

    def factory(time_step_spec, action_spec, **arguments):
        return VTraceAgent(
            *(time_step_spec, action_spec),
            network=functools.partial(
                MlpActorCriticNetwork, layer_units=(16,), lstm_units=lstm_units
            ),
            optimizer=optimizers.adam(learning_rate=0.02),
            reduction="mean",
            last_action_and_reward=is_told,
            **arguments,
        )

    return agent_factory.make_agent(factory, environment)


class Loop:
    """One actor and one learner, taking turns."""

    def __init__(self, tmp_path, name, lstm_units, is_told, lag_steps):
        more = {"kwargs": {"rooms": 3}, "action_mask": "action_mask"} if name == "Doors" else {}
        self.environment = gym_environment(NUM_ENVS, True, 5, id=f"short/{name}-v0", **more)
        self.learner = make_agent(self.environment, lstm_units, is_told, seed=11)
        self.trainer = Trainer(self.learner, tf.distribute.get_strategy(), max_bad_steps=1)
        self.service = TrainingServer(Address("127.0.0.1", 0), "test")
        self.publisher = Publisher(self.service, self.learner, 1, lag_steps)
        self.publisher.publish(0)
        # Other first weights: what it acts by must come from the learner.
        actor = make_agent(self.environment, lstm_units, is_told, seed=12)
        policy = collect_policy(actor, [0.0] * NUM_ENVS, seed=3)
        self.context = Context("actor", 0, 1, tmp_path, experiment="test")
        variables = actor.collect_policy.variables()
        self.connection = LearnerConnection(self.service.address, self.context, variables, "", 20.0)
        self.connection.start()
        self.acting = ActorLoop(self.environment, policy, self.connection, self.context)
        self.steps = self.acting.steps()
        self.assembler = UnrollAssembler(NUM_ENVS, UNROLL_STEPS)
        self.assembler.begin(self.acting.state)
        self._connect(unroll_tables.unroll_signature(self.environment, policy, UNROLL_STEPS))

    def _connect(self, signature):
        self.server = reverb.Server(unroll_tables.unroll_tables(signature, NUM_ENVS, 0), port=None)
        address = Address("localhost", self.server.port)
        self.writer = UnrollWriter(address, (unroll_tables.QUEUE,), 20.0, self.context.stop)
        self.batches = iter(unroll_dataset(address, signature, NUM_ENVS))

    def act(self):
        """Puts one unroll of each environment into the queue."""
        for now, action, then, info in self.steps:
            unrolls = self.assembler.add(now, action, then, info, self.connection.version)
            if unrolls is not None:
                self.writer.write(unrolls)
                return

    def learn(self):
        """Trains on what the queue holds; returns (info, batch)."""
        batch = next(self.batches)
        _, info = self.trainer.train_once(**train_arguments(self.learner, batch))
        self.publisher.publish_if_due(int(self.learner.train_step_counter.numpy()))
        return info, batch

    def pull(self):
        self.connection.pull()
        self.assembler.begin(self.acting.state)

    def close(self):
        self.context.stop.set()
        self.writer.close()
        self.connection.close()
        self.service.close()
        self.server.stop()
        self.environment.close()


@pytest.fixture
def loop_of(tmp_path):
    loops = []

    def start(*args):
        loops.append(Loop(tmp_path, *args))
        return loops[-1]

    yield start
    for loop in loops:
        loop.close()


def run(loop):
    """log_rho (mean of absolute values), versions [B] and step types [B, T+1] of each update."""
    updates, loop.ends = [], []
    for _ in range(UPDATES):
        loop.act()
        info, batch = loop.learn()
        loop.pull()
        experience = batch.experience
        updates.append((info["log_rho"], batch.version.numpy(), experience.step_type.numpy()))
        is_end = (experience.step_type[:, 1:] == LAST).numpy()
        loop.ends.extend(experience.discount[:, :-1].numpy()[is_end])
    return zip(*updates)


KINDS = [
    ("CartPole", None, False),
    ("CartPole", 8, True),
    ("Pendulum", 8, True),
    ("Doors", 8, True),
]


@pytest.mark.parametrize("kind", KINDS, ids=["feed-forward", "recurrent", "continuous", "masked"])
def test_without_lag_every_ratio_is_1(loop_of, kind):
    loop = loop_of(*kind, 0)
    before = [variable.numpy() for variable in loop.learner.collect_policy.variables()]
    log_rho, versions, step_types = run(loop)
    # A mean of absolute values bounds the largest of them.
    assert max(log_rho) * NUM_ENVS * UNROLL_STEPS < 1e-4, log_rho
    np.testing.assert_array_equal(versions, np.arange(UPDATES)[:, None].repeat(NUM_ENVS, 1))
    # It proves something only if the policy changed, and if episodes began and ended everywhere.
    pairs = zip(before, loop.learner.collect_policy.variables())
    assert max(np.abs(old - new.numpy()).max() for old, new in pairs) > 0.1
    inside = np.stack(step_types)[..., 1:-1]
    assert (inside == LAST).any() and (inside == FIRST).any()
    assert 1.0 in loop.ends or kind[0] == "Doors"
    assert 0.0 in loop.ends or kind[0] == "Pendulum"
    if kind[0] == "Pendulum":  # 11 steps: they begin and end at every place in unrolls of 6
        for place in (0, -1):
            assert {FIRST, LAST} <= {
                int(k) for step_type in step_types for k in step_type[:, place]
            }


@pytest.mark.parametrize("kind", KINDS[:2], ids=["feed-forward", "recurrent"])
def test_with_a_forced_lag_they_are_not(loop_of, kind):
    """By the parameters of 4 learner steps ago; the first update has nothing older than itself."""
    loop = loop_of(*kind, 4)
    log_rho, versions, _ = run(loop)
    expected = np.maximum(np.arange(UPDATES) - 4, 0)
    np.testing.assert_array_equal(versions, expected[:, None].repeat(NUM_ENVS, 1))
    assert log_rho[0] < 1e-5 and min(log_rho[4:]) > 1e-3, log_rho


def test_parameters_change_between_unrolls_only(loop_of):
    """Published or not, an actor acts by those that it pulled before the unroll."""
    loop = loop_of(*KINDS[0], 0)
    loop.act()
    info, _ = loop.learn()
    loop.act()  # without a pull in between
    stale, batch = loop.learn()
    assert info["log_rho"] < 1e-5 < 1e-3 < stale["log_rho"]
    assert set(batch.version.numpy()) == {0} and loop.connection.version == 0
    loop.pull()
    assert loop.connection.version == 2
