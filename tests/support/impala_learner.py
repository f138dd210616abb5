"""One of several IMPALA learners on made-up unrolls: a process of test_impala_learners.py.

Usage: impala_learner.py TASK host:port,host:port DIRECTORY REDUCTION NORMALIZED
"""

import functools
import pathlib
import sys

import numpy as np

from tfdrl.launch import process
from tfdrl.topology import Address, Context

STEPS, BATCH, UNROLL_STEPS = 6, 4, 5
TIMEOUT_SECS = 60.0


def make_agent(seed, reduction, is_normalized):
    """A recurrent agent for Catch; learners begin with different parameters on purpose."""
    import gin
    import tensorflow as tf

    from tfdrl.agents.v_trace import VTraceAgent
    from tfdrl.environments import gym_environment
    from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
    from tfdrl.runtime import agent_factory

    agent_factory.set_seed(seed)
    for name in ("observations", "returns"):
        gin.bind_parameter(f"normalization.{name}", is_normalized)
    agent = functools.partial(
        VTraceAgent,
        network=functools.partial(MlpActorCriticNetwork, layer_units=(8,), lstm_units=4),
        optimizer=tf.keras.optimizers.Adam(0.01),
        reduction=reduction,
        last_action_and_reward=True,
        gradient_clip_norm=0.5,
    )
    with gym_environment(1, True, 0, id="tfdrl/Catch-v0") as environment:
        return agent_factory.make_agent(agent, environment)


def unrolls(step, task):
    """A learner's batch at a step: random, with episode ends."""
    import tensorflow as tf

    from tfdrl.experience.unroll_batches import to_batch
    from tfdrl.types import TimeSteps, Unrolls

    random = np.random.default_rng([step, task])
    ends = random.random((BATCH, UNROLL_STEPS + 1)) < 0.2
    step_type = np.where(ends, 2, np.where(np.roll(ends, 1, axis=1), 0, 1)).astype(np.int32)
    shape = (BATCH, UNROLL_STEPS)
    made = Unrolls(
        steps=TimeSteps(
            step_type=step_type,
            reward=random.normal(size=ends.shape).astype(np.float32),
            discount=1.0 - ends.astype(np.float32),
            observation=random.random((*ends.shape, 10, 5)).astype(np.float32),
        ),
        action=random.integers(0, 3, shape, np.int32),
        info={"logits": random.normal(size=(*shape, 3)).astype(np.float32)},
        policy_state=(
            tuple(random.normal(size=(BATCH, 4)).astype(np.float32) for _ in range(2)),
            random.integers(0, 3, BATCH, np.int32),
        ),
        version=np.zeros(BATCH, np.int64),
        time_secs=np.zeros(BATCH),
    )
    return to_batch(tf.nest.map_structure(tf.constant, made))


def train(agent, strategy, batches, together):
    """Losses of one step for each batch."""
    from tfdrl.experience.unroll_batches import train_arguments
    from tfdrl.learning.trainer import Trainer

    trainer = Trainer(agent, strategy, max_bad_steps=1)
    losses = []
    for batch in batches:
        with together():
            losses.append(trainer.train_once(**train_arguments(agent, batch))[0])
    return losses


def variables(agent):
    """Everything that a checkpoint of the agent holds, in one order."""
    import tensorflow as tf

    found = tf.train.TrackableView(agent).descendants()
    found = [item for item in found if isinstance(item, tf.Variable)]
    return [item.numpy() for item in sorted(found, key=lambda item: item.name)]


def main():
    task, cluster, directory, reduction, normalized = sys.argv[1:]
    cluster = tuple(map(Address.parse, cluster.split(",")))
    context = Context("learner", int(task), len(cluster), pathlib.Path(directory), cluster=cluster)
    process.silence()
    from tfdrl.learning import devices
    from tfdrl.learning.synchronous_learners import LearnerGroup

    strategy = devices.make_strategy(
        lambda cluster: devices.strategy("multi_worker", cluster=cluster), context, TIMEOUT_SECS
    )
    group = LearnerGroup(strategy, context, TIMEOUT_SECS)
    with group.together(), strategy.scope():
        agent = make_agent(1 + context.task, reduction, normalized == "True")
    group.adopt(agent)
    agreed = [group.agree(True, False)]
    assert not context.stop.is_set()
    if context.task == 1:  # by a signal
        context.told.set()
    agreed.append(group.agree(context.task == 0, context.task == 1))
    assert context.told.is_set() and context.stop.is_set()
    assert agreed == [(True, False), (False, True)], agreed
    batches = [unrolls(step, context.task) for step in range(STEPS)]
    losses = train(agent, strategy, batches, group.together)
    np.savez(pathlib.Path(directory) / f"learner-{task}.npz", *variables(agent), losses=losses)
    process.leave(0)


if __name__ == "__main__":
    main()
