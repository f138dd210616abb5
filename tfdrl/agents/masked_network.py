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

    None if there is no splitter, or if gin binds one to it, which stands.

    Raises:
      ConfigurationError: it has no such argument.
    """
    if splitter is None or bound_splitter(agent) is not None:
        return {}
    # gin's decoration hides the signature of a class, but not that of its __init__.
    function = agent.__init__ if inspect.isclass(agent) else agent
    parameters = inspect.signature(function).parameters.values()
    if any(p.name == ARGUMENT or p.kind is p.VAR_KEYWORD for p in parameters):
        return {ARGUMENT: splitter}
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
        Categorical, or a pair of one and a value.
      splitter: None leaves `network` as it is.
      agent: whose setting it is, for error sentences.
      obeys: False if the output is no preference of actions, and stays.
    """
    if splitter is None:
        return network
    return lambda input_spec, action_spec: MaskedNetwork(
        input_spec, action_spec, network, splitter, agent, obeys
    )


def rest_of(observation_spec, splitter: Callable, agent: str):
    """The spec of what the splitter leaves. Raises ConfigurationError if it fails."""
    return _split_spec(observation_spec, splitter, agent)[0]


class MaskedNetwork(tfa_network.Network):
    """A network for the part of its input that a splitter leaves, without forbidden actions.

    Args:
      input_spec: of the whole observation, or an `ActorCriticInput` with it.
      action_spec: one scalar discrete action.
      network, splitter, agent, obeys: see `masked`.

    Raises:
      ConfigurationError: the splitter fails, or its mask is not one number for each action; the
        action is not one discrete one; a distribution that is no Categorical.
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

    def call(self, observation, step_type=None, network_state=(), training=False):
        rest, mask = _split(observation, self._splitter)
        outputs, next_state = self._network(
            rest, step_type=step_type, network_state=network_state, training=training
        )
        return (_obey(outputs, mask) if self._obeys else outputs), next_state


def _split(inputs, splitter):
    if not isinstance(inputs, ActorCriticInput):
        return splitter(inputs)
    rest, mask = splitter(inputs.observation)
    return inputs._replace(observation=rest), mask


def _obey(outputs, mask):
    if isinstance(outputs, tf.Tensor):
        return action_masks.mask_values(outputs, mask)
    if isinstance(outputs, tfp.distributions.Distribution):
        return _masked_categorical(outputs, mask)
    if isinstance(outputs, (tuple, list)) and len(outputs) == 2:
        return (_obey(outputs[0], mask), outputs[1])
    return outputs  # the agent's checks say what is wrong with it


def _masked_categorical(distribution, mask):
    if not isinstance(distribution, tfp.distributions.Categorical):
        raise ConfigurationError(
            "action masks need a policy that is a tfp.distributions.Categorical, but the network's "
            f"is a {type(distribution).__name__}"
        )
    logits = action_masks.mask_values(distribution.logits_parameter(), mask)
    return tfp.distributions.Categorical(logits=logits, dtype=distribution.dtype)


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
    if len(flat) != 1 or flat[0].shape.rank != 0 or not flat[0].dtype.is_integer:
        raise ConfigurationError(
            f"{agent}.{ARGUMENT}: a mask allows some of the values of one discrete action (a "
            f"Gymnasium Discrete space), but the environment's action spec is {action_spec}"
        )
    actions = int(flat[0].maximum) - int(flat[0].minimum) + 1
    is_mask = isinstance(mask, tf.TypeSpec) and (mask.dtype.is_integer or mask.dtype.is_bool)
    if not is_mask or mask.shape.as_list() != [actions]:
        raise ConfigurationError(
            f"{agent}.{ARGUMENT} gives the mask {mask}; one integer or bool for each of the "
            f"{actions} actions is needed, not 0 where it is allowed"
        )
