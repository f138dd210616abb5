"""Gradient steps under a strategy, several in one call of TensorFlow."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfdrl.agents.gradient_step import check_optimizers
from tfdrl.errors import ConfigurationError, DivergedError
from tfdrl.experience.frame_stacks import with_stacks
from tfdrl.experience.transitions import to_trajectory
from tfdrl.experience.unroll_batches import to_batch, train_arguments
from tfdrl.runtime.host_tensors import on_host, shared
from tfdrl.types import Transitions, Unrolls


class Trainer:
    """Trains an agent on K batches at once.

    Observations may be single frames (`frame_stacks`): the compiled step makes stacks of them.

    Args:
      agent: a TFAgent, built under the strategy's scope.
      strategy: replicas get equal parts of each batch.
      max_bad_steps: non-finite losses in a row before `DivergedError`; 1 stops at the first.
      jit_compile: whether XLA compiles the steps; not of several replicas, but for TPUs', which
        it always compiles.
      says: is told, in words, that the training step is traced now, which takes seconds.

    Attributes:
      bad_steps: non-finite losses so far.
      scalars: by name, those of LossInfo.extra at the last gradient step of `train`, means over
        the replicas.
    """

    def __init__(
        self,
        agent,
        strategy: tf.distribute.Strategy,
        max_bad_steps: int,
        jit_compile: bool = False,
        says: Callable[[str], None] | None = None,
    ):
        check_optimizers(agent)
        self._agent, self._strategy = agent, strategy
        self._is_default = strategy is tf.distribute.get_strategy()
        self._max_bad_steps = max_bad_steps
        self._bad_in_a_row, self._says = 0, says
        self._gives_td_error, self._names = True, []  # known once a step was traced
        self.bad_steps, self.scalars = 0, {}
        check_compilable(jit_compile, strategy)
        self._train = on_host(self._train_all, jit_compile)
        self._train_one = on_host(self._train_once, jit_compile)
        self._train_on_unrolls = on_host(self._train_unrolls, jit_compile)
        self._train_on_sequences = on_host(self._train_sequences, jit_compile)

    def gives_td_error(self, experience, weights) -> bool:
        """Whether `train` gives TD errors; builds its graph, for batches of these specs."""
        self._will_trace()
        self._train.get_concrete_function(experience, weights)
        return self._gives_td_error

    def _will_trace(self) -> None:
        says, self._says = self._says, None
        if says is not None:
            says("tracing the training step")

    def train(self, experience, weights) -> tuple[np.ndarray, np.ndarray | None]:
        """K gradient steps.

        Args:
          experience: nest of [K, B, ...].
          weights: <float32>[K, B].

        Returns:
          The losses <float32>[K], and the TD errors <float32>[K, B] if the agent gives them.

        Raises:
          DivergedError: too many losses in a row were not finite. The parameters are as they
            were before the first of them if the agent skips such steps.
        """
        self._will_trace()
        values, td_error = self._train(experience, weights)
        loss, *others = values.numpy().T
        self.scalars = {name: float(value[-1]) for name, value in zip(self._names, others)}
        self._check_finite(loss)
        return loss, td_error.numpy() if self._gives_td_error else None

    def train_transitions(self, batch: Transitions) -> float:
        """One gradient step on transitions of [B, ...], all of weight 1; returns the loss."""
        experience = tf.nest.map_structure(lambda leaf: leaf[None], to_trajectory(batch))
        losses, _ = self.train(experience, tf.ones([1, len(batch.n_step_return)]))
        return float(losses[0])

    def train_once(self, experience, **arguments) -> tuple[float, dict[str, float]]:
        """One gradient step on one batch.

        Args:
          experience: nest of [B, ...].
          arguments: what else the agent's `train` takes, nests of [B, ...].

        Returns:
          The loss, and the scalars of the agent's LossInfo.extra, means over the replicas.

        Raises:
          DivergedError: as `train`.
        """
        self._will_trace()
        return self._read(self._train_one(experience, arguments))

    def train_unrolls(self, unrolls: Unrolls) -> tuple[float, dict[str, float]]:
        """As `train_once`, on arrays [B, ...]: no other operation is run for a step."""
        self._will_trace()
        unrolls = unrolls._replace(version=(), time_secs=())
        return self._read(self._train_on_unrolls(tf.nest.map_structure(shared, unrolls)))

    def train_sequences(
        self, experience, **arguments
    ) -> tuple[float, np.ndarray, dict[str, float]]:
        """As `train_once`; returns also the priorities <float32>[B] of LossInfo.extra."""
        self._will_trace()
        values, priority = self._train_on_sequences(experience, arguments)
        loss, extra = self._read(values)
        return loss, priority.numpy(), extra

    def _read(self, values: tf.Tensor) -> tuple[float, dict[str, float]]:
        """The loss and the named scalars."""
        values = values.numpy()
        self._check_finite(values[:1])
        loss, *extra = values.tolist()
        return loss, dict(zip(self._names, extra))

    @tf.autograph.experimental.do_not_convert
    def _train_unrolls(self, unrolls):
        arguments = train_arguments(self._agent, to_batch(unrolls))
        return self._train_once(arguments.pop("experience"), arguments)

    @tf.autograph.experimental.do_not_convert
    def _train_once(self, experience, arguments):
        def replica(experience, arguments):
            return self._values(self._agent.train(with_stacks(experience), **arguments))

        strategy = self._strategy
        if strategy.num_replicas_in_sync == 1:
            return self._run_alone(replica, experience, arguments)
        return self._reduced(strategy.run(replica, self._split((experience, arguments))))

    @tf.autograph.experimental.do_not_convert
    def _train_sequences(self, experience, arguments):
        def replica(experience, arguments):
            info = self._agent.train(with_stacks(experience), **arguments)
            return self._values(info), info.extra.priority

        strategy = self._strategy
        if strategy.num_replicas_in_sync == 1:
            return self._run_alone(replica, experience, arguments)
        values, priority = strategy.run(replica, self._split((experience, arguments)))
        priority = tf.concat(strategy.experimental_local_results(priority), axis=0)
        return self._reduced(values), priority

    def _values(self, info) -> tf.Tensor:
        """<float32>[1 + scalars]: one tensor is one exchange of replicas, one read of the host."""
        extra = scalars(info.extra)
        self._names = list(extra)
        return tf.stack([info.loss, *(tf.cast(value, tf.float32) for value in extra.values())])

    def _reduced(self, values: tf.Tensor) -> tf.Tensor:
        """Of all replicas: the sum of the losses, the means of the others."""
        sums = self._strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)
        means = sums[1:] / self._strategy.num_replicas_in_sync
        return tf.concat([sums[:1], means], axis=0)

    def _train_all(self, experience, weights):
        updates = tf.nest.flatten(experience)[0].shape[0]
        values = tf.TensorArray(tf.float32, updates)
        errors = tf.TensorArray(tf.float32, updates)
        for k in tf.range(updates):
            batch = tf.nest.map_structure(lambda x: x[k], (experience, weights))  # noqa: B023
            value, td_error = self._train_one_batch(*batch)
            values = values.write(k, value)
            errors = errors.write(k, td_error)
        return values.stack(), errors.stack()

    @tf.autograph.experimental.do_not_convert
    def _train_one_batch(self, experience, weights):
        strategy = self._strategy
        if strategy.num_replicas_in_sync == 1:
            return self._run_alone(self._train_replica, experience, weights)
        parts = self._split((experience, weights))
        values, td_error = strategy.run(self._train_replica, parts)
        td_error = tf.concat(strategy.experimental_local_results(td_error), axis=0)
        return self._reduced(values), td_error

    def _train_replica(self, experience, weights):
        info = self._agent.train(with_stacks(experience), weights=weights)
        td_error = getattr(info.extra, "td_error", None)
        self._gives_td_error = td_error is not None
        return self._values(info), tf.zeros_like(weights) if td_error is None else td_error

    def _run_alone(self, replica, *arguments):
        """On the strategy's only device."""
        if self._is_default:
            return replica(*arguments)
        return self._strategy.run(replica, arguments)

    def _split(self, batch):
        replicas = local_replicas(self._strategy)

        def part(context):
            i = context.replica_id_in_sync_group % replicas
            return tf.nest.map_structure(lambda x: tf.split(x, replicas)[i], batch)

        return self._strategy.experimental_distribute_values_from_function(part)

    def _check_finite(self, loss: np.ndarray) -> None:
        for k, is_finite in enumerate(np.isfinite(loss)):
            self._bad_in_a_row = 0 if is_finite else self._bad_in_a_row + 1
            if is_finite:
                continue
            self.bad_steps += 1
            step = int(self._agent.train_step_counter.numpy()) - len(loss) + k + 1
            logging.warning("the loss of learner step %d is %s", step, loss[k])
            if self._bad_in_a_row >= self._max_bad_steps:
                raise DivergedError(
                    f"training diverged: the loss was not finite for {self._bad_in_a_row} learner "
                    f"steps in a row, the last being step {step}; the last good checkpoint is "
                    "kept. Look at the learning rate, the gradient clipping and the rewards"
                )


