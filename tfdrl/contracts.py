"""What tfdrl asks of an agent, a policy and an architecture that somebody else wrote.

An agent is a `tf_agents.agents.TFAgent`, a policy a `TFPolicy`: the protocols here say what more is
used where it is there, with shapes and with who calls it when. Nothing needs to inherit from them:
an object that has the attributes is one (`isinstance` looks). [B, T] are batch and time, N the
environments of one actor, L = burn_in_steps + T the steps of a sequence.

An environment is a `tfdrl.environments.batched.BatchedEnvironment`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from tfdrl.errors import ConfigurationError
from tfdrl.topology import Program


@runtime_checkable
class ExploringAgent(Protocol):
    """An agent whose actors explore each in its own way (Ape-X, section 4.1: the epsilon ladder).

    Any other agent explores by its `collect_policy`, and its items begin with priority 1.
    """

    def actor_policy(self, exploration: Any, seed: int) -> Any:
        """The policy of an actor; called once, by each actor, before its first step.

        Args:
          exploration: <float>[N], of each environment: an epsilon, or a noise's standard deviation.
          seed: of random actions.

        Returns a TFPolicy for N environments. If its `PolicyStep.info` has `q_taken` and `max_q`,
        each <float32>[N], transitions begin with |TD error| as their priority.
        """


@runtime_checkable
class AnnealedPolicy(Protocol):
    """A policy whose exploration the actor lowers while it acts (DQN, Gorila, A3C)."""

    def set_epsilon(self, epsilon: Any) -> None:
        """<float>[N]: called between two steps, whenever the schedule has another value."""


@runtime_checkable
class SequenceAgent(Protocol):
    """An agent that trains on prioritised sequences, as R2D2 does (Kapturowski 2019, section 2.3).

    `train(experience, policy_state=, last_reward=, weights=)` is given a Trajectory of [B, L + 1,
    ...], the state before its first step and importance weights <float32>[B]. Its
    `LossInfo.extra.priority` <float32>[B] is what the sequences' priorities become.
    """

    burn_in_steps: int

    def initial_priorities(self, q_taken: Any, max_q: Any, experience: Any) -> Any:
        """Priorities <float32>[B] of new sequences, by the Q-values of those who acted.

        Called by an actor for each block of sequences, before it inserts them.

        Args:
          q_taken: <float32>[B, L], Q(s_t, a_t).
          max_q: <float32>[B, L + 1], max_a Q(s_t, a).
          experience: Trajectory of [B, L + 1, ...].
        """


@runtime_checkable
class TdErrors(Protocol):
    """What `LossInfo.extra` of an agent on transitions has for prioritised replay (Ape-X).

    td_error  <float32>[B], of the batch it was given: the new priorities are its absolute values.
    """

    td_error: Any


@runtime_checkable
class Architecture(Protocol):
    """What `experiment.architecture` is: settings, and the program that they describe.

    The launcher asks for `program()` and for nothing else. The evaluator, `tfdrl-evaluate` and
    the check of a gin file build the environment and the agent by the two factories.
    """

    environment: Callable
    agent: Callable

    def program(self) -> Program:
        """The roles, how many of each, and who talks to whom; imports none of their parts."""


def require_sequence_agent(agent: Any, scope: str) -> None:
    """Raises ConfigurationError, with what is missing, unless `agent` is a `SequenceAgent`."""
    missing = [name for name in ("initial_priorities", "burn_in_steps") if not hasattr(agent, name)]
    if missing:
        raise ConfigurationError(
            f"{scope}.agent: {type(agent).__name__} gives no priorities of sequences (it has no "
            f"{' and no '.join(missing)}); use @R2D2Agent, or @apex() for agents that train on "
            "transitions"
        )


def burn_in_steps(agent: Any) -> int:
    """Steps before the trained ones that an agent on unrolls asks for; 0 unless it says so."""
    return getattr(agent, "burn_in_steps", 0)


def lookahead_steps(agent: Any) -> int:
    """Steps after the trained ones that an agent on unrolls asks for (Sarsa); 0 unless it says so.

    Raises:
      ConfigurationError: its policy has a state, of which only that before an unroll is kept.
    """
    steps = getattr(agent, "lookahead_steps", 0)
    if steps and agent.collect_policy.policy_state_spec:
        raise ConfigurationError(
            f"{type(agent).__name__}.lookahead_steps = {steps} with a recurrent policy: unrolls "
            "that share steps would begin with the state of a later one; use a feed-forward network"
        )
    return steps


def arguments_taken(agent: Any, offered: dict[str, Any]) -> dict[str, Any]:
    """What of `offered` the agent's loss takes: `TFAgent.train` hands keywords on to `_train`.

    So an agent on unrolls gets `policy_state` (nest of [B, ...], before index 0) and `last_reward`
    (<float32>[B], that led to index 0) if its `_train` names them, and need not.
    """
    taken = inspect.signature(agent._train).parameters
    return {name: value for name, value in offered.items() if name in taken}
