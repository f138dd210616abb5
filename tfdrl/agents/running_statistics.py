"""Running statistics of observations and of returns, as variables of a policy."""

from __future__ import annotations

import tensorflow as tf
from tf_agents.trajectories import StepType

from tfdrl.errors import ConfigurationError
from tfdrl.ops import running_moments

#: Of the Q-values in a policy's info, and of a batch in a LossInfo.extra.
_VALUES = ("q_taken", "max_q")


class RunningStatistics(tf.Module):
    """Sums over all that was trained on, and what follows from them.

    Args:
      observation_spec: nest of TensorSpecs. Floats of at most two dimensions are scaled, each
        element by its own mean and standard deviation; images, counts and masks are left alone.
        None: no observation is scaled.
      gamma: of discounted returns, by whose standard deviation rewards are divided; None: no
        reward is scaled.
      clip: bound of scaled observations, in standard deviations; None for none.
      mask: the leaf of `observation_spec` that is a mask of actions, if it is one of floats.

    Attributes:
      variables: <float64>, which add up over whoever learns.

    Raises:
      ConfigurationError: nothing in the observations can be scaled.
    """

    def __init__(self, observation_spec, gamma: float | None, clip: float | None, mask=None):
        super().__init__(name="running_statistics")
        self._clip, self._gamma = clip, gamma
        specs = tf.nest.flatten(observation_spec) if observation_spec is not None else []
        self._is_scaled = [
            spec.dtype.is_floating and spec.shape.rank <= 2 and spec is not mask for spec in specs
        ]
        self._shapes = [s.shape for s, is_scaled in zip(specs, self._is_scaled) if is_scaled]
        if specs and not self._shapes:
            raise ConfigurationError(
                "normalization.observations = True, but the observations have no vector of "
                f"floats: {observation_spec}; networks scale images themselves (uint8 by 255) "
                "and see counts one by one"
            )
        self._sizes = [shape.num_elements() for shape in self._shapes]
        self._observation = _sums("observation", sum(self._sizes)) if self._shapes else None
        self._return = _sums("return", 1) if gamma is not None else None

    @property
    def sums(self) -> list[tf.Variable]:
        """The variables that `new_sums` is added to."""
        return [sums for sums in (self._observation, self._return) if sums is not None]

    def new_sums(self, experience) -> list[tf.Tensor]:
        """What a Trajectory [B, T + 1, ...] adds to `sums`.

        Its last step is left out: it is the first one of what follows, or what a transition of
        several steps has led to.
        """
        found = []
        if self._observation is not None:
            leaves = [leaf[:, :-1] for leaf in self._scaled_leaves(experience.observation)]
            found.append(running_moments.sums(self._joined(leaves)))
        if self._return is not None:
            found.append(self._sums_of_returns(experience))
        return found

    def update(self, experience) -> list[tf.Tensor]:
        """Adds what all replicas train on, and returns it."""
        added = self.new_sums(experience)
        replica = tf.distribute.get_replica_context()
        if replica is not None and replica.num_replicas_in_sync > 1:
            added = replica.all_reduce(tf.distribute.ReduceOp.SUM, added)
        for sums, more in zip(self.sums, added):
            sums.assign_add(more)
        return added

    def scaled_observation(self, observation):
        """A nest of [..., ...] of any outer dimensions; its dtypes and shapes stay."""
        if self._observation is None:
            return observation
        mean, std = running_moments.mean_and_std(self._observation)
        parts = zip(tf.split(mean, self._sizes), tf.split(std, self._sizes), self._shapes)
        leaves = []
        for leaf, is_scaled in zip(tf.nest.flatten(observation), self._is_scaled):
            leaves.append(self._scaled(leaf, *next(parts)) if is_scaled else leaf)
        return tf.nest.pack_sequence_as(observation, leaves)

    def scaled_reward(self, reward: tf.Tensor) -> tf.Tensor:
        """Rewards divided by the standard deviation of discounted returns."""
        return reward if self._return is None else reward / self._return_std()

    def unscaled_values(self, info):
        """A named tuple with its Q-values and TD errors in units of the environment's rewards."""
        if self._return is None or not hasattr(info, "_replace"):
            return info
        values = {n: getattr(info, n) for n in (*_VALUES, "td_error") if hasattr(info, n)}
        return info._replace(**{name: v * self._return_std() for name, v in values.items()})

    def _scaled(self, leaf, mean, std, shape):
        mean, std = tf.reshape(mean, shape), tf.reshape(std, shape)
        found = (tf.cast(leaf, tf.float64) - mean) / std
        if self._clip is not None:
            found = tf.clip_by_value(found, -self._clip, self._clip)
        return tf.cast(found, leaf.dtype)

    def _scaled_leaves(self, observation) -> list[tf.Tensor]:
        return [
            leaf
            for leaf, is_scaled in zip(tf.nest.flatten(observation), self._is_scaled)
            if is_scaled
        ]

    def _joined(self, leaves) -> tf.Tensor:
        """<float64>[B T, D] of leaves [B, T, ...]."""
        flat = [
            tf.reshape(tf.cast(leaf, tf.float64), [-1, size])
            for leaf, size in zip(leaves, self._sizes)
        ]
        return tf.concat(flat, axis=1)

    def _sums_of_returns(self, experience) -> tf.Tensor:
        reward, step_type = (
            tf.transpose(leaf[:, :-1]) for leaf in (experience.reward, experience.step_type)
        )
        found = running_moments.discounted_sums(reward, step_type == StepType.FIRST, self._gamma)
        # The step between LAST and FIRST is no transition of the task.
        is_transition = tf.reshape(step_type != StepType.LAST, [-1])
        return running_moments.sums(tf.reshape(found, [-1, 1]), is_transition)

    def _return_std(self) -> tf.Tensor:
        _, std = running_moments.mean_and_std(self._return)
        return tf.cast(std[0], tf.float32)


def _sums(name: str, size: int) -> tf.Variable:
    return tf.Variable(
        tf.zeros([1 + 2 * size], tf.float64),
        trainable=False,
        name=f"{name}_sums",
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,  # all add the same
    )
