"""Of single frames, in chunks of several, an item refers to just those that its two stacks show."""

import threading

import numpy as np
import pytest
import reverb
import tensorflow as tf

from tests.support.stacked_games import StackedGames, played
from tfdrl.experience import frame_stacks
from tfdrl.experience.frame_stacks import with_single_frames, with_stacks
from tfdrl.experience.transitions import TransitionAssembler, TransitionItem
from tfdrl.replay.transition_dataset import to_trajectory
from tfdrl.replay.transition_table import TABLE, replay_table, transition_signature
from tfdrl.replay.transition_writer import TransitionWriter
from tfdrl.topology import Address
from tfdrl.types import LAST

_N, _LONGEST = 3, 12


class EveryLength(StackedGames):
    """Each game has an episode of each length from 1 to 12 steps, in an order of its own."""

    def __init__(self, frame_stack, seed):
        super().__init__(_N, frame_stack, seed, size=3)
        lengths = np.arange(1, _LONGEST + 1)
        self._lengths = [self._random.permutation(lengths).tolist() for _ in range(_N)]
        self._left = np.array([each.pop() for each in self._lengths])

    def _ends(self):
        for i in np.flatnonzero(self._step_type == LAST):  # another begins
            self._left[i] = self._lengths[i].pop() + 1 if self._lengths[i] else 99
        self._left -= 1
        return self._left == 0


def acted(shown):
    """(time step, action, next time step, info), as an actor's loop yields them."""
    for t, (step, next_step) in enumerate(zip(shown, shown[1:])):
        yield step, 10 * np.arange(_N, dtype=np.int32) + t, next_step, ()


def length_of(shown, t, i, n):
    """m <= n: of the transition that begins at t."""
    ends = [step.step_type[i] == LAST for step in shown[t + 1 : t + n]]
    return ends.index(True) + 1 if True in ends else n


def sampled(address, count):
    """Every item, in the order of their creation, as one batch of the learner's."""
    client = reverb.Client(str(address))
    assert client.server_info(timeout=5)[TABLE].current_size == count
    samples = client.sample(TABLE, count, emit_timesteps=False)
    columns = zip(*(tf.nest.flatten(sample.data) for sample in samples))
    return with_stacks(to_trajectory(TransitionItem(*map(tf.stack, columns))))


@pytest.mark.parametrize("frame_stack", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_what_is_sampled_are_the_stacks_that_were_seen(n, frame_stack, monkeypatch):
    monkeypatch.setattr(frame_stacks, "_stacked", lambda: frame_stacks._stack)  # XLA takes seconds
    games = EveryLength(frame_stack, seed=10 * n + frame_stack)
    shown, block_steps = played(games, 100), 5
    assert all(not lengths for lengths in games._lengths)
    settings = {"max_size": 1000, "min_size": 1, "sampler": "fifo", "max_times_sampled": 1}
    server = reverb.Server([replay_table(transition_signature(games, n), **settings)], port=None)
    address = Address("localhost", server.port)
    assembler = TransitionAssembler(_N, n, 0.5, block_steps)
    writer = TransitionWriter(address, _N, n, 20.0, threading.Event(), frame_stack)
    for step in with_single_frames(games, acted(shown)):
        block = assembler.add(*step, version=0)
        if block is not None:
            writer.write(block)
    writer.close()

    begun = range((100 - n) // block_steps * block_steps)
    expected = [(t, i) for t in begun for i in range(_N) if shown[t].step_type[i] != LAST]
    found = sampled(address, len(expected))
    server.stop()
    for (t, i), pair, action in zip(expected, found.observation.numpy(), found.action.numpy()):
        m = length_of(shown, t, i, n)
        np.testing.assert_array_equal(pair[0], shown[t].observation[i])
        np.testing.assert_array_equal(pair[1], shown[t + m].observation[i])
        assert action.tolist() == [10 * i + t] * 2
