"""The loop of an actor: one batched inference and one step of all its environments at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import tree

from tfdrl.acting.run_connection import RunConnection
from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.environments.returned import checked
from tfdrl.runtime.compiled import act_function
from tfdrl.runtime.metrics import Every, MetricsWriter, Rate, WaitingClock
from tfdrl.runtime.nests import packer
from tfdrl.topology import Context
from tfdrl.types import Nest, TimeSteps

_REPORT_PERIOD_SECS = 1.0
_EVENTS_PERIOD_SECS = 10.0


class ActorLoop:
    """Steps N environments with a policy, counts frames, keeps the parameters fresh.

    Args:
      environment: N environments.
      policy: acts for a batch of N.
      connection: to who counts for the run; a `LearnerConnection` to use `pull_parameters`.
      context: of the role.
      max_frames_per_second: slows acting down to this; None for as fast as it goes.

    Attributes:
      steps_made: by its environments, all together, since this start of the actor.
      frames: environment frames of these steps.
      frames_since_pull: since `pull_parameters`.
      state: of the policy, before the next step.
    """

    def __init__(
        self,
        environment: BatchedEnvironment,
        policy,
        connection: RunConnection,
        context: Context,
        max_frames_per_second: float | None = None,
    ):
        self._environment, self._connection, self._context = environment, connection, context
        self._act, self._pack = act_function(policy), None
        self.state = policy.get_initial_state(environment.num_envs)
        self._metrics = MetricsWriter(context.root_dir, context.role, context.task)
        self._report_is_due = Every(_REPORT_PERIOD_SECS)
        events_secs = context.log_period_secs(_EVENTS_PERIOD_SECS)
        self._events_are_due = Every(events_secs, first_secs=1.0)
        self._rate = Rate()
        self._max_frames_per_second = max_frames_per_second
        self._resume_secs = time.monotonic()
        self._sources: tuple[WaitingClock, Callable[[], Mapping[str, float]]] | None = None
        self.frames_since_pull = self.steps_made = 0

    @property
    def frames(self) -> int:
        return self.steps_made * self._environment.frames_per_step

    def steps(self) -> Iterator[tuple[TimeSteps, Nest, TimeSteps, Nest]]:
        """Yields (time step, action, next time step, policy info) until told to stop.

        At the end it tells the connection the last frames, which its close() sends: what a
        preempted actor did is counted.
        """
        time_step = checked(self._environment, self._environment.reset())
        while not self._context.stop.is_set():
            action, info = self._step(time_step)
            next_time_step = checked(self._environment, self._environment.step(action))
            made = self._environment.steps_made(next_time_step)
            frames = made * self._environment.frames_per_step
            self.steps_made += made
            self.frames_since_pull += frames
            yield time_step, action, next_time_step, info
            time_step = next_time_step
            if self._max_frames_per_second is not None:
                self._pace(frames)
        self._report()

    def _pace(self, frames: int) -> None:
        """Waits until the frames of this step have had their time; a delay is not caught up."""
        self._resume_secs += frames / self._max_frames_per_second
        ahead_secs = self._resume_secs - time.monotonic()
        if ahead_secs > 0.005:  # shorter waits would mostly be overhead
            self._context.stop.wait(ahead_secs)
        elif ahead_secs < -0.1:
            self._resume_secs = time.monotonic()

    def _step(self, time_step: TimeSteps):
        step = self._act(*time_step, self.state)
        self.state = step.state
        acted = step.action, step.info
        self._pack = self._pack or packer(acted)
        return self._pack([leaf.numpy() for leaf in tree.flatten(acted)])

    def pull_parameters(self) -> None:
        """Takes what came since the last call, and asks for newer ones in the background."""
        self._connection.apply_newest()
        self._connection.request_parameters()
        self.frames_since_pull = 0

    def tick(self, waiting: WaitingClock, counters: Callable[[], Mapping[str, float]]) -> None:
        """Reports about once a second.

        Args:
          waiting: of the writer.
          counters: `counters() -> dict` of the actor's own numbers; called when it reports.

        Raises:
          UnavailableError, ConfigurationError: the connection has failed for good.
        """
        self._sources = waiting, counters
        if self._report_is_due():
            self._connection.check()
            self._report()

    def _report(self) -> None:
        if self._sources is None:  # told to stop before the first step
            return
        waiting, counters = self._sources
        episodes = self._environment.take_episodes()
        metrics = {
            "actor/frames_per_second": self._rate.take(self.frames),
            "actor/waiting_share": waiting.take_share(),
            "actor/parameter_version": self._connection.version,
            "actor/parameter_pulls": self._connection.pulls,
            **counters(),
        }
        if len(episodes.returns):
            metrics["actor/episode_return"] = float(episodes.returns.mean())
        self._connection.report(self.frames, metrics, episodes)
        if self._events_are_due():
            self._metrics.write(self.frames, metrics)
