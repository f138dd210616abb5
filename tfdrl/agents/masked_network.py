"""Networks that never prefer a forbidden action: the one place where agents obey action masks.

TF-Agents' name for what takes a mask out of an observation is
`observation_and_action_constraint_splitter(observation) -> (rest, mask)`. An agent that is given
one wraps its networks: they see the rest, and what they say of forbidden actions is replaced, so
that neither a greedy action, nor a sample, a bootstrap or an entropy is of one.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import gin
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import network as tfa_network

from tfdrl.agents.actor_critic_policy import ActorCriticInput
from tfdrl.errors import ConfigurationError
from tfdrl.networks.actor_critic_heads import mask_of_elements
from tfdrl.networks.observations import num_categories
from tfdrl.ops import action_masks

#: The argument of TF-Agents' agents, and of those here.
ARGUMENT = "observation_and_action_constraint_splitter"


def splitter_of(key: str) -> Callable:
    """The splitter of observations whose part `key` is the mask.

    The rest is the Dict without it; if one part is left, that part by itself.
    """

    def split(observation):
        rest = {name: part for name, part in observation.items() if name != key}
        return (next(iter(rest.values())) if len(rest) == 1 else rest), observation[key]

    return split


class ShownMask:
    """The splitter of observations whose part `key` is a mask that networks see, too."""

    def __init__(self, key: str):
        self._key = key

    def __call__(self, observation):
        return observation, observation[self._key]


def mask_alone(splitter: Callable | None) -> Callable | None:
    """The splitter for policies whose network takes the whole observation, as a masked one does."""
    return splitter and (lambda observation: (observation, splitter(observation)[1]))


def bound_splitter(agent: Callable) -> Callable | None:
    """What gin binds to the splitter of an agent's class or factory; None if nothing."""
    for base in getattr(agent, "__mro__", (agent,)):  # gin makes subclasses that it does not know
        try:
            bindings = gin.get_bindings(base, resolve_references=False)
        except ValueError:  # gin does not know it
            continue
        if ARGUMENT in bindings:
            return copy.deepcopy(bindings[ARGUMENT])  # which resolves a reference
    return None


def splitter_argument(agent: Callable, splitter: Callable | None) -> dict[str, Callable]:
    """The keyword argument by which an agent's class or factory gets the splitter.

    None if there is no splitter, or if gin binds one to it, which stands; or if it has no such
    argument, and nobody has named the mask.

    Raises:
      ConfigurationError: it has no such argument.
    """
    if splitter is None or bound_splitter(agent) is not None:
        return {}
    # gin's decoration hides the signature of a class, but not that of its __init__.
    function = agent.__init__ if inspect.isclass(agent) else agent
    parameters = inspect.signature(function).parameters.values()
    is_named = not isinstance(splitter, ShownMask)
    if any(p.name == ARGUMENT or (p.kind is p.VAR_KEYWORD and is_named) for p in parameters):
        return {ARGUMENT: splitter}
    if not is_named:
        return {}
    raise ConfigurationError(
        f"the agent {getattr(agent, '__name__', agent)} takes no action masks (it has no argument "
        f"{ARGUMENT}), but the environment's setting action_mask names one; use NStepDqnAgent, "
        "R2D2Agent, NStepQAgent, VTraceAgent, NStepActorCriticAgent or, of TF-Agents, DqnAgent or "
        "PPOClipAgent"
    )


def masked(
    network: Callable, splitter: Callable | None, agent: str, obeys: bool = True
) -> Callable:
    """The factory of networks that see what the splitter leaves, and obey its mask.

    Args:
      network: `network(input_spec, action_spec)`; its output is Q-values <float>[..., A], a
        Categorical (or independent ones of an array of actions), or a pair of one and a value.
      splitter: None leaves `network` as it is.
      agent: whose setting it is, for error sentences.
      obeys: False if the output is no preference of actions, and stays.
    """
    if splitter is None:
        return network
    return lambda input_spec, action_spec: MaskedNetwork(
        input_spec, action_spec, network, splitter, agent, obeys
    )


def obeys_mask(agent) -> bool:
    """Whether what a TFAgent collects with is kept to what a mask allows."""
    policy = agent.collect_policy
    return policy.observation_and_action_constraint_splitter is not None or any(
        isinstance(module, MaskedNetwork) for module in policy.submodules
    )


