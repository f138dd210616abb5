"""One of several learners that train a small Keras model: a process of test_multi_worker.py.

Usage: learners.py TASK host:port,host:port DIRECTORY STEPS [BEHAVIOUR]
"""

import json
import logging
import os
import pathlib
import sys
import time

import numpy as np

from tfdrl.errors import TfdrlError
from tfdrl.launch import process
from tfdrl.topology import Address, Context

FEATURES, BATCH = 3, 4
TIMEOUT_SECS = float(os.environ.get("TFDRL_TEST_TIMEOUT_SECS", 20.0))


def batch(step, task):
    """(features <float32>[BATCH, FEATURES], targets <float32>[BATCH, 1]) of one learner."""
    random = np.random.default_rng([step, task])
    return (
        random.normal(size=(BATCH, FEATURES)).astype(np.float32),
        random.normal(size=(BATCH, 1)).astype(np.float32),
    )


class Training:
    """One all-reduce a step: gradients, loss, examples, votes; weight 0 takes part without data."""

    def __init__(self, strategy):
        import tensorflow as tf

        self._strategy = strategy
        tf.keras.utils.set_random_seed(1)
        with strategy.scope():
            self.model = tf.keras.Sequential([tf.keras.layers.Dense(8), tf.keras.layers.Dense(1)])
            self.model.build((None, FEATURES))
            self.optimizer = tf.keras.optimizers.Adam(0.01)
            self.optimizer.build(self.model.trainable_variables)
        self.step = tf.function(self._step)

    def _step(self, features, targets, weight, wants_to_stop):
        import tensorflow as tf

        def replica(features, targets, weight, wants_to_stop):
            variables = self.model.trainable_variables
            with tf.GradientTape() as tape:
                error = tf.reduce_sum(tf.square(self.model(features) - targets), axis=-1)
                loss = weight * tf.reduce_sum(error)
            gradients = tape.gradient(loss, variables)
            # An argument as it is has no device, and MultiWorkerMirroredStrategy wants one.
            mine = [*gradients, loss, weight * BATCH, tf.identity(wants_to_stop)]
            *gradients, loss, examples, votes = tf.distribute.get_replica_context().all_reduce(
                tf.distribute.ReduceOp.SUM, mine
            )
            divisor = tf.maximum(examples, 1.0)
            self.optimizer.apply_gradients(
                zip([gradient / divisor for gradient in gradients], variables),
                skip_gradients_aggregation=True,
            )
            return loss / divisor, examples, votes

        return self._strategy.run(replica, (features, targets, weight, wants_to_stop))

    def weights(self):
        return [variable.numpy() for variable in self.model.trainable_variables]


def learn(context, steps, behaviour):
    import tensorflow as tf

    from tfdrl.learning import devices
    from tfdrl.learning.clusters import Peers

    strategy = devices.make_strategy(
        lambda cluster: devices.strategy("multi_worker", cluster=cluster), context, TIMEOUT_SECS
    )
    peers = Peers(context, TIMEOUT_SECS)
    with peers.together():
        training = Training(strategy)
    step, losses, threads, votes = 0, [], [], 0.0
    while not votes:
        has_data = not (behaviour == "no_data" and context.task == 1)
        if behaviour == "hang" and context.task == 1 and step == 5:
            time.sleep(1000)
        features, targets = batch(step, context.task)
        if not has_data:
            features, targets = np.zeros_like(features), np.zeros_like(targets)
        wants_to_stop = step + 1 >= steps[context.task] or context.stop.is_set()
        arguments = (features, targets, float(has_data), float(wants_to_stop))
        with peers.together():
            loss, examples, votes = training.step(*map(tf.constant, arguments))
        step += 1
        losses.append(float(loss))
        threads.append(len(os.listdir("/proc/self/task")))
        if step == 5:
            (context.root_dir / f"up-{context.task}").touch()
    if context.task == 0:
        tf.train.Checkpoint(model=training.model, optimizer=training.optimizer).save(
            str(context.root_dir / "checkpoint")
        )
    result = {"steps": step, "losses": losses, "examples": float(examples), "threads": threads}
    (context.root_dir / f"result-{context.task}.json").write_text(json.dumps(result))
    np.savez(context.root_dir / f"weights-{context.task}.npz", *training.weights())


def main():
    task, cluster, directory, steps, *behaviour = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    cluster = tuple(map(Address.parse, cluster.split(",")))
    context = Context("learner", int(task), len(cluster), pathlib.Path(directory), cluster=cluster)
    process.silence()
    process.stop_on_signals(context.stop)
    try:
        learn(context, json.loads(steps), *(behaviour or [""]))
    except TfdrlError as error:
        print(f"tfdrl learner: {error}", flush=True)
        process.leave(error.exit_code)
    process.leave(0)


if __name__ == "__main__":
    main()
