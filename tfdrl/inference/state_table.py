"""What inference keeps of the environments on its device: the policy's state, stacks of frames.

Only what is new travels there and back (SEED RL keeps its state tables in the same way). Each
environment of a run has a slot, and each slot two rows: what is known before a step is read from
one and what is known after it is written to the other, in turn. So a step that is computed again,
since its answer was lost, finds what it found before. A run that is replaced gives its slots back,
and of the free ones those are taken first that have been free for longest: what may still be in a
batch then writes where nobody reads.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfdrl.types import ArraySpec

#: k bytes as one number, whose lowest byte is the oldest frame's.
_WORDS = {2: tf.uint16, 4: tf.uint32, 8: tf.uint64}


class Place(NamedTuple):
    """The slots of one run's N environments.

    rows  two arrays <int32>[N]: where what is known before steps of even and of odd index is
    state  leaves of [N, ...], of the policy before the first step
    """

    rows: tuple[np.ndarray, np.ndarray]
    state: Sequence[np.ndarray]


class StateTable:
    """Variables of [rows, ...] on one device; other devices reach them through it.

    Args:
      state_specs: leaves of the policy's state.
      observation: specs of the observation's arrays.
      frame_stack: k > 1 where the only one is a stack of k frames; else 1.
      environments: that may be played at the same time.
      device: such as "GPU:0", or "" for TensorFlow's choice.

    Attributes:
      unused_row: for rows of a batch that stand for no environment.
    """

    def __init__(
        self,
        state_specs: Sequence[tf.TensorSpec],
        observation: Sequence[ArraySpec],
        frame_stack: int,
        environments: int,
        device: str,
    ):
        slots = 2 * environments  # as many again are free
        self._free = collections.deque(range(slots))
        self.unused_row = 2 * slots
        rows = 2 * slots + 2

        def variable(shape, dtype):
            # On a GPU TensorFlow has <int32> in the host's memory and no kernels for its rows.
            with tf.device("CPU:0" if dtype == tf.int32 else device):
                return tf.Variable(tf.zeros([rows, *shape], dtype), trainable=False)

        self._state = [variable(spec.shape, spec.dtype) for spec in state_specs]
        self._frame_stack, self._stacks, self._word = frame_stack, None, None
        if frame_stack > 1:
            (spec,) = observation
            if spec.dtype == np.uint8:
                self._word = _WORDS.get(frame_stack)
            shape, dtype = spec.shape, tf.as_dtype(spec.dtype)
            if self._word is not None:  # moved as one, several times as fast as byte by byte
                shape, dtype = shape[:-1], self._word
            self._stacks = variable(shape, dtype)

    def take(self, state: Sequence[np.ndarray], environments: int) -> Place:
        """Slots for N environments of a new run, whose policy state is this, leaves of [N, ...]."""
        slots = np.array([self._free.popleft() for _ in range(environments)], np.int32)
        rows = 2 * slots, 2 * slots + 1
        for variable, leaf in zip(self._state, state):
            variable.scatter_update(tf.IndexedSlices(tf.constant(leaf), tf.constant(rows[0])))
        return Place(rows, state)

    def give_back(self, place: Place) -> None:
        """The run of these slots has been replaced."""
        self._free.extend((place.rows[0] // 2).tolist())

    def read(self, row: tf.Tensor) -> list[tf.Tensor]:
        """In the compiled step: leaves of the state before it, of rows <int32>[n]."""
        return [variable.sparse_read(row) for variable in self._state]

    def write(self, row: tf.Tensor, state: Sequence[tf.Tensor]) -> None:
        """In the compiled step: leaves of the state after it."""
        for variable, leaf in zip(self._state, state):
            variable.scatter_update(tf.IndexedSlices(leaf, _after(row)))

    def push(self, row: tf.Tensor, frames: tf.Tensor, depth: tf.Tensor) -> tf.Tensor:
        """In the compiled step: adds frames [n, ...] to the stacks, which show `depth` <uint8>[n].

        Returns the stacks [n, ..., k].
        """
        before, k = self._stacks.sparse_read(row), self._frame_stack
        if self._word is None:
            stacks = tf.concat([before[..., 1:], frames[..., None]], axis=-1)
            shows = tf.range(k, 0, -1) <= tf.cast(depth, tf.int32)[:, None]  # [n, k]
            shows = tf.reshape(shows, [-1, *[1] * (frames.shape.rank - 1), k])
            after = tf.where(shows, stacks, tf.zeros([], stacks.dtype))
        else:
            bits = 8 * (k - 1)
            newest = tf.bitwise.left_shift(tf.cast(frames, self._word), _word(bits, self._word))
            after = tf.bitwise.right_shift(before, _word(8, self._word)) | newest
            after &= self._shown(depth, frames.shape.rank)
        self._stacks.scatter_update(tf.IndexedSlices(after, _after(row)))
        return after if self._word is None else tf.bitcast(after, tf.uint8)

    def _shown(self, depth: tf.Tensor, rank: int) -> tf.Tensor:
        """The bits of the newest `depth` frames."""
        k = self._frame_stack
        masks = [(1 << 8 * k) - (1 << 8 * (k - shown)) for shown in range(k + 1)]
        # <int64> has kernels everywhere, and the same bits.
        signed = np.array(masks, np.uint64).astype(np.int64)
        found = tf.gather(tf.constant(signed), tf.cast(depth, tf.int32))
        return tf.reshape(tf.cast(found, self._word), [-1, *[1] * (rank - 1)])


def _after(row: tf.Tensor) -> tf.Tensor:
    """The other row of the same slot."""
    return tf.bitwise.bitwise_xor(row, tf.ones_like(row))


def _word(number: int, dtype: tf.DType) -> tf.Tensor:
    return tf.constant(number, dtype)
