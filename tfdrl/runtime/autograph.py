"""AutoGraph's conversions: those that nobody needs left out, the others made once, before the fork.

The first trace of a policy spends most of its time in the conversion of the Python functions on
its way, TF-Agents' above all: 1.3 of 1.7 CPU seconds. Two thirds are its `nest_utils`, which look
at structures and static shapes only and mean the same unconverted. Of the rest TensorFlow keeps
what it has converted, by function, and forked roles share it. Converting runs nothing of
TensorFlow.
"""

from __future__ import annotations

import functools
import logging
import sys

#: By module, what the policies of actors call; only where the module was imported. What is not
#: here is converted by the role that needs it, as ever.
_FUNCTIONS = {
    "tf_agents.policies.tf_policy": ("TFPolicy.action",),
    "tf_agents.networks.network": ("Network.__call__",),
    "tf_agents.utils.common": (
        "check_tf1_allowed",
        "has_eager_been_enabled",
        "safe_has_state",
        "clip_to_spec",
    ),
    "tfdrl.agents.q_policy": ("EpsilonGreedyQPolicy._action",),
    "tfdrl.agents.recurrent_q_policy": ("RecurrentQPolicy._action",),
    "tfdrl.agents.noisy_policy": ("NoisyPolicy._action", "_leaf"),
    "tfdrl.agents.actor_critic_policy": (
        "ActorCriticPolicy._action",
        "ActorCriticPolicy._choose",
        "network_input",
        "parameters",
    ),
    "tfdrl.networks.q_networks": (
        "TorsoQNetwork.call",
        "MlpQNetwork.preprocess",
        "NatureQNetwork.preprocess",
        "_apply",
    ),
    "tfdrl.networks.recurrent_q_networks": (
        "TorsoRecurrentQNetwork.call",
        "TorsoRecurrentQNetwork._recur",
        "_apply",
    ),
    "tfdrl.networks.actor_critic_networks": (
        "ActorCriticNetwork.__call__",
        "TorsoActorCriticNetwork.call",
        "TorsoActorCriticNetwork._recur",
    ),
    "tfdrl.networks.actor_critic_heads": (
        "CategoricalHead.call",
        "GaussianHead.call",
        "categorical",
        "gaussian",
        "_dims",
    ),
    "tfdrl.networks.torsos": ("MlpTorso.call",),
    "tfdrl.networks.outer_dims": ("outer_dims", "merge_outer_dims", "split_outer_dims"),
    "tfdrl.ops.q_learning": ("dueling",),
}

#: Never converted: no Python branch or loop in them depends on a tensor's value.
_UNCONVERTED = ("tf_agents.utils.nest_utils", "tfdrl.networks.observations")


def leave_unconverted() -> None:
    """AutoGraph calls the functions of these modules as they are, in this process from here on."""
    try:
        from tensorflow.python.autograph.core import config

        known = set(map(str, config.CONVERSION_RULES))
        rules = map(config.DoNotConvert, _UNCONVERTED)
        config.CONVERSION_RULES += tuple(rule for rule in rules if str(rule) not in known)
    except Exception as error:  # TensorFlow's own parts, which may change; it only costs time
        logging.warning("AutoGraph's rules could not be added to: %s", error)


def convert_ahead() -> int:
    """Converts them; returns how many. One that cannot be is left to the roles, with a warning."""
    from tensorflow.python.autograph.core import converter
    from tensorflow.python.autograph.impl import api

    leave_unconverted()

    # As within a tf.function, of what it calls.
    options = converter.ConversionOptions(recursive=True, optional_features=None)
    done = 0
    for module, names in _FUNCTIONS.items():
        for name in names if module in sys.modules else ():
            try:
                function = functools.reduce(getattr, name.split("."), sys.modules[module])
                api._convert_actual(function, converter.ProgramContext(options=options))
                done += 1
            except Exception as error:  # TensorFlow's own parts, which may change
                logging.warning("%s.%s was not converted ahead: %s", module, name, error)
    return done
