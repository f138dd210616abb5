"""One gradient step as every agent here takes it: summed over replicas, clipped, finite."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import tensorflow as tf

from tfdrl.errors import ConfigurationError


def apply_gradients(
    optimizer,
    gradients: Sequence[tf.Tensor | None],
    variables: Sequence[tf.Variable],
    loss: tf.Tensor,
    clip_norm: float | None,
    unclipped: int = 0,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sums the gradients over all replicas, clips them by their global norm and applies them.

    A step whose loss or gradient is not finite on any replica applies zero gradients on all, so
    that the parameters stay finite; the learner counts such steps by their loss, which is NaN.

    Args:
      optimizer: a Keras optimizer.
      gradients: of this replica's share of the loss; None where the loss does not use a variable.
      variables: in the same order.
      loss: <float32>[], this replica's share.
      clip_norm: global norm to clip to; None for none.
      unclipped: how many of the last variables' gradients count for no norm and are not clipped.

    Returns:
      This replica's loss, or NaN; and the global norm before clipping <float32>[].
    """
    gradients, variables = zip(*((g, v) for g, v in zip(gradients, variables) if g is not None))
    total = loss
    replica = tf.distribute.get_replica_context()
    if replica is not None and replica.num_replicas_in_sync > 1:
        # The loss too: all replicas must agree on whether to skip the step.
        *gradients, total = replica.all_reduce(tf.distribute.ReduceOp.SUM, [*gradients, loss])
    clipped = len(gradients) - unclipped
    gradients, others = gradients[:clipped], gradients[clipped:]
    norm = tf.linalg.global_norm(gradients)
    is_finite = tf.math.is_finite(norm) & tf.math.is_finite(total)
    if clip_norm is not None:
        gradients, _ = tf.clip_by_global_norm(gradients, clip_norm, norm)
    gradients = [tf.where(is_finite, g, tf.zeros_like(g)) for g in [*gradients, *others]]
    optimizer.apply_gradients(zip(gradients, variables), skip_gradients_aggregation=True)
    return tf.where(is_finite, loss, float("nan")), norm


def check_optimizers(agent) -> None:
    """Raises ConfigurationError for an agent that is to train and has no optimizer that could.

    None is one only where parameter servers update the parameters; an agent of somebody else's may
    do without. A factory that was not called, such as @adam in place of @adam(), never is; what no
    parameter of the agent is called after may well be one.
    """
    is_ours = type(agent).__module__.startswith("tfdrl.")
    parameters = inspect.signature(type(agent)).parameters
    for attribute, optimizer in vars(agent).items():
        parameter = attribute.lstrip("_")
        if not parameter.endswith("optimizer") or parameter not in parameters:
            continue
        setting = f"{type(agent).__name__}.{parameter}"
        if inspect.isroutine(optimizer) or inspect.isclass(optimizer):
            name = optimizer.__name__
            raise ConfigurationError(
                f"{setting} = @{name} only names it; write @{name}() to make it"
            )
        if optimizer is None and is_ours:
            raise ConfigurationError(
                f"{setting} = None is for parameter servers, which update the parameters "
                "themselves; here the agent does: write one, such as @adam()"
            )
