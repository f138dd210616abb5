"""The evaluator: plays the greedy policy of each new version it can keep up with."""

from __future__ import annotations

import logging
import pathlib
import time
from collections.abc import Callable

from tfdrl.acting.joining import connected
from tfdrl.acting.learner_connection import LearnerConnection
from tfdrl.acting.run_connection import no_episodes
from tfdrl.errors import UnavailableError
from tfdrl.evaluation.episodes import play, summarise
from tfdrl.evaluation.policies import evaluation_policy
from tfdrl.evaluation.policy_export import PolicyExport
from tfdrl.runtime import agent_factory
from tfdrl.runtime.compiled import act_function
from tfdrl.runtime.metrics import MetricsWriter
from tfdrl.topology import Address, Context


def evaluate_until_stopped(
    learner: Address,
    context: Context,
    *,
    environment: Callable,
    agent: Callable,
    num_envs: int,
    episodes: int,
    policy: Callable | None = None,
    seed: int,
    period_secs: float,
    timeout_secs: float,
    plays_untrained: bool = True,
) -> None:
    """Evaluates, exports the best policy, reports; then waits for newer parameters.

    Training wrappers are off, returns are raw, every episode is whole. The policy is exported
    before the learner hears of it, so that a run which ends there has its policy on disk.

    Args:
      learner: who counts for the run and serves parameters.
      context: of the evaluator.
      environment, agent: factories.
      num_envs: environments that are stepped together, if there are as many episodes.
      episodes: of one evaluation.
      policy: as `Experiment.evaluation_policy`.
      seed: of the run.
      period_secs: from the start of one evaluation to the next, at least.
      timeout_secs: how long the learner may be away.
      plays_untrained: parameters that have not learned a step are evaluated, too; else the first
        evaluation waits for newer ones, and leaves its core to training.
    """
    num_envs = min(episodes, num_envs)
    batched = environment(num_envs=num_envs, training=False, seed=seed + 1_000_003)
    made = agent_factory.make_agent(agent, batched)
    played = evaluation_policy(policy, made, num_envs, seed + 1_000_003)
    act, initial_state = act_function(played), played.get_initial_state
    metrics = MetricsWriter(context.root_dir, context.role, context.task)
    export = PolicyExport(made.policy, pathlib.Path(context.root_dir) / "policy")
    stop = context.stop
    with connected(learner, context, batched, made, timeout_secs) as connection:
        if not plays_untrained and not connection.version:
            connection.wait_for_newer(period_secs=0.2)
        while not stop.is_set():
            version, frames = connection.version, connection.frames_total
            start_secs = time.monotonic()
            returns = play(batched, act, initial_state, episodes, stop.is_set)
            if len(returns) < episodes:
                break
            evaluation = summarise(returns, version, frames, start_secs)
            export.offer(evaluation)
            metrics.write(version, {"evaluation/return": evaluation.mean})
            _report(connection, evaluation, context)
            connection.report(0, {"evaluation/seconds": evaluation.seconds}, no_episodes())
            rest_secs = period_secs - (time.monotonic() - start_secs)
            stop.wait(max(rest_secs, 0.0))
            connection.wait_for_newer(period_secs=0.2)


def _report(connection: LearnerConnection, evaluation, context: Context) -> None:
    """Tells the learner, which may be restarting; it gives up after its limit."""
    while not context.stop.is_set():
        try:
            return connection.report_now(evaluation=evaluation)
        except UnavailableError as error:
            logging.warning("the evaluation could not be reported, trying again: %s", error)
            connection.apply_newest()
            context.stop.wait(1.0)
