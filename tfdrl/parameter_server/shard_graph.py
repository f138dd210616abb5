"""One shard of the global parameters as a TensorFlow graph: what runs on the parameter server.

The variables live in a `tf.distribute.Server` of job `ps`; whoever has this graph, a worker or the
server itself, runs parts of it there through a session. A push, its checks and the update happen
where the variables are; one call carries a gradient up and the newest parameters down.

With a gradient travels what its batch adds to running statistics: sums of values and of their
squares (`ops.running_moments`), which are right whoever adds to them in whatever order. A gradient
that is refused adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfdrl.parameter_server import age_histogram, update_rules, verdicts
from tfdrl.parameter_server.protocol import (
    ACCEPTED,
    AGE_BUCKETS,
    COUNTS,
    FINISHED,
    OPEN,
    PULLS,
    SHUT,
    STARTED,
    STEPS,
    UPDATES,
    VERSION,
    Header,
    Layout,
)
from tfdrl.parameter_server.remote_variables import add, assign, read, variable, zero
from tfdrl.parameter_server.settings import ParameterServerSettings


class ShardGraph:
    """The graph of one shard; `graph` is to be given to a session.

    Attributes (what a session fetches, and what it feeds):
      flat, header, loss, have: placeholders: a gradient <float32>[size], `Header`, the |loss| of
        the gradient <float64>[], and the <int64>[2] epoch and version that a puller has.
      added: placeholders of what the batch adds to each of the moments.
      push: (state, parameters <float32>[size], moments) after a push.
      pull: (state, parameters, moments), which are of no elements if the puller has them.
      withhold: (state,) counts a gradient that its worker did not send.
      parameters, slots, moments, counts, ages, losses, epoch: values, for the server's own use.
      fill: writes `fill_values` into parameters, slots and moments.
    """

    def __init__(self, layout: Layout, settings: ParameterServerSettings):
        self.layout, self._settings = layout, settings
        self.graph = tf.Graph()
        with self.graph.as_default(), tf.device(f"/job:ps/task:{layout.task}/device:CPU:0"):
            self._make_variables()
            self._make_push()
            self._make_pull()
            self._make_owner_operations()

    def _make_variables(self) -> None:
        shapes = self.layout.shapes
        initial = update_rules.slot_initial_values(self._settings)
        self._slot_values = initial
        self._parameters = [variable(f"parameter_{i}", s) for i, s in enumerate(shapes)]
        self._slots = [
            {name: variable(f"{name}_{i}", shape) for name in initial}
            for i, shape in enumerate(shapes)
        ]
        sizes = self.layout.moments
        self._moments = [variable(f"moments_{i}", [n], tf.float64) for i, n in enumerate(sizes)]
        self._counts = variable("counts", [COUNTS], tf.int64)
        self._ages = variable("ages", [AGE_BUCKETS], tf.int64)
        self._losses = variable("losses", [2], tf.float64)  # sum of |loss|, and of how many
        self._epoch = variable("epoch", [], tf.int64)
        self._gate = variable("gate", [], tf.int64)
        workers = max(self.layout.barrier, 1)
        self._contributed = variable("contributed", [workers], tf.int64)
        self._sums, self._moment_sums = [], []  # of an update that not all have contributed to
        if self.layout.barrier:
            self._sums = [variable(f"sum_{i}", s) for i, s in enumerate(shapes)]
            self._moment_sums = [
                variable(f"moment_sum_{i}", [n], tf.float64) for i, n in enumerate(sizes)
            ]

    # What workers do.

    def _make_push(self) -> None:
        placeholder = tf.compat.v1.placeholder
        self.flat = placeholder(tf.float32, [sum(self.layout.sizes)], "gradient")
        self.header = placeholder(tf.int64, [len(Header._fields)], "header")
        self.loss = placeholder(tf.float64, [], "loss")
        self.added = [placeholder(tf.float64, [n]) for n in self.layout.moments]
        header = Header(*tf.unstack(self.header))
        lock = self._lock() if self.layout.barrier else []
        with tf.control_dependencies(lock):
            started = self._count(STARTED)
        with tf.control_dependencies([started]):  # before the gate is looked at: see `Shard`
            gate, epoch, counts, contributed = self._read(
                self._gate, self._epoch, self._counts, self._contributed
            )
        is_barrier = bool(self.layout.barrier)
        verdict = verdicts.verdict(
            *(header, self.flat, gate, epoch, counts),
            contributed=contributed if is_barrier else None,
            max_age=0 if is_barrier else self._settings.max_gradient_age,
        )
        # A branch's operations wait for the predicate, not for all that they are given: without
        # this the counts could be read after the update that they decide on.
        with tf.control_dependencies([counts]):
            is_accepted = tf.equal(verdict, ACCEPTED)
        done = tf.cond(
            is_accepted,
            lambda: self._accept(header, counts),
            lambda: self._refuse(verdict),
        )
        with tf.control_dependencies([done]):
            self.push = self._answer(verdict)
        if lock:
            with tf.control_dependencies(tf.nest.flatten(self.push)):
                unlock = tf.raw_ops.ConsumeMutexLock(mutex_lock=lock[0])
            with tf.control_dependencies([unlock]):
                self.push = tf.nest.map_structure(tf.identity, self.push)
        with tf.control_dependencies([self._refuse(header.verdict, finished=0)]):
            self.withhold = (self._state(header.verdict),)

    def _accept(self, header: Header, counts) -> tf.Tensor:
        gradients = self._split(self.flat)
        if self.layout.barrier:
            applied, updates = self._contribute(header, gradients, counts)
        else:
            applied, updates = self._update(gradients, self.added, counts), tf.constant(1, tf.int64)
        age = tf.maximum(counts[VERSION] - header.version, 0)
        with tf.control_dependencies(applied):
            counted = [
                self._count(
                    ACCEPTED,
                    FINISHED,
                    more={VERSION: updates, UPDATES: updates, STEPS: header.steps},
                ),
                add(self._ages, age_histogram.one_more(age)),
                add(self._losses, tf.stack([self.loss, 1.0])),
            ]
        with tf.control_dependencies(counted):
            return tf.constant(True)

    def _update(
        self, gradients: Sequence[tf.Tensor], added: Sequence[tf.Tensor], counts
    ) -> list[tf.Operation]:
        rate = update_rules.learning_rate(self._settings, counts[STEPS])
        applied = [
            update_rules.apply(self._settings, parameter, slots, gradient, rate, counts[UPDATES])
            for parameter, slots, gradient in zip(self._parameters, self._slots, gradients)
        ]
        return [*applied, *map(add, self._moments, added)]

    def _contribute(self, header: Header, gradients, counts):
        """Adds to the sums; the last of the workers applies the mean. Under the shard's lock."""
        workers = self.layout.barrier
        totals = [*self._sums, *self._moment_sums]
        added = list(map(add, totals, [*gradients, *self.added]))
        mark = tf.one_hot(header.worker, workers, on_value=counts[VERSION] + 1, dtype=tf.int64)
        before = self._read(self._contributed)[0]
        now = tf.where(mark > 0, mark, before)
        with tf.control_dependencies([*added, before]):
            marked = assign(self._contributed, now)
        with tf.control_dependencies([marked]):  # what the branches do comes after it
            is_complete = tf.reduce_all(tf.equal(now, counts[VERSION] + 1))

        def finish():
            with tf.control_dependencies([marked]):
                sums, moments = self._read(*self._sums), self._read(*self._moment_sums)
                means = [total / workers for total in sums]
                applied = self._update(means, moments, counts)
            with tf.control_dependencies(applied):
                zeroed = self._zero_sums()
            with tf.control_dependencies(zeroed):
                return tf.constant(1, tf.int64)

        def wait():
            with tf.control_dependencies([marked]):
                return tf.constant(0, tf.int64)

        updates = tf.cond(is_complete, finish, wait)
        return [updates], updates

    def _refuse(self, verdict: tf.Tensor, finished: int = 1) -> tf.Tensor:
        amount = tf.one_hot(verdict, COUNTS, dtype=tf.int64)
        amount += finished * tf.one_hot(FINISHED, COUNTS, dtype=tf.int64)
        with tf.control_dependencies([add(self._counts, amount)]):
            return tf.constant(True)

    def _make_pull(self) -> None:
        self.have = tf.compat.v1.placeholder(tf.int64, [2], "have")
        epoch, counts = self._read(self._epoch, self._counts)
        is_newer = tf.reduce_any(tf.not_equal(self.have, tf.stack([epoch, counts[VERSION]])))

        def transfer():
            with tf.control_dependencies([self._count(PULLS)]):
                return self._joined(), self._read(*self._moments)

        def keep():
            return tf.zeros([0]), [tf.zeros([0], tf.float64) for _ in self._moments]

        # The state is read before the parameters: they are at least as new as it says.
        state = tf.stack([tf.constant(ACCEPTED, tf.int64), epoch, counts[VERSION], counts[STEPS]])
        with tf.control_dependencies([state]):
            self.pull = (state, *tf.cond(is_newer, transfer, keep))

    def _answer(self, verdict):
        state = self._state(verdict)
        with tf.control_dependencies([state, self._count(PULLS)]):
            return state, self._joined(), self._read(*self._moments)

    def _state(self, verdict) -> tf.Tensor:
        epoch, counts = self._read(self._epoch, self._counts)
        return tf.stack([verdict, epoch, counts[VERSION], counts[STEPS]])

    # What the server itself does.

    def _make_owner_operations(self) -> None:
        placeholder = tf.compat.v1.placeholder
        self.parameters = self._read(*self._parameters)
        slots = [slot for slots in self._slots for slot in slots.values()]
        self.slots, self.moments = self._read(*slots), self._read(*self._moments)
        self.counts, self.ages, self.losses, self.epoch = self._read(
            self._counts, self._ages, self._losses, self._epoch
        )
        shapes = self.layout.shapes
        slot_shapes = [shape for shape in shapes for _ in self._slot_values]
        self.fill_values = [placeholder(tf.float32, shape) for shape in (*shapes, *slot_shapes)]
        self.fill_values += [placeholder(tf.float64, [n]) for n in self.layout.moments]
        targets = [*self._parameters, *slots, *self._moments]
        self.fill = tf.group(*(assign(h, v) for h, v in zip(targets, self.fill_values)))
        self.counter_values = (
            placeholder(tf.int64, [COUNTS]),
            placeholder(tf.int64, [AGE_BUCKETS]),
            placeholder(tf.float64, [2]),
            placeholder(tf.int64, []),
        )
        counters = (self._counts, self._ages, self._losses, self._epoch)
        self.fill_counters = tf.group(
            *(assign(h, v) for h, v in zip(counters, self.counter_values)),
            assign(self._contributed, tf.zeros([max(self.layout.barrier, 1)], tf.int64)),
            *self._zero_sums(),
        )
        self.new_epoch = placeholder(tf.int64, [])
        self.forget_updates = placeholder(tf.int64, [], "forget_updates")
        # An update of its own, so that no version ever means two sets of parameters.
        self.begin_epoch = tf.group(
            assign(self._epoch, self.new_epoch),
            self._count(VERSION, more={UPDATES: -self.forget_updates}),
            assign(self._contributed, tf.zeros([max(self.layout.barrier, 1)], tf.int64)),
            *self._zero_sums(),
        )
        self.open_gate = assign(self._gate, tf.constant(OPEN, tf.int64))
        self.shut_gate = assign(self._gate, tf.constant(SHUT, tf.int64))

    def _zero_sums(self) -> list[tf.Operation]:
        return list(map(zero, [*self._sums, *self._moment_sums]))

    @property
    def initial_slots(self) -> list[np.ndarray]:
        """What the slots start from, in the order of `slots`."""
        return [
            np.full(shape, value, np.float32)
            for shape in self.layout.shapes
            for value in self._slot_values.values()
        ]

    # Pieces.

    def _lock(self) -> list[tf.Tensor]:
        mutex = tf.raw_ops.MutexV2(shared_name="barrier", container="")
        return [tf.raw_ops.MutexLock(mutex=mutex)]

    def _count(self, *which: int, more: dict | None = None) -> tf.Operation:
        amount = np.zeros(COUNTS, np.int64)
        amount[list(which)] = 1
        total = tf.constant(amount)
        for entry, value in (more or {}).items():
            total += value * tf.one_hot(entry, COUNTS, dtype=tf.int64)
        return add(self._counts, total)

    def _read(self, *handles: tf.Tensor) -> list[tf.Tensor]:
        return [read(handle) for handle in handles]

    def _split(self, flat: tf.Tensor) -> list[tf.Tensor]:
        parts = tf.split(flat, self.layout.sizes)
        return [tf.reshape(part, shape) for part, shape in zip(parts, self.layout.shapes)]

    def _joined(self) -> tf.Tensor:
        return tf.concat([tf.reshape(value, [-1]) for value in self._read(*self._parameters)], 0)
