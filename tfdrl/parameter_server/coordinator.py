"""The coordinator: counts for the run, watches the parameter servers, publishes what they hold.

Workers compute and servers update without it; it decides when the run ends, keeps the checkpoint
that is evaluated and continued, and orders a rollback when training goes wrong.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdrl.acting.exploration import collect_policy
from tfdrl.environments.stated_returns import ANY_RETURN
from tfdrl.errors import DivergedError, TfdrlError
from tfdrl.experiment import Experiment
from tfdrl.learning.session import LearnerSession
from tfdrl.parameter_server.age_histogram import mean_age
from tfdrl.parameter_server.client import GlobalParameters
from tfdrl.parameter_server.divergence import Divergence
from tfdrl.parameter_server.settings import ParameterServerSettings
from tfdrl.parameter_server.watch import ParameterWatch
from tfdrl.runtime import agent_factory
from tfdrl.runtime.metrics import Every, Rate
from tfdrl.topology import Addresses, Context

_TICK_SECS = 0.05
_WATCH_SECS = 1.0
_SILENCE_SECS = 10.0


class Learner(NamedTuple):
    """What a role of the run holds of what is learnt.

    agent      a TFAgent
    variables  that its loss trains, in the same order in every role
    moments    its running statistics, as of `LossGradient`
    specs      text of the environment's specs
    returns    the least and the greatest of an episode, as the environment says
    """

    agent: Any
    variables: Sequence[tf.Variable]
    moments: Sequence[tf.Variable]
    specs: str
    returns: tuple[float, float] = ANY_RETURN


def make_learner(environment: Callable, agent: Callable, gradient: Callable, seed: int) -> Learner:
    """The agent with the run's initial values, what its loss trains, and the specs.

    Args:
      environment, agent: factories.
      gradient: `gradient(agent, policy, environment) -> LossGradient`.
      seed: of the run.
    """
    agent_factory.set_seed(seed)
    with environment(num_envs=1, training=True, seed=seed) as one:
        made = agent_factory.make_agent(agent, one)
        found = gradient(made, collect_policy(made, [0.0], 0), one)
        specs = agent_factory.specs_text(one)
        return Learner(made, found.variables, found.moments, specs, one.return_range)


def run(
    experiment: Experiment,
    context: Context,
    learner: Learner,
    addresses: Addresses,
    *,
    settings: ParameterServerSettings,
    publish_period_secs: float,
    checkpoint_period_secs: float,
    timeout_secs: float,
    barrier: int = 0,
    replay_ratio: float | None = None,
) -> None:
    """Coordinates until the run's end.

    Args:
      experiment: its limits.
      context: of the role.
      learner: whose agent is published, checkpointed and evaluated.
      addresses: of the parameter servers.
      settings: of the parameter servers.
      publish_period_secs: between two pulls.
      checkpoint_period_secs: between checkpoints of the policy and the counters.
      timeout_secs: how long a server may be away.
      barrier: as the workers have it.
      replay_ratio: by which items are counted; None for no ratio.

    Raises:
      UnavailableError: a server is away for too long.
      ConfigurationError: one belongs to another run; the root_dir or port is in use.
      DivergedError: training went wrong more often than it may be set back.
    """
    agent = learner.agent
    parameters = GlobalParameters(
        *(addresses, learner.variables, settings, context, timeout_secs, barrier),
        moments=learner.moments,
    )
    watch = ParameterWatch(addresses, context.role)
    if not parameters.connect():
        return parameters.close()
    watch.connect(timeout_secs, context.stop)
    session = LearnerSession(
        experiment,
        context,
        agent,
        learner.specs,
        publish_period_steps=1,
        checkpoint_period_secs=checkpoint_period_secs,
        returns=learner.returns,
    )
    if session.restored:  # the checkpoint's parameters are in the agent now; the servers have newer
        parameters.refresh()
        _require_progress(session.step, parameters.version)
    count_for_ratio(session, replay_ratio)
    metrics = ServerMetrics(watch, settings)
    silence = ReportWatch()
    pull_is_due = Every(publish_period_secs, at_once=True)
    watch_is_due = Every(_WATCH_SECS)
    updates = max(parameters.version, 0)
    with session:
        while session.goes_on():
            if pull_is_due() and parameters.pull():
                # After a server's restart the version may be smaller; the count goes on.
                grown = max(parameters.version - updates, 1)
                updates = parameters.version
                count_updates(agent.train_step_counter, grown)
                session.count(grown)
            if watch_is_due() and not context.stop.is_set():
                metrics.look()
                silence.look(session.service.role_metrics())
            session.tick(metrics.take)
            context.stop.wait(_TICK_SECS)
    parameters.close()
    watch.close()


def count_updates(counter: tf.Variable, updates: int) -> None:
    """Adds to the counter of updates, <int64>[]."""
    # As an array: TensorFlow keeps each Python number that it was ever given, 800 bytes of it.
    counter.assign_add(np.int64(updates))


def count_for_ratio(session: LearnerSession, ratio: float | None) -> None:
    """Begins the counting of items anew after a run that had another replay ratio, or none.

    As if nothing had been inserted: only learners know how much the replays hold, and both they
    and the actors may go on from there.
    """
    inserted = 0 if session.restored else session.service.items().inserted
    session.service.count_for_ratio(ratio, inserted)


def _require_progress(step: int, version: int) -> None:
    """Raises TfdrlError if the servers lost what the run's checkpoint knows of."""
    if step and not version:
        raise TfdrlError(
            f"the run's checkpoint is of learner step {step}, but the parameter servers hold "
            "initial values: start them with the --root_dir that has their parameters-<task>, or "
            "begin another run"
        )


