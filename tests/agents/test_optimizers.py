"""Optimizers step as the equations under their names say; schedules count learner steps."""

import gin
import numpy as np
import oracles
import preloaded
import pytest
import tensorflow as tf

from tfdrl.agents import optimizers
from tfdrl.errors import ConfigurationError


def oracle(case):
    return oracles.load("optimiser", case)


def path(optimizer, start, gradients):
    """The parameters after each gradient, in the optimizer's own precision."""
    variable = tf.Variable(start, dtype=tf.float32)
    parameters = []
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
        parameters.append(variable.numpy())
    return np.array(parameters)


def of_case(factory, case):
    v = oracle(case)
    optimizer = factory(float(v["lr"]), decay=float(v["decay"]), epsilon=float(v["eps"]))
    return path(optimizer, v["params0"], v["grads"]), v


@pytest.mark.parametrize(
    ("factory", "case"),
    [
        (optimizers.rmsprop, "rmsprop_a3c"),
        (optimizers.rmsprop_release, "rmsprop_tf1_impala"),
        (optimizers.rmsprop_centred, "rmsprop_centred_apex"),
        (optimizers.rmsprop_centred, "rmsprop_centred_dqn"),
    ],
)
def test_rmsprop_oracle(factory, case):
    parameters, v = of_case(factory, case)
    # The steps are compared, not the parameters, which hardly move.
    steps = np.diff(np.concatenate([v["params0"][None], v["params"]]), axis=0)
    ours = np.diff(np.concatenate([v["params0"][None].astype(np.float32), parameters]), axis=0)
    np.testing.assert_allclose(ours, steps, rtol=5e-3, atol=5e-7)
    np.testing.assert_allclose(parameters, v["params"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("factory", "case"),
    [
        (optimizers.rmsprop, "rmsprop_tf1_impala"),  # its average starts at 1
        (optimizers.rmsprop_release, "rmsprop_a3c"),  # its average starts at 0
        (optimizers.rmsprop, "rmsprop_centred_dqn"),
        (optimizers.rmsprop, "rmsprop_centred_apex"),
    ],
)
def test_rmsprop_is_not_its_sibling(factory, case):
    parameters, v = of_case(factory, case)
    moved = np.abs(v["params"][-1] - v["params0"]).max()
    assert np.abs(parameters - v["params"]).max() > 0.02 * moved


def test_defaults_of_ape_x():
    """Ape-X, appendix C: learning rate 0.00025 / 4, decay 0.95, epsilon 1.5e-7."""
    v = oracle("rmsprop_centred_apex")
    parameters = path(optimizers.rmsprop_centred(), v["params0"], v["grads"])
    np.testing.assert_allclose(parameters, v["params"], rtol=1e-5, atol=1e-6)


def test_release_steps_as_tensorflow_1_does():
    v = oracle("rmsprop_tf1_impala")
    variable = tf.Variable(v["params0"], dtype=tf.float32)
    theirs = tf.compat.v1.train.RMSPropOptimizer(6e-4, decay=0.99, momentum=0.0, epsilon=0.01)
    ours = path(optimizers.rmsprop_release(), v["params0"], v["grads"])
    for gradient, parameters in zip(v["grads"], ours):
        theirs.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
        np.testing.assert_allclose(parameters, variable, rtol=1e-6, atol=1e-7)


def test_first_steps_of_the_others():
    """Adam's first step is the learning rate whatever the gradient; SGD's is proportional."""
    start, gradient = np.zeros(3), [[0.1, -5.0, 70.0]]
    adam = path(optimizers.adam(0.01), start, gradient)[0]
    np.testing.assert_allclose(adam, [-0.01, 0.01, -0.01], rtol=1e-3)
    sgd = path(optimizers.sgd(0.5), start, gradient)[0]
    np.testing.assert_allclose(sgd, [-0.05, 2.5, -35.0], rtol=1e-6)


@pytest.mark.parametrize("factory", [optimizers.rmsprop_release, optimizers.adam])
def test_a_checkpoint_continues_the_path_and_the_schedule(factory, tmp_path):
    """The average that starts at 1 must not start again when the optimizer is restored."""
    start, gradients = [1.0, -2.0], np.random.default_rng(0).normal(size=(8, 2))

    def make(parameters):
        variable = tf.Variable(parameters, dtype=tf.float32)
        optimizer = factory(optimizers.linear_schedule(0.1, 0.01, 6))
        optimizer.build([variable])  # as agents do, before a checkpoint is restored
        return variable, optimizer, tf.train.Checkpoint(variable=variable, optimizer=optimizer)

    def train(variable, optimizer, gradients):
        for gradient in gradients:
            optimizer.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
        return variable.numpy()

    variable, optimizer, _ = make(start)
    whole = train(variable, optimizer, gradients)
    variable, optimizer, checkpoint = make(start)
    train(variable, optimizer, gradients[:4])
    saved = checkpoint.write(str(tmp_path / "checkpoint"))
    variable, optimizer, checkpoint = make([0.0, 0.0])
    checkpoint.read(saved).assert_consumed()
    np.testing.assert_allclose(train(variable, optimizer, gradients[4:]), whole, rtol=1e-6)
    assert optimizer.iterations == 8


def test_linear_schedule():
    """Espeholt 2018, table G.1: 0.0006 to 0; after `steps` it stays."""
    schedule = optimizers.linear_schedule(6e-4, steps=100)
    rates = [float(schedule(step)) for step in (0, 25, 50, 100, 1000)]
    np.testing.assert_allclose(rates, [6e-4, 4.5e-4, 3e-4, 0, 0], atol=1e-9)
    halved = optimizers.linear_schedule(0.5, 0.25, 2)
    np.testing.assert_allclose([float(halved(s)) for s in range(4)], [0.5, 0.375, 0.25, 0.25])


@pytest.mark.parametrize("name", ["adam", "rmsprop", "rmsprop_centred", "rmsprop_release", "sgd"])
def test_gin_gives_every_optimizer_a_schedule(name):
    """A learning rate of 0 from the third step on: the parameters move twice, then stand."""
    with gin.unlock_config():
        gin.parse_config(
            f"""
            {name}.learning_rate = @linear_schedule()
            linear_schedule.initial = 0.1
            linear_schedule.steps = 2
            """
        )
    optimizer = getattr(optimizers, name)()
    gin.clear_config()
    variable = tf.Variable([1.0])

    @tf.function
    def step():
        optimizer.apply_gradients([(tf.constant([0.5]), variable)])

    parameters = [1.0]
    for _ in range(5):
        step()
        parameters.append(float(variable[0]))
    moves = -np.diff(parameters)
    assert (moves[:2] > 0).all() and (moves[2:] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.1, 0.0, 0), "linear_schedule.steps = 0 must be 1 or more learner steps"),
        ((-0.1, 0.0, 5), "from -0.1 to 0.0; learning rates must be 0 or more"),
        ((0.1, -1.0, 5), "from 0.1 to -1.0"),
    ],
)
def test_impossible_schedules_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        optimizers.linear_schedule(*arguments)


