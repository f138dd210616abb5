"""What `check_distribution` finds in networks that do not fit, each with the sizes it names."""

import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import network
from tf_agents.specs import BoundedTensorSpec

from tfdrl.errors import ConfigurationError
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork, check_distribution

tfd = tfp.distributions
VECTOR = tf.TensorSpec([4], tf.float32)
DISCRETE = BoundedTensorSpec([], tf.int32, 0, 2)
CONTINUOUS = BoundedTensorSpec([2], tf.float32, -1.0, 1.0)


class Given(network.Network):
    """A network whose outputs are a function of its input."""

    def __init__(self, outputs, name="Given"):
        super().__init__(VECTOR, state_spec=(), name=name)
        self._outputs = outputs

    def call(self, observation, step_type=None, network_state=(), training=False):
        return self._outputs(observation), ()


def value(x):
    return x[..., 0]


def logits(number):
    return lambda x: tf.zeros([*x.shape[:-1], number])


def categorical(number, **kwargs):
    return lambda x: (tfd.Categorical(logits(number)(x), **kwargs), value(x))


def normals(x):
    return tfd.Normal(x[..., :2], 1.0)


@pytest.mark.parametrize("action", [DISCRETE, CONTINUOUS])
@pytest.mark.parametrize("lstm_units", [None, 4])
@pytest.mark.parametrize("separate_critic", [False, True])
def test_ours_pass(action, lstm_units, separate_critic):
    check_distribution(
        MlpActorCriticNetwork(
            VECTOR, action, lstm_units=lstm_units, separate_critic=separate_critic
        ),
        action,
    )


@pytest.mark.parametrize(
    ("outputs", "action"),
    [
        (categorical(3), DISCRETE),
        (categorical(3, dtype=tf.int64), DISCRETE),
        (lambda x: (tfd.Categorical(probs=logits(3)(x) + 1 / 3), value(x)), DISCRETE),
        (lambda x: (tfd.Independent(normals(x), 1), value(x)), CONTINUOUS),
        (lambda x: (tfd.MultivariateNormalDiag(x[..., :2], x[..., :2]), value(x)), CONTINUOUS),
        (lambda x: [tfd.MultivariateNormalDiag(x[..., :2]), value(x)], CONTINUOUS),
    ],
)
def test_a_users_network_that_fits(outputs, action):
    check_distribution(Given(outputs), action)


@pytest.mark.parametrize(
    ("outputs", "action", "message"),
    [
        (categorical(5), DISCRETE, r"logits of the wrong size: 5, but there are 3 actions"),
        (categorical(2), DISCRETE, r"logits of the wrong size: 2, but there are 3 actions"),
        (
            lambda x: (normals(x), value(x)),
            CONTINUOUS,
            r"Normal of the event shape \[\], but an action has the shape \[2\]; .*Independent",
        ),
        (
            lambda x: (tfd.MultivariateNormalDiag(x), value(x)),
            CONTINUOUS,
            r"event shape \[4\], but an action has the shape \[2\]",
        ),
        (
            lambda x: (tfd.OneHotCategorical(logits(3)(x)), value(x)),
            DISCRETE,
            r"event shape \[3\], but an action has the shape \[\]",
        ),
        (
            lambda x: (tfd.Normal(value(x), 1.0), value(x)),
            DISCRETE,
            r"Normal over float32, but actions are int32",
        ),
        (
            lambda x: (tfd.Categorical(logits(3)(x[:, None])), value(x)),
            DISCRETE,
            r"distribution has the batch shape \[3, 1\]",
        ),
        (
            lambda x: (tfd.Categorical(logits(3)(x)), x[..., :1]),
            DISCRETE,
            r"\[B, \.\.\.\].*one for each step, \[3\], but its value has the shape \[3, 1\]",
        ),
        (
            lambda x: (tfd.Categorical(logits(3)(x)), tf.reduce_mean(x)),
            DISCRETE,
            r"one for each step, \[3\], but its value has the shape \[\]",
        ),
        (
            # Right for [B, ...]; for sequences, one value for each of them.
            lambda x: (
                tfd.Categorical(logits(3)(x)),
                tf.reduce_mean(x, axis=range(1, len(x.shape))),
            ),
            DISCRETE,
            r"\[B, T, \.\.\.\].*one for each step, \[3, 2\], but its value has the shape \[3\]",
        ),
        (
            logits(3),
            DISCRETE,
            r"\(\(distribution, value\), next_state\), but its output is \w*Tensor",
        ),
        (
            lambda x: (logits(3)(x), value(x)),
            DISCRETE,
            r"must return \(\(distribution, value\), next_state\), but its output is .*, ",
        ),
        (
            lambda x: tfd.Categorical(logits(3)(x)),
            DISCRETE,
            r"must return .* its output is Categorical",
        ),
        (
            lambda x: (
                tfd.Categorical(tf.matmul(x, tf.zeros([4, 3]), name="a")),
                tf.ensure_shape(value(x), [None]),
            ),
            DISCRETE,
            r"given \[B, T, \.\.\.\] = \[3, 2, \.\.\.\], fails: .*learning \[B, T",
        ),
        (categorical(3), (DISCRETE, DISCRETE), "chooses one action"),
    ],
)
def test_what_does_not_fit(outputs, action, message):
    with pytest.raises(ConfigurationError, match=f"(?s){message}") as caught:
        check_distribution(Given(outputs, name="MyNetwork"), action)
    assert "MyNetwork" in str(caught.value) or "one action" in message