def rest_of(observation_spec, splitter: Callable, agent: str):
    """The spec of what the splitter leaves. Raises ConfigurationError if it fails."""
    return _split_spec(observation_spec, splitter, agent)[0]


class MaskedNetwork(tfa_network.Network):
    """A network for the part of its input that a splitter leaves, without forbidden actions.

    Args:
      input_spec: of the whole observation, or an `ActorCriticInput` with it.
      action_spec: one discrete action, or an array of them.
      network, splitter, agent, obeys: see `masked`.

    Raises:
      ConfigurationError: the splitter fails, or its mask is not one number for each value of the
        action; the action is not discrete; a distribution that is no Categorical.
    """

    def __init__(
        self,
        input_spec,
        action_spec,
        network: Callable,
        splitter: Callable,
        agent: str,
        obeys: bool = True,
    ):
        rest, mask = _split_spec(input_spec, splitter, agent)
        _check_mask(mask, action_spec, agent)
        inner = network(rest, action_spec)
        super().__init__(input_spec, state_spec=inner.state_spec, name=inner.name)
        self._network, self._splitter, self._obeys = inner, splitter, obeys
        (self._action_spec,) = tf.nest.flatten(action_spec)

    def call(self, observation, step_type=None, network_state=(), training=False):
        rest, mask = _split(observation, self._splitter)
        outputs, next_state = self._network(
            rest, step_type=step_type, network_state=network_state, training=training
        )
        return (self._obey(outputs, mask) if self._obeys else outputs), next_state

    def _obey(self, outputs, mask):
        if isinstance(outputs, tf.Tensor):
            return action_masks.mask_values(outputs, mask)
        if isinstance(outputs, tfp.distributions.Distribution):
            return _masked_categorical(outputs, mask_of_elements(mask, self._action_spec))
        if isinstance(outputs, (tuple, list)) and len(outputs) == 2:
            return (self._obey(outputs[0], mask), outputs[1])
        return outputs  # the agent's checks say what is wrong with it


def _split(inputs, splitter):
    if not isinstance(inputs, ActorCriticInput):
        return splitter(inputs)
    rest, mask = splitter(inputs.observation)
    return inputs._replace(observation=rest), mask


def _masked_categorical(distribution, mask):
    each = getattr(distribution, "distribution", distribution)  # of independent ones
    if not isinstance(each, tfp.distributions.Categorical):
        raise ConfigurationError(
            "action masks need a policy that is a tfp.distributions.Categorical, or of independent "
            f"ones, but the network's is a {type(each).__name__}"
        )
    logits = action_masks.mask_values(each.logits_parameter(), mask)
    masked_one = tfp.distributions.Categorical(logits=logits, dtype=each.dtype)
    if each is distribution:
        return masked_one
    parts = distribution.parameters["reinterpreted_batch_ndims"]
    return tfp.distributions.Independent(masked_one, reinterpreted_batch_ndims=parts)


def _split_spec(input_spec, splitter, agent: str) -> tuple[Any, Any]:
    try:
        rest, mask = _split(input_spec, splitter)
    except Exception as error:  # whatever a function of the user's raises
        raise ConfigurationError(
            f"{agent}.{ARGUMENT} must give (observation, mask) of the specs of an observation, as "
            f"of an observation; of {input_spec} it raises {type(error).__name__}: {error}"
        ) from error
    return rest, mask


def _check_mask(mask, action_spec, agent: str) -> None:
    flat = tf.nest.flatten(action_spec)
    if len(flat) != 1 or not flat[0].dtype.is_integer:
        raise ConfigurationError(
            f"{agent}.{ARGUMENT}: a mask allows some of the values of a discrete action (a "
            "Gymnasium Discrete or MultiDiscrete space), but the environment's action spec is "
            f"{action_spec}"
        )
    count = sum(num_categories(flat[0]))
    is_mask = isinstance(mask, tf.TypeSpec) and (mask.dtype.is_integer or mask.dtype.is_bool)
    if not is_mask or mask.shape.as_list() != [count]:
        each = "actions" if flat[0].shape.rank == 0 else "values of the action's elements"
        raise ConfigurationError(
            f"{agent}.{ARGUMENT} gives the mask {mask}; one integer or bool for each of the "
            f"{count} {each} is needed, not 0 where it is allowed"
        )
