"""A3C with one worker is A2C in one process; with synchronous workers, A2C in all environments.

A3C's side is its real `worker`s against a parameter server and a training service of this process.
A2C's is a plain loop: act for t_max steps, train the agent on them with an optimizer of its own.
They share nothing but the seeds.
"""

import collections
import functools
import threading

import numpy as np
import tensorflow as tf
from running_roles import free_port

from tfdrl.agents import optimizers
from tfdrl.agents.n_step_actor_critic import NStepActorCriticAgent
from tfdrl.architectures import a3c
from tfdrl.environments import gym_environment
from tfdrl.experience.unroll_assembler import UnrollAssembler
from tfdrl.experience.unroll_batches import to_batch, train_arguments
from tfdrl.experiment import Experiment
from tfdrl.learning.trainer import Trainer
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.parameter_server.client import GlobalParameters
from tfdrl.parameter_server.role import ShardServer
from tfdrl.parameter_server.settings import ParameterServerSettings
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.runtime import agent_factory
from tfdrl.runtime.compiled import act_function
from tfdrl.topology import Address, Context

UPDATES, T_MAX, ENVIRONMENTS, SEED = 40, 7, 2, 1
RTOL, ATOL = 1e-6, 1e-7
RULE = {"learning_rate": 0.01, "decay": 0.9, "epsilon": 1e-3}
environment = functools.partial(gym_environment, id="CartPole-v1")


def agent(**arguments):
    return functools.partial(
        NStepActorCriticAgent,
        network=functools.partial(MlpActorCriticNetwork, layer_units=(16,)),
        gamma=0.9,
        reduction="mean",  # over all environments it is the mean of the workers' means
        **arguments,
    )


def by_shape(variables):
    """Values by shape: here no two variables have the same."""
    found = {tuple(variable.shape): variable.numpy() for variable in variables}
    assert len(found) == len(variables) == 6
    return found


def a3c_networks(root_dir, workers, clip_norm, monkeypatch):
    """By worker: the network that each update brought it; and the server's status at the end."""
    config = a3c.A3c(
        environment=environment,
        agent=agent(gradient_clip_norm=clip_norm),
        parameter_server=ParameterServerSettings(rule="rmsprop", **RULE),
        workers=workers,
        environments_per_worker=ENVIRONMENTS,
        t_max=T_MAX,
        synchronous=workers > 1,
    )
    experiment, address = Experiment(config, seed=SEED), Address("127.0.0.1", free_port())
    context = functools.partial(Context, root_dir=root_dir, experiment="x")
    served = ShardServer(
        a3c.make_learner(experiment).variables,
        config.parameter_server,
        context("parameter_server", 0, 1, listen=address),
        config.barrier,
    )
    service = TrainingServer(Address("127.0.0.1", 0), "x")
    networks, push = collections.defaultdict(list), GlobalParameters.push

    def recorded(parameters, gradient, steps):
        mine = networks[parameters._context.task]
        if len(mine) < UPDATES:
            push(parameters, gradient, steps)
            mine.append(by_shape(parameters._shards[0]._variables))
        else:  # of all workers: one that ends early would leave the others at the barrier
            parameters._context.stop.set()

    monkeypatch.setattr(GlobalParameters, "push", recorded)
    threads = [
        threading.Thread(
            target=a3c.worker,
            args=(experiment, context("worker", task, workers), address, service.address),
        )
        for task in range(workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    status = served.shard.status()
    service.close()
    served.close()
    return networks, status


class Environments:
    """Those of one worker, and the policy that acts in them by the network of all."""

    def __init__(self, of_agent, seed):
        self._environment = environment(num_envs=ENVIRONMENTS, training=True, seed=seed)
        self._act = act_function(of_agent.actor_policy(0.0, seed))
        self._rollout = UnrollAssembler(ENVIRONMENTS, T_MAX)
        self._now = self._environment.reset()
        self.episodes = self.steps = 0

    def play(self):
        """The next t_max steps."""
        self._rollout.begin(())
        rollout = None
        while rollout is None:
            step = self._act(*self._now, ())
            action, info = tf.nest.map_structure(lambda x: x.numpy(), (step.action, step.info))
            then = self._environment.step(action)
            rollout = self._rollout.add(self._now, action, then, info, version=0)
            self._now = then
            self.episodes += int((then.step_type == 2).sum())
            self.steps += int((then.step_type != 0).sum())  # a reset is none
        return rollout


def a2c_networks(workers, clip_norm):
    """The network after each update, how many episodes ended, and steps of the environments."""
    agent_factory.set_seed(SEED)
    with environment(num_envs=1, training=True, seed=SEED) as any_environment:
        learner = agent_factory.make_agent(
            agent(gradient_clip_norm=clip_norm, optimizer=optimizers.rmsprop(**RULE)),
            any_environment,
        )
    players = [Environments(learner, SEED + 1009 * (task + 1)) for task in range(workers)]
    trainer, networks = Trainer(learner, tf.distribute.get_strategy(), max_bad_steps=1), []
    for _ in range(UPDATES):
        rollouts = [player.play() for player in players]
        batch = tf.nest.map_structure(lambda *parts: np.concatenate(parts), *rollouts)
        trainer.train_once(**train_arguments(learner, to_batch(batch)))
        networks.append(by_shape(learner.collect_policy.variables()))
    episodes, steps = (sum(getattr(p, n) for p in players) for n in ("episodes", "steps"))
    return networks, episodes, steps


def check_equal(ours, theirs):
    """To within roundings: the kernel of the server and Keras order RMSProp differently."""
    assert len(ours) == len(theirs) == UPDATES
    for update, (mine, other) in enumerate(zip(ours, theirs), start=1):
        for shape, value in other.items():
            np.testing.assert_allclose(
                mine[shape], value, rtol=RTOL, atol=ATOL, err_msg=f"update {update}"
            )


def test_one_worker_is_a2c_in_one_process(tmp_path, monkeypatch):
    networks, status = a3c_networks(tmp_path, 1, 0.5, monkeypatch)
    expected, episodes, steps = a2c_networks(1, 0.5)
    check_equal(networks[0], expected)
    assert status["version"] == status["verdicts"]["accepted"] == UPDATES
    assert status["steps"] == steps < UPDATES * T_MAX * ENVIRONMENTS
    assert episodes >= 5  # rollouts went through their ends, or the comparison would prove little


def test_synchronous_workers_make_the_update_of_the_mean_gradient(tmp_path, monkeypatch):
    networks, status = a3c_networks(tmp_path, 2, None, monkeypatch)
    expected, *_ = a2c_networks(2, None)
    for mine, other in zip(networks[0], networks[1]):
        for shape, value in other.items():
            np.testing.assert_array_equal(mine[shape], value)
    check_equal(networks[0], expected)
    assert status["version"] == UPDATES
    assert status["verdicts"]["accepted"] == 2 * UPDATES
    assert status["ages"][0] == 2 * UPDATES
