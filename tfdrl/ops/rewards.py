"""Transforms of rewards for learning; reported returns are of untransformed rewards."""

from __future__ import annotations

import tensorflow as tf

REWARD_CLIPPINGS = ("none", "abs_one", "soft_asymmetric", "asymmetric_paper")


def clip_rewards(rewards: tf.Tensor, kind: str) -> tf.Tensor:
    """Bounds rewards, so that tasks of different scales can share learning rates.

    | kind             | transform                                  | source                       |
    |------------------|--------------------------------------------|------------------------------|
    | none             | r                                          |                              |
    | abs_one          | r clipped to [-1, 1]                       | Mnih 2015; Espeholt 2018     |
    | soft_asymmetric  | 5 tanh(r / 5), times 0.3 where r < 0       | IMPALA's released code       |
    | asymmetric_paper | 0.3 min(tanh r, 0) + 5 max(tanh r, 0)      | caption in Espeholt 2018     |

    The last two bear one name in the paper, "optimistic asymmetric clipping", and differ: near 0
    the first has slopes 0.3 and 1, the second 0.3 and 5.

    Args:
      rewards: <float32> of any shape.
      kind: one of REWARD_CLIPPINGS.

    Raises:
      ValueError: an unknown kind.
    """
    if kind == "none":
        return rewards
    if kind == "abs_one":
        return tf.clip_by_value(rewards, -1.0, 1.0)
    if kind == "soft_asymmetric":
        squeezed = 5.0 * tf.tanh(rewards / 5.0)
        return tf.where(rewards < 0.0, 0.3 * squeezed, squeezed)
    if kind == "asymmetric_paper":
        squeezed = tf.tanh(rewards)
        return 0.3 * tf.minimum(squeezed, 0.0) + 5.0 * tf.maximum(squeezed, 0.0)
    raise ValueError(f"unknown reward clipping {kind!r}; use one of {', '.join(REWARD_CLIPPINGS)}")
