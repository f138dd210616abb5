"""What a run of one process does beside its algorithm: continue exactly, evaluate, checkpoint."""

from __future__ import annotations

import logging
import pathlib
import random
import re
import shutil
import time
from collections.abc import Callable

import numpy as np

from tfdrl.environments.returned import checked
from tfdrl.evaluation.episodes import play, summarise
from tfdrl.evaluation.policies import evaluation_policy
from tfdrl.evaluation.policy_export import PolicyExport
from tfdrl.experience.uniform_replay import UniformReplay
from tfdrl.experiment import Experiment
from tfdrl.learning.session import LearnerSession
from tfdrl.learning.update_pace import UpdatePace
from tfdrl.rpc import training_pb2
from tfdrl.rpc.run_messages import finite_episodes
from tfdrl.runtime.compiled import act_function
from tfdrl.runtime.metrics import Every
from tfdrl.topology import Context
from tfdrl.types import Episodes, Nest, TimeSteps, map_specs

_REPORT_PERIOD_SECS = 1.0
_KEPT_REPLAYS = 3  # as many as checkpoints


class TrainingEnvironments:
    """N environments, made anew at each checkpoint by nothing but the seed and the steps made.

    Args:
      make: environment factory.
      num_envs: N.
      seed: of the run.
      steps: agent steps that were made in earlier starts.

    Attributes:
      time_step: the newest; what the next action answers.
      action: that led to it; None if none did.
      steps: agent steps so far, over all environments and starts.
    """

    def __init__(self, make: Callable, num_envs: int, seed: int, steps: int = 0):
        self._make, self._num_envs, self._seed = make, num_envs, seed
        self.steps, self._episodes = steps, []
        self._begin()

    def step(self, action: Nest) -> TimeSteps:
        """Steps all of them; returns the next time step."""
        self.time_step = checked(self._environment, self._environment.step(action))
        self.action = action
        self.steps += self._environment.steps_made(self.time_step)
        return self.time_step

    def restart(self) -> None:
        """Leaves the running episodes where they are and begins others."""
        self._episodes.append(self._environment.take_episodes())
        self._environment.close()
        self._begin()

    def take_episodes(self) -> Episodes:
        """Those that have ended since the last call."""
        ended = [*self._episodes, self._environment.take_episodes()]
        self._episodes = []
        return Episodes(*(np.concatenate(parts) for parts in zip(*ended)))

    def frames(self, steps: int) -> int:
        """Environment frames of so many agent steps."""
        return steps * self._environment.frames_per_step

    def no_action(self) -> Nest:
        """Zeros of the form of an action for all of them."""

        def zeros(spec):
            return np.zeros((self._num_envs, *spec.shape), spec.dtype)

        return map_specs(zeros, self._environment.action_spec)

    def close(self) -> None:
        self._environment.close()

    def _begin(self) -> None:
        self._environment = self._make(
            num_envs=self._num_envs, training=True, seed=self._seed + self.steps
        )
        self.time_step = checked(self._environment, self._environment.reset())
        self.action = None


