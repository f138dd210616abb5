"""Any agent, trained on observations and rewards that running statistics scale."""

from __future__ import annotations

import functools
from typing import Any

import gin
from tf_agents.agents import tf_agent

from tfdrl.agents.normalized_policy import NormalizedPolicy
from tfdrl.agents.running_statistics import RunningStatistics
from tfdrl.errors import ConfigurationError

#: What else is asked of TF-Agents' agents, which have no public name for it.
_PRIVATE = ("_gamma", "_gradient_clipping")


@gin.configurable
def normalization(
    agent: tf_agent.TFAgent,
    observations: bool = False,
    returns: bool = False,
    clip: float | None = 10.0,
) -> tf_agent.TFAgent:
    """The agent with running statistics, or as it is.

    The learner counts what it trains on, before it trains on it. The sums are variables of the
    policies: checkpoints, published parameters and the exported policy have them, and only the
    learner adds to them. Online and target networks see the same.

    Args:
      agent: any TFAgent that trains on trajectories.
      observations: whether each element of float observations is scaled to mean 0 and standard
        deviation 1 (as Baselines' VecNormalize does, but for all actors together).
      returns: whether rewards are divided by the standard deviation of the discounted rewards
        along what the learner trains on: an unroll, or the n steps of a transition. Their mean
        is not subtracted, which would change the task.
      clip: scaled observations are clipped to [-clip, clip]; None for none.

    Raises:
      ConfigurationError: nothing in the observations can be scaled; the agent names no discount
        factor, or scales its values by itself.
    """
    if clip is not None and not clip > 0:
        raise ConfigurationError(f"normalization.clip = {clip} must be positive, or None for none")
    if not observations and not returns:
        return agent
    gamma = _discount(agent) if returns else None
    observation_spec = agent.time_step_spec.observation if observations else None
    splitter = agent.collect_policy.observation_and_action_constraint_splitter
    mask = splitter(observation_spec)[1] if splitter and observations else None
    return NormalizedAgent(agent, RunningStatistics(observation_spec, gamma, clip, mask))


def _discount(agent: tf_agent.TFAgent) -> float:
    name = type(agent).__name__
    if hasattr(agent, "initial_priorities"):
        raise ConfigurationError(
            f"normalization.returns = True, but {name} takes its priorities from values that it "
            "rescales by itself (R2D2Agent.rescaling_epsilon): leave it out"
        )
    gamma = getattr(agent, "gamma", getattr(agent, "_gamma", None))
    if gamma is None:
        raise ConfigurationError(
            f"normalization.returns = True, but {name} names no discount factor (attribute gamma)"
        )
    return float(gamma)


class NormalizedAgent(tf_agent.TFAgent):
    """An agent behind running statistics; it has the other attributes of that agent.

    Args:
      agent: a TFAgent that trains on trajectories.
      statistics: it adds to them what it trains on.
    """

    def __init__(self, agent: tf_agent.TFAgent, statistics: RunningStatistics):
        # With the signature of the agent's, which says what it can be given.
        train = functools.partial(type(self)._train, self)
        self._train = functools.wraps(agent._train)(train)
        super().__init__(
            agent.time_step_spec,
            agent.action_spec,
            NormalizedPolicy(agent.policy, statistics),
            NormalizedPolicy(agent.collect_policy, statistics),
            train_sequence_length=agent.train_sequence_length,
            train_step_counter=agent.train_step_counter,
        )
        self._name = agent.name
        self._agent, self.statistics = agent, statistics
        if hasattr(agent, "actor_policy"):
            self.actor_policy = self._actor_policy

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") and name not in _PRIVATE:  # tf.Module asks for what need not exist
            raise AttributeError(name)
        return getattr(self._agent, name)

    def _actor_policy(self, exploration, seed: int) -> NormalizedPolicy:
        return NormalizedPolicy(self._agent.actor_policy(exploration, seed), self.statistics)

    def _initialize(self):
        return self._agent.initialize()

    def _train(self, experience, weights=None, **arguments):
        self.statistics.update(experience)
        info = self._agent.train(
            self._scaled(experience), weights=weights, **self._scaled_arguments(arguments)
        )
        return self._unscaled(info)

    def _loss(self, experience, weights=None, training=False, **arguments):
        info = self._agent.loss(
            self._scaled(experience),
            weights=weights,
            training=training,
            **self._scaled_arguments(arguments),
        )
        return self._unscaled(info)

    def _scaled(self, experience):
        return experience._replace(
            observation=self.statistics.scaled_observation(experience.observation),
            reward=self.statistics.scaled_reward(experience.reward),
        )

    def _scaled_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        last_reward = arguments.get("last_reward")
        if last_reward is None:
            return arguments
        return {**arguments, "last_reward": self.statistics.scaled_reward(last_reward)}

    def _unscaled(self, info: tf_agent.LossInfo) -> tf_agent.LossInfo:
        return info._replace(extra=self.statistics.unscaled_values(info.extra))
