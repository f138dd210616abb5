"""What SEED does where is a setting: compiled by XLA, or on another device, it is the same."""

import asyncio

import numpy as np
import preloaded
import pytest
import tensorflow as tf
from test_inference_policy import Table, catch, play, recurrent_agent

from tfdrl.agents.r2d2 import R2D2Agent
from tfdrl.experience.unroll_batches import to_batch, train_arguments
from tfdrl.learning.devices import check_devices, make_logical_cpus, strategy
from tfdrl.learning.trainer import Trainer
from tfdrl.networks.recurrent_q_networks import MlpRecurrentQNetwork
from tfdrl.runtime import agent_factory

_N = 4


def r2d2_agent(environment):
    def network(input_spec, action_spec):
        return MlpRecurrentQNetwork(input_spec, action_spec, layer_units=(8,), lstm_units=6)

    agent_factory.set_seed(3)
    return agent_factory.make_agent(
        lambda *specs, **more: R2D2Agent(
            *specs,
            network=network,
            optimizer=tf.keras.optimizers.Adam(1e-2),
            burn_in_steps=2,
            n_step=2,
            target_update_period_steps=2,
            **more,
        ),
        environment,
    )


def unrolls_of(agent):
    """What a learner trains on: unrolls of real episodes."""
    with catch(_N) as environment:
        table = Table(agent, environment)
        play(table.join(rows=_N), environment, 16)
    table.player.close(None)
    return [to_batch(unrolls) for unrolls in table.unrolls]


def train(make_agent, batches, kind, jit_compile, training=None):
    """Losses, priorities and the variables after some steps."""
    training = training or tf.distribute.get_strategy()
    with catch(1) as environment, training.scope():
        agent = make_agent(environment)
    trainer = Trainer(agent, training, 1, jit_compile)
    found = []
    for batch in batches:
        arguments = train_arguments(agent, batch)
        if kind == "sequences":
            weights = np.linspace(0.5, 1.0, _N).astype(np.float32)
            loss, priority, _ = trainer.train_sequences(**arguments, weights=weights)
            found += [loss, priority]
        else:
            found.append(trainer.train_once(**arguments)[0])
    return found + [variable.numpy() for variable in agent.collect_policy.variables()]


def check_same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("make_agent", "kind"),
    [(recurrent_agent, "once"), (r2d2_agent, "sequences")],
    ids=["V-trace", "R2D2"],
)
def test_compiled_training_gives_the_same_numbers(make_agent, kind):
    with catch(1) as environment:
        batches = unrolls_of(make_agent(environment))
    assert len(batches) == 3
    plain, compiled = (train(make_agent, batches, kind, jit) for jit in (False, True))
    check_same(plain, compiled)
    assert not np.allclose(plain[-1], train(make_agent, batches[:1], kind, False)[-1])


def use_separate_devices():
    """Run by the test below, where two logical devices can still be made."""
    make_logical_cpus(("CPU:1",))
    on_the_first = strategy(kind="one_device", devices=("CPU:0",))
    check_devices("inference_devices", ("CPU:1", ""))
    with catch(_N) as environment, on_the_first.scope():
        agent = recurrent_agent(environment)
        steps = environment.reset()
    leaves = steps._replace(observation=[steps.observation])
    found = []
    for devices in (("CPU:1",), ("",), ("CPU:0", "CPU:1")):
        with catch(_N) as environment:
            inference = Table(agent, environment, devices=devices).inference
        for _ in devices:  # each of them in turn
            acted = asyncio.run(inference.act(leaves, inference.begin(0, _N).rows[0]))
            found.append([*acted.info, *acted.state[:2]])
        outputs, _ = _raw(inference, leaves, devices[0])
        if devices[0]:
            assert all(output.device.endswith(devices[0]) for output in outputs), outputs
        inference.close()
    for other in found[1:]:
        check_same(found[0], other)
    assert all("CPU:0" in variable.device for variable in agent.collect_policy.variables())
    # What inference sees is what training has just written.
    batches = unrolls_of(agent)
    check_same(
        train(recurrent_agent, batches, "once", False),
        train(recurrent_agent, batches, "once", False, on_the_first),
    )
    print("devices agree")


def _raw(inference, leaves, device):
    row = inference.begin(0, _N).rows[0]
    arrays = [leaves.step_type, leaves.reward, leaves.discount, row, *leaves.observation]
    with tf.device(device):
        return inference._runs[0](arrays)


def test_inference_and_training_on_devices_of_their_own():
    output = preloaded.call("test_inference_devices:use_separate_devices", __file__)
    assert "devices agree" in output, output[-3000:]