def scalars(extra):
    """The scalar fields of a LossInfo.extra that is a named tuple; none of anything else."""
    if not hasattr(extra, "_fields"):
        return {}
    return {
        name: value
        for name, value in extra._asdict().items()
        if isinstance(value, tf.Tensor) and value.shape.rank == 0
    }


def check_compilable(jit_compile: bool, strategy: tf.distribute.Strategy) -> None:
    """Raises ConfigurationError if XLA cannot compile the replicas' step."""
    replicas = strategy.num_replicas_in_sync
    is_tpu = isinstance(strategy, tf.distribute.TPUStrategy)
    if jit_compile and replicas > 1 and not is_tpu:
        raise ConfigurationError(
            f"jit_compile = True with {replicas} replicas: XLA compiles for one device, and their "
            "step is on several; leave it False, or train on one device"
        )


def local_replicas(strategy: tf.distribute.Strategy) -> int:
    """Replicas of this process: where several learn together, each has a batch of its own."""
    replicas = strategy.num_replicas_in_sync
    return replicas if replicas == 1 else len(strategy.extended.worker_devices)


def check_batch(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Raises ConfigurationError if the replicas cannot have equal parts of a batch."""
    replicas = local_replicas(strategy)
    if batch_size % replicas:
        raise ConfigurationError(
            f"a batch of {batch_size} cannot be split over {replicas} replicas; use a multiple"
        )