class ReportWatch:
    """Says so, again and again, while nobody who acts or learns reports: the run waits for them."""

    def __init__(self):
        self._warning_is_due = Every(_SILENCE_SECS)

    def look(self, reports: Mapping[tuple[str, int], tuple[float, Any]]) -> None:
        """Takes the seconds since each role's last report, by role and task."""
        ages: dict[str, float] = {}
        for (role, _), (seconds, _) in reports.items():
            if role != "evaluator":
                ages[role] = min(seconds, ages.get(role, seconds))
        for role, seconds in ages.items():
            if seconds > _SILENCE_SECS and self._warning_is_due():
                logging.warning("no %s has reported for %.0f s; waiting for them", role, seconds)


class ServerMetrics:
    """The servers' counters as metrics of the run, and what to do when training goes wrong.

    Args:
      watch: asked.
      settings: of the servers.
    """

    def __init__(self, watch: ParameterWatch, settings: ParameterServerSettings):
        self._watch = watch
        self._divergence = Divergence(settings)
        self._rates: dict[str, Rate] = {}
        self._statuses: list[dict | None] = []
        self._values: dict[str, float] = {}
        self._untold: dict[int, int] = {}  # orders by task, to be repeated

    def look(self) -> None:
        """Asks all servers; orders a rollback if it must be. Raises DivergedError."""
        self._statuses = self._watch.statuses()
        first = self._statuses[0]
        if not first:
            return
        try:
            order = self._divergence.add(first)
        except DivergedError:
            self._watch.freeze()
            raise
        self._values = self._numbers(first)
        if order is not None:
            logging.warning("going back to version %d: %s", order.version, order.reason)
            self._untold = self._watch.rollback(order.version)
        elif self._untold:
            self._untold = self._watch.tell(self._untold)
        if self._untold:
            logging.warning("not told to go back, yet: parameter servers %s", [*self._untold])

    def take(self) -> dict[str, float]:
        """The metrics as of the last look."""
        return dict(self._values)

    def _numbers(self, first: dict) -> dict[str, float]:
        values = {
            "parameter_server/epoch": first["epoch"],
            "parameter_server/rollbacks": first["rollbacks"],
        }
        if not math.isnan(self._divergence.mean_loss):  # of the first gradient on
            values["learner/loss"] = self._divergence.mean_loss
        values |= {f"gradients/{name}": count for name, count in first["verdicts"].items()}
        age = mean_age(first["ages"])
        if age is not None:
            values["gradients/age"] = age
        for task, status in enumerate(self._statuses):
            if not status:
                continue
            for name, key in (("versions", "version"), ("pulls", "pulls"), ("bytes", "bytes")):
                rate = self._rates.setdefault(f"{name}{task}", Rate(status[key]))
                name = f"parameter_server_{task}/{name}_per_second"
                values[name] = max(0.0, rate.take(status[key]))  # smaller after a restart
        return values
