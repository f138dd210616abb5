"""Several synchronous learners: they start from one state and take or leave each step together."""

from __future__ import annotations

import tensorflow as tf

from tfdrl.learning.clusters import Peers
from tfdrl.learning.trainer import local_replicas
from tfdrl.topology import Context


class LearnerGroup:
    """What the learners of one run agree on before each step.

    A learner that has no batch must not leave the others waiting inside the step's collectives,
    so all say first whether they are ready and whether they want to stop: an all-reduce of three
    numbers. They step when all are ready and stop, at the same step, when one wants to. A signal
    to one is a signal to all: the run is not over then, for none of them.

    Args:
      strategy: of the learners; with one learner nothing is ever exchanged.
      context: of this learner; task 0 is the chief.
      timeout_secs: how long the others may take to do their part.

    Attributes:
      together: `with group.together():` around what needs the others, see `clusters.Peers`.
    """

    def __init__(self, strategy: tf.distribute.Strategy, context: Context, timeout_secs: float):
        self._strategy, self._size, self._context = strategy, context.replicas, context
        self._sum = tf.function(self._sum_over_learners)
        self.together = Peers(context, timeout_secs).together
        self.is_chief = context.task == 0

    def agree(self, is_ready: bool, stops: bool) -> tuple[bool, bool]:
        """Returns whether all are ready, and whether one wants to stop.

        Raises:
          UnavailableError: another learner died or does not answer.
        """
        if self._size == 1:
            return is_ready, stops
        mine = tf.constant([is_ready, stops, self._context.told.is_set()], tf.float32)
        ready, stopping, told = self._exchange(mine).numpy()
        if told > 0:
            self._context.told.set()
            self._context.stop.set()
        return round(float(ready)) == self._size, stopping > 0

    def adopt(self, agent) -> None:
        """Gives every learner the chief's values of all that a checkpoint of the agent holds."""
        if self._size == 1:
            return
        found = tf.train.TrackableView(agent).descendants()
        variables = [item for item in found if isinstance(item, tf.Variable)]
        for variable in sorted(variables, key=lambda variable: variable.name):
            if variable.dtype.is_floating or variable.dtype.is_integer:
                mine = variable if self.is_chief else tf.zeros_like(variable)
                variable.assign(tf.cast(self._exchange(tf.cast(mine, tf.float64)), variable.dtype))

    def _exchange(self, value: tf.Tensor) -> tf.Tensor:
        with self.together():
            return self._sum(value)

    def _sum_over_learners(self, value):
        def replica(value):
            context = tf.distribute.get_replica_context()
            # One of this process's replicas speaks for the learner.
            is_first = context.replica_id_in_sync_group % local_replicas(self._strategy) == 0
            share = tf.where(is_first, value, tf.zeros_like(value))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, share)

        total = self._strategy.run(replica, args=(value,))
        return self._strategy.experimental_local_results(total)[0]
