"""The learner trains on the queue's own arrays: the same numbers, and nothing large is copied."""

import numpy as np
import pytest
import tensorflow as tf
from test_inference_policy import Table, catch, play, recurrent_agent

from tfdrl.experience.unroll_batches import to_batch, train_arguments
from tfdrl.experience.unroll_queue import UnrollQueue
from tfdrl.learning.trainer import Trainer

_N = 12


@pytest.fixture(scope="module")
def blocks():
    """Collected unrolls of real episodes."""
    with catch(_N) as environment:
        table = Table(recurrent_agent(environment), environment, environments=_N)
        collected, table.player._put = [], lambda unrolls: collected.append(unrolls)
        play(table.join(rows=_N), environment, 21)
    table.player.close(None)
    assert len(collected) == 4
    return collected


def trained(blocks, step):
    """Losses, infos and the variables after all batches; `step(trainer, agent, unrolls)`."""
    queue = UnrollQueue(len(blocks) * _N)
    for block in blocks:
        queue.put(block._replace(release=lambda: None))
    with catch(1) as environment:
        agent = recurrent_agent(environment)
    trainer = Trainer(agent, tf.distribute.get_strategy(), 1)
    found = []
    for _ in range(len(blocks) * _N // 16):
        loss, info = step(trainer, agent, queue.take(16, 1.0))
        found += [loss, *info.values()]
    return found + [variable.numpy() for variable in agent.collect_policy.variables()]


def test_losses_and_weights_are_those_of_tensors(blocks):
    def by_tensors(trainer, agent, unrolls):
        batch = to_batch(tf.nest.map_structure(tf.constant, unrolls))
        return trainer.train_once(**train_arguments(agent, batch))

    expected = trained(blocks, by_tensors)
    found = trained(blocks, lambda trainer, agent, unrolls: trainer.train_unrolls(unrolls))
    assert len(found) == len(expected)
    for left, right in zip(found, expected):
        np.testing.assert_array_equal(left, right)
    assert found[0] != found[7]


def test_nothing_large_is_copied(blocks, monkeypatch):
    convert, arrays, copied = tf.convert_to_tensor, [], []

    def copy(value, *args, **kwargs):
        if isinstance(value, np.ndarray):
            copied.append(value.nbytes)
        return convert(value, *args, **kwargs)

    def step(trainer, agent, unrolls):
        arrays.extend(leaf.nbytes for leaf in tf.nest.flatten(unrolls))
        with monkeypatch.context() as patch:
            patch.setattr(tf, "convert_to_tensor", copy)
            return trainer.train_unrolls(unrolls)

    trained(blocks, step)
    assert max(arrays) > 8_000 and copied and max(copied) < 1 << 12