class OneProcess:
    """A run whose only process acts and learns; started again it goes on as if never stopped.

    Args:
      experiment: its limits.
      context: of the one role.
      agent: that learns.
      specs: text of the environment's specs.
      returns: the least and the greatest of an episode, as the environment says.
      policy: that acts; its `generator` of random numbers, if it has one, is checkpointed.
      replay, pace: what else a checkpoint holds.
      make_environment: environment factory.
      num_envs, evaluation_environments: stepped together in training, and in evaluation.
      evaluation_period_steps, checkpoint_period_steps: agent steps from one to the next.

    Attributes:
      agent: that learns.
      session: the learner's session.
      environments: the training environments.
    """

    def __init__(
        self,
        experiment: Experiment,
        context: Context,
        agent,
        specs: str,
        returns: tuple[float, float],
        policy,
        replay: UniformReplay,
        pace: UpdatePace,
        make_environment: Callable,
        *,
        num_envs: int,
        evaluation_environments: int,
        evaluation_period_steps: int,
        checkpoint_period_steps: int,
    ):
        self._experiment, self._context, self.agent = experiment, context, agent
        self._replay, self._pace, self._make_environment = replay, pace, make_environment
        self._evaluation_period_steps = evaluation_period_steps
        self._checkpoint_period_steps = checkpoint_period_steps
        self._root_dir = pathlib.Path(context.root_dir)
        generator = getattr(policy, "generator", None)
        self.session = LearnerSession(
            experiment,
            context,
            agent,
            specs,
            objects={} if generator is None else {"generator": generator},
            publish_period_steps=1 << 62,  # nobody pulls: actor and learner share variables
            checkpoint_period_secs=float("inf"),  # here checkpoints are counted in agent steps
            before_checkpoint=self._save_replay,
            returns=returns,
        )
        self._evaluation_environments = min(experiment.evaluation_episodes, evaluation_environments)
        self._evaluated = evaluation_policy(
            experiment.evaluation_policy,
            agent,
            self._evaluation_environments,
            experiment.seed + 1_000_003,
        )
        self._act = act_function(self._evaluated)
        self._export = PolicyExport(agent.policy, self._root_dir / "policy")
        self._sender = training_pb2.Sender(
            role=context.role, task=context.task, run_id=random.SystemRandom().getrandbits(63)
        )
        self._reported_episodes = 0
        self._saved_steps = -1  # at which this process last wrote the replay
        self._loss: float | None = None
        self._report_is_due = Every(_REPORT_PERIOD_SECS, at_once=True)
        state = self.session.restored_state or {"steps": 0}
        self._steps_before = self._steps_of_earlier_starts = state["steps"]
        self.environments = TrainingEnvironments(
            make_environment, num_envs, experiment.seed, state["steps"]
        )
        if state["steps"]:
            self._restore(state)

    def count_update(self, loss: float) -> None:
        """Tells that a gradient step was done."""
        self._loss = loss
        self.session.count(1)

    def evaluate_and_checkpoint_if_due(self) -> None:
        """Does both on their periods of agent steps, and tells how far the run is."""
        before, steps = self._steps_before, self.environments.steps
        self._steps_before = steps
        period_steps = self._evaluation_period_steps
        if self.session.step and steps // period_steps > before // period_steps:
            self._evaluate()
        if steps // self._checkpoint_period_steps > before // self._checkpoint_period_steps:
            self.session.checkpoint()
        if self._report_is_due():
            self._report()
        self.session.tick(self._metrics)

    def __enter__(self) -> OneProcess:
        return self

    def __exit__(self, kind, error, *unused) -> None:
        self.session.close(error)
        self.environments.close()

    def _evaluate(self) -> None:
        limits, start_secs = self._experiment, time.monotonic()
        seed = limits.seed + 1_000_003 + self.environments.steps
        environment = self._make_environment(
            num_envs=self._evaluation_environments, training=False, seed=seed
        )
        generator = getattr(self._evaluated, "generator", None)
        if generator is not None:  # a continued run evaluates as one that went on
            generator.reset_from_seed(seed)
        with environment:
            returns = play(
                environment,
                self._act,
                self._evaluated.get_initial_state,
                limits.evaluation_episodes,
                self._context.stop.is_set,
            )
        if len(returns) < limits.evaluation_episodes:
            return  # told to stop
        self._report()
        evaluation = summarise(
            returns, self.session.step, self.session.service.frames(), start_secs
        )
        self._export.offer(evaluation)
        self.session.add_evaluation(evaluation)

    def _save_replay(self) -> dict:
        """Cuts off the running episodes and writes the replay beside the checkpoint to come."""
        self._report()
        environments, steps = self.environments, self.environments.steps
        if environments.action is not None:
            self._replay.truncate(environments.time_step, environments.action)
        try:
            if self._replay.size_steps and steps != self._saved_steps:
                directory = self._replay_directory(steps)
                shutil.rmtree(directory, ignore_errors=True)
                self._replay.save(directory)
                self._saved_steps = steps
                _remove_all_but_newest(directory.parent)
        finally:  # the episodes are cut off, also where the disk is full
            environments.restart()
            self._replay.forget_previous()
        return {"steps": steps, "updates": self._pace.updates, "replay": self._replay.state()}

    def _restore(self, state: dict) -> None:
        self._pace.updates = state["updates"]
        directory = self._replay_directory(state["steps"])
        observation, action = self.environments.time_step.observation, self.environments.no_action()
        self._replay.restore(directory, state["replay"], observation, action)
        logging.info("continuing from agent step %d", state["steps"])

    def _replay_directory(self, steps: int) -> pathlib.Path:
        return self._root_dir / "replay" / f"steps-{steps}"

    def _report(self) -> None:
        """Reports to the run's own service, as any other role does."""
        environments = self.environments
        episodes = finite_episodes(environments.take_episodes())
        returns, length_frames = (leaf.tolist() for leaf in episodes)
        self.session.service.record(
            training_pb2.ReportRequest(
                sender=self._sender,
                frames=environments.frames(environments.steps - self._steps_of_earlier_starts),
                episodes=training_pb2.Episodes(
                    first=self._reported_episodes, returns=returns, length_frames=length_frames
                ),
            )
        )
        self._reported_episodes += len(returns)

    def _metrics(self) -> dict[str, float]:
        values = {
            "replay/size": self._replay.size_steps,
            "replay/min_size": self._pace.start_steps,
            "agent/steps": self.environments.steps,
        }
        return values if self._loss is None else {**values, "learner/loss": self._loss}


def _remove_all_but_newest(directory: pathlib.Path) -> None:
    """Of the replays; what else lies there, but for one half written, is somebody else's."""
    ours = [path for path in directory.iterdir() if re.fullmatch(r"steps-[0-9]+", path.name)]
    ours.sort(key=lambda path: int(path.name.partition("-")[2]))
    for path in [*ours[:-_KEPT_REPLAYS], *directory.glob("steps-*.new")]:
        shutil.rmtree(path, ignore_errors=True)
