"""The evaluator: plays the greedy policy of each new version it can keep up with."""

from __future__ import annotations

import logging
import pathlib
import time

from tfdrl.acting.learner_connection import LearnerConnection
from tfdrl.acting.run_connection import no_episodes
from tfdrl.errors import UnavailableError
from tfdrl.evaluation.episodes import play, summarise
from tfdrl.evaluation.policy_export import PolicyExport
from tfdrl.experiment import Experiment
from tfdrl.runtime import agent_factory
from tfdrl.runtime.compiled import act_function
from tfdrl.runtime.metrics import MetricsWriter
from tfdrl.topology import Address, Context


def evaluate_until_stopped(
    experiment: Experiment, context: Context, learner: Address, timeout_secs: float
) -> None:
    """Evaluates, exports the best policy, reports; then waits for newer parameters.

    Training wrappers are off, returns are raw, every episode is whole. The policy is exported
    before the learner hears of it, so that a run which ends there has its policy on disk.
    """
    config = experiment.architecture
    environment = config.environment(
        num_envs=min(experiment.evaluation_episodes, config.evaluation_environments),
        training=False,
        seed=experiment.seed + 1_000_003,
    )
    agent = agent_factory.make_agent(config.agent, environment)
    policy, act = agent.policy, act_function(agent.policy)
    connection = LearnerConnection(
        learner,
        context,
        agent.collect_policy.variables(),
        agent_factory.specs_text(environment),
        timeout_secs,
    )
    connection.start()
    metrics = MetricsWriter(context.root_dir, context.role, context.task)
    export = PolicyExport(policy, pathlib.Path(context.root_dir) / "policy")
    while not context.stop.is_set():
        start_secs, version, frames = time.monotonic(), connection.version, connection.frames_total
        returns = play(
            environment,
            act,
            policy.get_initial_state,
            experiment.evaluation_episodes,
            context.stop.is_set,
        )
        if len(returns) < experiment.evaluation_episodes:
            break
        evaluation = summarise(returns, version, frames, start_secs)
        export.offer(evaluation)
        metrics.write(version, {"evaluation/return": evaluation.mean})
        _report(connection, evaluation, context)
        connection.report(0, {"evaluation/seconds": evaluation.seconds}, no_episodes())
        rest_secs = config.evaluation_period_secs - (time.monotonic() - start_secs)
        context.stop.wait(max(rest_secs, 0.0))
        connection.wait_for_newer(period_secs=0.2)
    connection.close()
    environment.close()


def _report(connection: LearnerConnection, evaluation, context: Context) -> None:
    """Tells the learner, which may be restarting; it gives up after its limit."""
    while not context.stop.is_set():
        try:
            return connection.report_now(evaluation=evaluation)
        except UnavailableError as error:
            logging.warning("the evaluation could not be reported, trying again: %s", error)
            connection.apply_newest()
            context.stop.wait(1.0)
