"""The gradient of any TFAgent's loss, for updates that are made elsewhere.

How an agent plugs in. It needs a differentiable `loss(experience, weights, training, ...)`, as
every TFAgent with a `_loss` has; nothing else of it is called while learning, so that neither its
optimizer nor its counters nor its own copies to target networks matter. `initialize()` is called
to copy its networks to their targets. If it has `gradient_clip_norm` (tfdrl's agents) gradients are
clipped to that global norm; TF-Agents' `gradient_clipping` clips each variable's, as there.

Running statistics of the agent (`agents.normalization`) are not of its own: what the batch adds to
them travels with the gradient, and comes back in the sums of all workers. The loss is computed with
what all have sent and with the batch itself, as a learner counts what it then trains on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdrl.agents.normalization import NormalizedAgent
from tfdrl.errors import ConfigurationError
from tfdrl.learning.trainer import scalars
from tfdrl.runtime.compiled import compiled


class Gradient(NamedTuple):
    """A gradient on its way to the parameter servers.

    loss       <float32>[]
    norm       <float32>[], global, before clipping
    is_finite  whether loss and gradient are
    parts      for each shard <float32>[size], its variables' gradients one after the other
    extra      the scalars of LossInfo.extra, by name
    moments    what the batch adds to each of `LossGradient.moments`
    """

    loss: float
    norm: float
    is_finite: bool
    parts: tuple[np.ndarray, ...]
    extra: dict[str, float]
    moments: tuple[np.ndarray, ...] = ()


class LossGradient:
    """Computes d loss / d variables.

    Args:
      agent: a TFAgent.
      arguments: `arguments(*batch) -> dict` of what `agent.loss` takes, from tensors.
      example: a batch of arrays with the shapes and dtypes to come; the values do not matter.
      jit_compile: whether XLA compiles it.

    Attributes:
      example: as given.
      variables: those that the loss has a gradient for, in a fixed order.
      moments: <float64>, sums over what all have trained on; empty without running statistics.

    Raises:
      ConfigurationError: the agent has no loss, or none of its variables a gradient; its policy
        acts by variables that have none.
    """

    def __init__(
        self,
        agent,
        arguments: Callable[..., dict[str, Any]],
        example: Sequence[Any],
        jit_compile: bool = False,
    ):
        self._agent, self._arguments = agent, arguments
        self._statistics = agent.statistics if isinstance(agent, NormalizedAgent) else None
        self.moments: list[tf.Variable] = self._statistics.sums if self._statistics else []
        self.example = list(example)
        self.variables = self._find_variables(example)
        self._check_policy()
        self._indices: tuple[tuple[int, ...], ...] = (tuple(range(len(self.variables))),)
        self._run, self._jit_compile = None, jit_compile

    def split(self, indices: tuple[tuple[int, ...], ...]) -> None:
        """Sets which variables each shard has; before the first gradient."""
        self._indices = indices

    def __call__(self, *batch: Any) -> Gradient:
        """The gradient for a batch, nests of arrays like the example's."""
        if self._run is None:
            self._run = compiled(self._compute, self._jit_compile)
        tensors, structure = self._run(tf.nest.flatten(batch))
        loss, norm, is_finite, parts, extra, moments = tf.nest.pack_sequence_as(structure, tensors)
        return Gradient(
            float(loss),
            float(norm),
            bool(is_finite),
            tuple(part.numpy() for part in parts),
            {name: float(value) for name, value in extra.items()},
            tuple(added.numpy() for added in moments),
        )

    def _find_variables(self, example) -> list[tf.Variable]:
        found: list[tf.Variable] = []

        def trace(*leaves):
            info, tape, _ = self._loss(leaves)
            watched = _unique(tape.watched_variables())
            gradients = tape.gradient(info.loss, watched)
            found.extend(v for v, g in zip(watched, gradients) if g is not None)

        leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(list(example))]
        try:
            tf.function(trace).get_concrete_function(*leaves)
        except NotImplementedError as error:
            raise ConfigurationError(
                f"{type(self._agent).__name__} has no loss() to differentiate: parameter servers "
                f"need one ({error})"
            ) from error
        if not found:
            raise ConfigurationError(f"no variable of {type(self._agent).__name__} has a gradient")
        return found

    def _check_policy(self) -> None:
        trained = {id(variable) for variable in self.variables}
        # Of its layers: an epsilon that a policy keeps in a variable is its own affair.
        modules = self._agent.collect_policy.submodules
        layers = [module for module in modules if isinstance(module, tf.keras.layers.Layer)]
        variables = {id(v): v for layer in layers for v in layer.variables}
        others = [v.name for key, v in variables.items() if key not in trained]
        if others:
            raise ConfigurationError(
                f"the policy of {type(self._agent).__name__} acts by variables that no gradient "
                f"trains, and parameter servers move gradients only: {', '.join(others)}; use "
                "layers without such state (no batch normalisation)"
            )

    def _loss(self, leaves):
        batch = tf.nest.pack_sequence_as(self.example, leaves)
        arguments = self._arguments(*batch)
        before = [moments.read_value() for moments in self.moments]
        added = self._statistics.update(arguments["experience"]) if self.moments else []
        with tf.GradientTape() as tape:
            info = self._agent.loss(training=True, **arguments)
        for moments, value in zip(self.moments, before):
            moments.assign(value)  # the servers', until they answer
        return info, tape, added

    def _compute(self, *leaves):
        info, tape, added = self._loss(leaves)
        # Dense: an embedding's comes as rows, and one row may come several times.
        gradients = list(map(tf.convert_to_tensor, tape.gradient(info.loss, self.variables)))
        norm = tf.linalg.global_norm(gradients)
        is_finite = tf.math.is_finite(norm) & tf.math.is_finite(info.loss)
        gradients = self._clipped(gradients, norm)
        parts = tuple(
            tf.concat([tf.reshape(gradients[i], [-1]) for i in mine], 0) for mine in self._indices
        )
        return info.loss, norm, is_finite, parts, scalars(info.extra), added

    def _clipped(self, gradients, norm):
        clip_norm = getattr(self._agent, "gradient_clip_norm", None)
        if clip_norm is not None:
            return tf.clip_by_global_norm(gradients, clip_norm, norm)[0]
        each = getattr(self._agent, "_gradient_clipping", None)
        return gradients if each is None else [tf.clip_by_norm(g, each) for g in gradients]


def _unique(variables: Sequence[tf.Variable]) -> list[tf.Variable]:
    """Trainable ones in the order of their making, which is the same in every process."""
    return [v for v in {id(v): v for v in variables}.values() if v.trainable]
