"""What a one-process run holds: environment, policy, replay and learner, and how it resumes."""

from __future__ import annotations

import logging
import pathlib
import random
import shutil
import time

import numpy as np
import tensorflow as tf

from tfdrl.acting.exploration import collect_policy
from tfdrl.contracts import AnnealedPolicy
from tfdrl.environments.returned import checked
from tfdrl.evaluation.episodes import play, summarise
from tfdrl.evaluation.policy_export import PolicyExport
from tfdrl.experience.transitions import to_trajectory
from tfdrl.experience.uniform_replay import UniformReplay
from tfdrl.experiment import Experiment
from tfdrl.learning.session import LearnerSession
from tfdrl.learning.trainer import Trainer
from tfdrl.ops import exploration
from tfdrl.rpc import training_pb2
from tfdrl.rpc.run_messages import finite_episodes
from tfdrl.runtime import agent_factory
from tfdrl.runtime.agent_factory import check_gamma
from tfdrl.runtime.compiled import act_function
from tfdrl.topology import Context
from tfdrl.types import Episodes, Transitions


class OneProcess:
    """The state of DQN's loop and the steps it is made of.

    Args:
      experiment: with a `Dqn` architecture.
      context: of the one role.

    Attributes:
      session: the learner's session.
      replay: the uniform replay.
      steps: agent steps so far, over all environments and starts.
    """

    def __init__(self, experiment: Experiment, context: Context):
        config = experiment.architecture
        self._experiment, self._config, self._context = experiment, config, context
        agent_factory.set_seed(experiment.seed)
        with config.environment(num_envs=1, training=True, seed=0) as environment:
            self._agent = agent_factory.make_agent(config.agent, environment)
            specs, returns = agent_factory.specs_text(environment), environment.return_range
            self._frames_per_step = environment.frames_per_step
        check_gamma(self._agent, config.gamma, "dqn.gamma")
        epsilon = np.full(config.environments, config.epsilon_start)
        self._policy = collect_policy(self._agent, epsilon, experiment.seed)
        self._act = act_function(self._policy)
        self._trainer = Trainer(self._agent, tf.distribute.get_strategy(), config.max_bad_steps)
        self.replay = UniformReplay(
            *(config.replay_capacity_steps, config.environments, config.n_step, config.gamma),
            *(config.frame_stack, experiment.seed),
        )
        generator = getattr(self._policy, "generator", None)
        self.session = LearnerSession(
            experiment,
            context,
            self._agent,
            specs,
            objects={} if generator is None else {"generator": generator},
            publish_period_steps=1 << 62,  # nobody pulls: actor and learner share variables
            checkpoint_period_secs=float("inf"),  # here checkpoints are counted in agent steps
            before_checkpoint=self._save_replay,
            returns=returns,
        )
        self.steps = self._steps_before = 0
        self._pace = UpdatePace(config.min_replay_steps, config.update_period_steps)
        self._greedy = act_function(self._agent.policy)
        self._export = PolicyExport(self._agent.policy, pathlib.Path(context.root_dir) / "policy")
        self._epsilon = None
        self._environment = self._time_step = None
        self._episodes, self._loss = [], None
        self._report_secs = 0.0
        self._sender = training_pb2.Sender(
            role=context.role, task=context.task, run_id=random.SystemRandom().getrandbits(63)
        )
        self._reported_episodes = 0
        self._reported_steps = 0
        self._restore()
        self._start_episodes()

    def act_and_store(self) -> None:
        """One step of each environment."""
        self._anneal_epsilon()
        step = self._act(*self._time_step, ())
        action = tf.nest.map_structure(lambda x: x.numpy(), step.action)
        next_time_step = checked(self._environment, self._environment.step(action))
        self.replay.add(self._time_step, action, next_time_step)
        self._time_step, self._action = next_time_step, action
        self._steps_before = self.steps
        self.steps += self._environment.steps_made(next_time_step)

    def updates_due(self) -> int:
        """Learner steps to do now, for the agent steps done since learning could start."""
        return self._pace.due(self.steps)

    def learn(self, batch: Transitions) -> None:
        """One learner step."""
        experience = tf.nest.map_structure(lambda leaf: leaf[None], to_trajectory(batch))
        weights = tf.ones([1, len(batch.n_step_return)])
        losses, _ = self._trainer.train(experience, weights)
        self._loss = float(losses[0])
        self.session.count(1)

    def evaluate_and_checkpoint_if_due(self) -> None:
        """Does both on their periods of agent steps, and tells how far the run is."""
        config, before = self._config, self._steps_before
        period_steps = config.evaluation_period_steps
        if self.session.step and self.steps // period_steps > before // period_steps:
            self._evaluate()
        if self.steps // config.checkpoint_period_steps > before // config.checkpoint_period_steps:
            self.session.checkpoint()
        if time.monotonic() - self._report_secs > 1.0:
            self._report()
        self.session.tick(self._metrics)

    def __enter__(self) -> OneProcess:
        return self

    def __exit__(self, kind, error, *unused) -> None:
        self.session.close(error)
        self._environment.close()

    def _anneal_epsilon(self) -> None:
        config = self._config
        epsilon = exploration.linear_epsilon(
            self.steps, config.epsilon_start, config.epsilon_end, config.epsilon_decay_steps
        )
        if epsilon != self._epsilon and isinstance(self._policy, AnnealedPolicy):
            self._policy.set_epsilon(np.full(config.environments, epsilon))
            self._epsilon = epsilon

    def _evaluate(self) -> None:
        limits, start_secs = self._experiment, time.monotonic()
        environment = self._config.environment(
            num_envs=min(limits.evaluation_episodes, self._config.evaluation_environments),
            training=False,
            seed=limits.seed + 1_000_003 + self.steps,
        )
        with environment:
            returns = play(
                environment,
                self._greedy,
                self._agent.policy.get_initial_state,
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

    def _start_episodes(self) -> None:
        """Makes environments whose seed depends on nothing but the seed and the steps done."""
        if self._environment is not None:
            self._take_episodes()
            self._environment.close()
        self._environment = self._config.environment(
            num_envs=self._config.environments,
            training=True,
            seed=self._experiment.seed + self.steps,
        )
        self._time_step = checked(self._environment, self._environment.reset())
        self._action = None
        self.replay.forget_previous()

    def _save_replay(self) -> dict:
        """Cuts off the running episodes and writes the replay beside the checkpoint to come."""
        self._report()
        if self._action is not None:
            self.replay.truncate(self._time_step, self._action)
        directory = pathlib.Path(self._context.root_dir) / "replay"
        if self.replay.size_steps:
            shutil.rmtree(directory / f"steps-{self.steps}", ignore_errors=True)
            self.replay.save(directory / f"steps-{self.steps}")
            kept = sorted(directory.glob("steps-*"), key=lambda p: int(p.name.split("-")[1]))
            for path in kept[:-3]:
                shutil.rmtree(path, ignore_errors=True)
        self._start_episodes()
        return {
            "steps": self.steps,
            "updates": self._pace.updates,
            "replay": self.replay.state(),
        }

    def _restore(self) -> None:
        state = self.session.restored_state
        if not state or not state["steps"]:
            return
        self.steps, self._pace.updates = state["steps"], state["updates"]
        self._reported_steps = self.steps
        with self._config.environment(
            num_envs=self._config.environments, training=True, seed=0
        ) as environment:
            time_step = checked(environment, environment.reset())
            action = tf.nest.map_structure(lambda x: x.numpy(), self._act(*time_step, ()).action)
        directory = pathlib.Path(self._context.root_dir) / "replay" / f"steps-{self.steps}"
        self.replay.restore(directory, state["replay"], time_step.observation, action)
        self.session.restore_objects()  # the action above moved the random generator
        logging.info("continuing from agent step %d", self.steps)

    def _take_episodes(self) -> None:
        self._episodes.append(self._environment.take_episodes())

    def _report(self) -> None:
        """Reports to the run's own service, as any other role does."""
        self._report_secs = time.monotonic()
        if self._environment is None:
            return
        self._take_episodes()
        episodes = Episodes(*(np.concatenate(parts) for parts in zip(*self._episodes)))
        returns, length_frames = (leaf.tolist() for leaf in finite_episodes(episodes))
        self.session.service.record(
            training_pb2.ReportRequest(
                sender=self._sender,
                frames=(self.steps - self._reported_steps) * self._frames_per_step,
                episodes=training_pb2.Episodes(
                    first=self._reported_episodes, returns=returns, length_frames=length_frames
                ),
            )
        )
        self._reported_episodes += len(returns)
        self._episodes = []

    def _metrics(self) -> dict[str, float]:
        values = {
            "replay/size": self.replay.size_steps,
            "replay/min_size": self._config.min_replay_steps,
            "agent/steps": self.steps,
        }
        if self._loss is not None:
            values["learner/loss"] = self._loss
        return values


class UpdatePace:
    """One update for every `period_steps` agent steps after the first `start_steps`.

    Args:
      start_steps: agent steps before the first update is counted.
      period_steps: agent steps for each update (Mnih 2015: 4).

    Attributes:
      updates: handed out so far.
    """

    def __init__(self, start_steps: int, period_steps: int):
        self._start_steps, self._period_steps = start_steps, period_steps
        self.updates = 0

    def due(self, steps: int) -> int:
        """Updates to do now, after `steps` agent steps in all."""
        due = max(steps - self._start_steps, 0) // self._period_steps - self.updates
        self.updates += max(due, 0)
        return max(due, 0)
