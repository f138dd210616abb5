"""Ape-X with one actor, one environment and no lag is DQN, bit for bit.

Ape-X's side goes through its real parts: n-step transitions written to a Reverb server, samples
read back through the learner's dataset, parameters published by the training service and pulled by
the actor's connection. DQN's side has its own replay in memory. Which transitions are drawn is
random in Reverb, so DQN's replay is asked for the same ones; everything else must agree by itself.
"""

import numpy as np
import pytest
import reverb
import tensorflow as tf

from tfdrl.acting.exploration import collect_policy
from tfdrl.acting.learner_connection import LearnerConnection
from tfdrl.agents import optimizers
from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.environments.registry import gym_environment
from tfdrl.experience.transitions import TransitionAssembler, to_trajectory
from tfdrl.experience.uniform_replay import UniformReplay
from tfdrl.learning.trainer import Trainer
from tfdrl.networks.q_networks import MlpQNetwork
from tfdrl.replay import transition_table
from tfdrl.replay.transition_dataset import sample_dataset
from tfdrl.replay.transition_writer import TransitionWriter
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.runtime import agent_factory
from tfdrl.runtime.compiled import act_function
from tfdrl.topology import Address, Context

N_STEP, GAMMA, BATCH, STEPS, WARM_UP_STEPS, PERIOD_STEPS = 3, 0.99, 8, 120, 40, 4


#: The second raises at a forbidden action, and its mask decides what is bootstrapped from.
ENVIRONMENTS = {
    "CartPole": {"id": "CartPole-v1"},
    "Doors": {"id": "tfdrl/Doors-v0", "action_mask": "action_mask"},
}


def make_environment(name):
    return gym_environment(num_envs=1, training=True, seed=5, **ENVIRONMENTS[name])


def make_agent(environment):
    agent_factory.set_seed(11)

    def factory(time_step_spec, action_spec, **arguments):
        return NStepDqnAgent(
            time_step_spec,
            action_spec,
            network=lambda o, a: MlpQNetwork(o, a, layer_units=(16,), dueling=True),
            optimizer=optimizers.rmsprop_centred(learning_rate=1e-2),
            gamma=GAMMA,
            target_update_period_steps=5,
            **arguments,
        )

    return agent_factory.make_agent(factory, environment)


class DqnSide:
    """One process: replay in memory, the same variables act and learn."""

    def __init__(self, name):
        self.environment = make_environment(name)
        self.agent = make_agent(self.environment)
        self.act = act_function(collect_policy(self.agent, np.array([0.2]), seed=3))
        self.replay = UniformReplay(1000, 1, N_STEP, GAMMA)
        self.trainer = Trainer(self.agent, tf.distribute.get_strategy(), max_bad_steps=1)
        self.now = self.environment.reset()

    def step(self):
        action = self.act(*self.now, ()).action.numpy()
        then = self.environment.step(action)
        self.replay.add(self.now, action, then)
        self.now = then
        return action

    def learn(self, starts):
        batch = self.replay.transitions(starts, np.zeros_like(starts))
        experience = tf.nest.map_structure(lambda x: x[None], to_trajectory(batch))
        return self.trainer.train(experience, tf.ones([1, BATCH]))


class ApexSide:
    """Actor and learner with an agent each, joined by Reverb and the training service."""

    def __init__(self, name, tmp_path):
        self.environment = make_environment(name)
        self.signature = transition_table.transition_signature(self.environment, N_STEP)
        table = transition_table.replay_table(
            self.signature, max_size=1000, min_size=1, sampler="uniform"
        )
        self.server = reverb.Server([table], port=None)
        self.address = Address("localhost", self.server.port)
        self.learner = make_agent(self.environment)
        self.trainer = Trainer(self.learner, tf.distribute.get_strategy(), max_bad_steps=1)
        self.service = TrainingServer(Address("127.0.0.1", 0), "test")
        self.publish(0)
        actor = make_agent(self.environment)
        for variable in actor.collect_policy.variables():
            variable.assign(tf.zeros_like(variable))  # what it acts by must come from the learner
        self.context = Context("actor", 0, 1, tmp_path, experiment="test")
        self.connection = LearnerConnection(
            self.service.address, self.context, actor.collect_policy.variables(), "", 20.0
        )
        self.connection.start()
        self.act = act_function(collect_policy(actor, np.array([0.2]), seed=3))
        self.assembler = TransitionAssembler(1, N_STEP, GAMMA, block_steps=1)
        self.writer = TransitionWriter(self.address, 1, N_STEP, 20.0, self.context.stop)
        self.now, self.steps = self.environment.reset(), 0

    def publish(self, version):
        variables = self.learner.collect_policy.variables()
        self.service.publish(version, [variable.numpy() for variable in variables])

    def step(self):
        step = self.act(*self.now, ())
        action, info = tf.nest.map_structure(lambda x: x.numpy(), (step.action, step.info))
        then = self.environment.step(action)
        # In place of the version, each transition carries the time it began: its identity.
        block = self.assembler.add(self.now, action, then, info, version=self.steps)
        if block is not None:
            self.writer.write(block)
        self.now, self.steps = then, self.steps + 1
        return action

    def sample(self):
        self.writer.close()
        dataset = sample_dataset(self.address, self.signature, BATCH, 1, 0.4, 1)
        return next(iter(dataset))

    def learn(self, batch):
        losses, td_errors = self.trainer.train(batch.experience, batch.weights)
        self.publish(int(self.learner.train_step_counter.numpy()))
        assert self.connection.wait_for_newer(0.01)  # no lag: the actor has what was just learnt
        return losses, td_errors


@pytest.fixture(params=ENVIRONMENTS)
def sides(request, tmp_path):
    apex = ApexSide(request.param, tmp_path)
    yield apex, DqnSide(request.param)
    apex.context.stop.set()
    apex.connection.close()
    apex.service.close()


def test_one_actor_without_lag_is_dqn(sides):
    apex, dqn = sides
    episodes = updates = 0
    for t in range(STEPS):
        np.testing.assert_array_equal(apex.step(), dqn.step(), err_msg=f"action at step {t}")
        for ours, theirs in zip(*map(tf.nest.flatten, (apex.now, dqn.now))):
            np.testing.assert_array_equal(ours, theirs)
        episodes += int(dqn.now.step_type[0] == 2)
        if t < WARM_UP_STEPS or t % PERIOD_STEPS:
            continue
        batch = apex.sample()
        starts = batch.version.numpy()[0].astype(np.int64)
        np.testing.assert_array_equal(batch.weights, np.ones([1, BATCH], np.float32))
        for ours, theirs in zip(apex.learn(batch), dqn.learn(starts)):
            np.testing.assert_array_equal(ours, theirs, err_msg=f"update {updates}")
        updates += 1
        pairs = zip(
            (*apex.learner.q_network.variables, *apex.learner.target_q_network.variables),
            (*dqn.agent.q_network.variables, *dqn.agent.target_q_network.variables),
        )
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{ours.name}, update {updates}")
    # The comparison saw episode ends, updates and target copies, or it would prove little.
    assert episodes >= 3 and updates == 20
    assert int(dqn.agent.train_step_counter.numpy()) == 20