def replicated_path(strategy):
    """Parameters after each of four steps with summed gradients, as every replica has them."""
    with strategy.scope():
        variable = tf.Variable([1.0, -2.0])
        optimizer = optimizers.rmsprop_release(optimizers.linear_schedule(0.5, 0.0, 4), epsilon=0.1)
        optimizer.build([variable])

    def step(gradient):
        optimizer.apply_gradients([(gradient, variable)], skip_gradients_aggregation=True)

    @tf.function
    def train(gradient):
        strategy.run(step, (gradient,))

    parameters = []
    for scale in (1.0, 2.0, -1.0, 0.5):
        train(tf.constant([scale, 3.0]))
        parameters.append(variable.numpy())
    return np.array(parameters), optimizer.iterations.numpy()


def compare_strategies():
    """Run by the test below where two logical devices can still be made."""
    from tfdrl.learning.devices import strategy

    mirrored = strategy(kind="mirrored", devices=("CPU:0", "CPU:1"))
    assert mirrored.num_replicas_in_sync == 2
    (left, steps), (right, _) = replicated_path(mirrored), replicated_path(strategy())
    np.testing.assert_allclose(left, right, rtol=1e-6)
    assert steps == 4
    print("strategies agree")


def test_two_replicas_step_as_one_does():
    output = preloaded.call("test_optimizers:compare_strategies", __file__)
    assert "strategies agree" in output, output[-3000:]
