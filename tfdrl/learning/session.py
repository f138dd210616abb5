"""What every learner does beside learning: publish, count, checkpoint, tell and end."""

from __future__ import annotations

import logging
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from tfdrl.environments.stated_returns import ANY_RETURN
from tfdrl.errors import EXIT_FAILED, TfdrlError
from tfdrl.experiment import Experiment
from tfdrl.learning.devices import device_names
from tfdrl.learning.publisher import Publisher
from tfdrl.learning.run_files import RunFiles
from tfdrl.learning.training_clock import TrainingClock
from tfdrl.rpc import security, usage_log
from tfdrl.rpc.report_rules import ReportRules
from tfdrl.rpc.run_messages import Evaluation
from tfdrl.rpc.run_server import MoreServices, TrainingServer
from tfdrl.runtime.checkpoints import Checkpoints
from tfdrl.runtime.locks import lock
from tfdrl.runtime.metrics import Every, MetricsWriter, Rate
from tfdrl.topology import Context

_STATUS_PERIOD_SECS = 1.0
_EVENTS_PERIOD_SECS = 5.0
_LEAVING_SECS = 2.5  # roles report each second


class LearnerSession:
    """The learner's side of a run; a learner calls `count` after updates and `tick` often.

    Args:
      experiment: limits of the run.
      context: of the learner's role.
      agent: its policy's variables are published, its train_step_counter counts.
      specs: text of the environment's specs.
      returns: the least and the greatest that an evaluation can have, as the environment says.
      publish_period_steps: learner steps between publications.
      checkpoint_period_secs: seconds between checkpoints.
      objects: more trackables to checkpoint, by name.
      lag_steps: publishes the parameters of so many learner steps ago: an artificial policy lag.
      before_checkpoint: called before a checkpoint is written; its result, JSON-able, is part of
        the checkpoint and comes back as `restored_state`.
      more: services that share the learner's address.

    Attributes:
      service: the TrainingServer.
      step: learner steps done.
      restored: whether a checkpoint was found.
      restored_state: what `before_checkpoint` had returned then.

    Raises:
      ConfigurationError: another learner holds root_dir, or the port is in use.
      TfdrlError: no checkpoint of several can be read.
    """

    def __init__(
        self,
        experiment: Experiment,
        context: Context,
        agent,
        specs: str,
        publish_period_steps: int,
        checkpoint_period_secs: float,
        objects: Mapping[str, Any] | None = None,
        before_checkpoint: Callable[[], Mapping[str, Any]] | None = None,
        lag_steps: int = 0,
        returns: tuple[float, float] = ANY_RETURN,
        more: MoreServices = MoreServices(),  # noqa: B008  (immutable)
    ):
        self._lock = lock(context.root_dir, "learner")
        self._experiment, self._context, self._agent = experiment, context, agent
        root_dir = pathlib.Path(context.root_dir)
        self._checkpoints = Checkpoints(
            root_dir / "checkpoints", {"agent": agent, **(objects or {})}
        )
        self._before_checkpoint = before_checkpoint
        self.restored = self._checkpoints.restore() is not None
        self.restored_state = self._checkpoints.counters.values.get("state")
        counters = self._checkpoints.counters.values
        self.step = int(agent.train_step_counter.numpy())
        self._trained_secs = counters.get("training_secs", 0.0)
        rules = ReportRules.of(experiment, returns)
        last = counters.get("evaluation") and Evaluation(**counters["evaluation"])
        self.evaluation, self._best = rules.believed(last, counters.get("best_return"))
        self._start_secs = time.monotonic()
        self._reason, self._end_secs, self._doing = None, None, ""
        self.service = TrainingServer(
            context.listen,
            context.experiment,
            specs,
            more=more,
            security=security.of(context),
            rules=rules,
            state=counters["service"] if self.restored else None,
            trained_secs=self._trained_secs,
            learner_step=self.step,
        )
        self._clock = TrainingClock(experiment.max_minutes, (self.step, self.service.frames()))
        logging.info("TensorFlow's devices: %s", ", ".join(device_names()))
        if self.restored:
            logging.info("continuing from learner step %d", self.step)
        self._metrics = MetricsWriter(root_dir, context.role, context.task)
        self._files = RunFiles(root_dir, self._metrics)
        self._files.put_result_aside()
        self._publisher = Publisher(self.service, agent, publish_period_steps, lag_steps)
        self._publisher.publish(self.step)
        self._checkpoint_is_due = Every(checkpoint_period_secs)
        self._status_is_due = Every(_STATUS_PERIOD_SECS, at_once=True)
        self._events_are_due = Every(_EVENTS_PERIOD_SECS, first_secs=1.0)
        self._step_rate, self._frame_rate = Rate(self.step), Rate(self.service.frames())
        self.goes_on()  # a run that was over waits from here on, and does not train

    @property
    def training_secs(self) -> float:
        """Seconds of training so far, over all starts, until training is over."""
        now_secs = time.monotonic() if self._end_secs is None else self._end_secs
        return self._trained_secs + now_secs - self._start_secs

    @property
    def reason(self) -> str | None:
        """Why training is over; None while it is not, or if only this process is to stop."""
        return None if self._context.stop.is_set() else self._reason

    def goes_on(self) -> bool:
        """Whether to go on: nobody said stop, and no limit is reached."""
        self.end(self._reason_to_end())
        return self._reason is None

    def end(self, reason: str | None) -> None:
        """Ends the run for a reason, if there is one, and was none before."""
        if reason is not None and self._reason is None:
            self._reason, self._end_secs = reason, time.monotonic()

    def fail(self, error: BaseException | None) -> None:
        """Ends the run if another start would fail in the same way: diverged, or configured so."""
        if isinstance(error, TfdrlError) and error.exit_code != EXIT_FAILED:
            self.end(f"failed: {error}")

    def count(self, updates: int, samples: int = 0) -> None:
        """Tells that so many learner steps were done; publishes when that is due.

        Args:
          updates: learner steps.
          samples: items of a replay that they trained on.
        """
        if self._doing:
            self.says("")
        self.step += updates
        self.service.count_sampled(samples)
        self._publisher.publish_if_due(self.step)

    def says(self, words: str) -> None:
        """Sets what the panel says that the learner does, before its first step of this start."""
        self._doing = words
        self.service.set_doing(words)

    def tick(self, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Does what is due: evaluations, status, events, checkpoint.

        Args:
          metrics: `metrics() -> dict` of the learner's own numbers; called once a second at most.
        """
        if not self._status_is_due():
            return
        self._take_evaluations()
        values = {
            "environment/frames_per_second": self._frame_rate.take(self.service.frames()),
            "learner/steps_per_second": self._step_rate.take(self.step),
            **metrics(),
        }
        episodes = self.service.take_episodes()
        if len(episodes.returns):
            values["environment/episode_return"] = float(episodes.returns.mean())
        self.service.set_status(self.step, {**values, **usage_log.metrics()})
        if not self.step:
            self.says(_waits_for(values))
        if self._events_are_due():
            self._metrics.write(self.step, {**values, "environment/frames": self.service.frames()})
        if self._checkpoint_is_due():
            self.checkpoint()
        if self.step:
            self._files.write_operative_config()

    def add_evaluation(self, evaluation: Evaluation) -> None:
        """Records an evaluation; it may end the run, and is then the last of it."""
        wanted, last = self._experiment.solved_return, self.evaluation
        if None in (wanted, last) or last.mean < wanted:
            self.evaluation = evaluation
        if self._best is None or evaluation.mean > self._best:
            self._best = evaluation.mean
        self._files.add_evaluation(evaluation, self.training_secs)
        self._metrics.write(self.step, {"evaluation/return": evaluation.mean})
        logging.info(
            "evaluation at step %(version)d: %(mean).1f +- %(standard_error).1f over "
            "%(episodes)d episodes",
            evaluation._asdict(),
        )

    def checkpoint(self, is_last: bool = False) -> bool:
        """Writes a checkpoint now; False, with a warning, where it cannot be written.

        Args:
          is_last: of this process; nothing is counted after it.
        """
        try:
            state = self._before_checkpoint() if self._before_checkpoint else None
        except OSError as error:
            logging.error("THE REPLAY COULD NOT BE WRITTEN (%s); training goes on", error)
            return False
        return self._checkpoints.save(self.step, {**self._counters(is_last), "state": state})

    def close(self, error: BaseException | None = None) -> None:
        """Ends the run: tells the roles, then writes the last checkpoint and result.json.

        Args:
          error: that ends it, as `fail` takes it; the last good checkpoint is left as it is then.
        """
        self.fail(error)
        reason = self._reason or ("told to stop" if error is None else "failed")
        if self._reason is not None and not self._context.stop.is_set():
            self.service.finish(reason)
            self._let_roles_leave()
        if error is None:
            self.checkpoint(is_last=True)
        if self.step:
            self._files.write_operative_config()
        self._take_evaluations()
        self._write_result(reason)
        self.service.close()
        self._metrics.close()
        self._lock.release()

    def _let_roles_leave(self) -> None:
        """Waits until every role was told to stop and has reported its last frames."""
        deadline_secs = time.monotonic() + _LEAVING_SECS
        while time.monotonic() < deadline_secs and not self.service.everybody_left():
            if self._context.stop.wait(0.05):
                return

    def __enter__(self) -> LearnerSession:
        return self

    def __exit__(self, kind, error, *unused) -> None:
        self.close(error)

    def _reason_to_end(self) -> str | None:
        limits, evaluation = self._experiment, self.evaluation
        wanted = limits.solved_return
        if self._context.stop.is_set():
            return "told to stop"
        if None not in (wanted, evaluation) and evaluation.mean >= wanted:
            return (
                f"solved: mean return {evaluation.mean:.2f} over {evaluation.episodes} episodes "
                f"reaches {wanted:g}"
            )
        if limits.max_frames is not None and self.service.frames() >= limits.max_frames:
            return f"reached max_frames = {limits.max_frames}"
        if limits.max_learner_steps is not None and self.step >= limits.max_learner_steps:
            return f"reached max_learner_steps = {limits.max_learner_steps}"
        if self._clock.is_over((self.step, self.service.frames())):
            return f"reached max_minutes = {limits.max_minutes:g}"
        return None

    def _take_evaluations(self) -> None:
        for evaluation in self.service.take_evaluations():
            self.add_evaluation(evaluation)

    def _counters(self, is_last: bool) -> dict[str, Any]:
        counts = self.service.state(is_last)
        self._take_evaluations()  # those that came while the roles were leaving, too
        return {
            "training_secs": self.training_secs,
            "best_return": self._best,
            "evaluation": self.evaluation and self.evaluation._asdict(),
            "service": counts,
        }

    def _write_result(self, reason: str) -> None:
        result = {
            "reason": reason,
            "learner_steps": self.step,
            "frames": self.service.frames(),
            "training_secs": self.training_secs,
            "best_return": self._best,
            "evaluation": self.evaluation and self.evaluation._asdict(),
        }
        self._files.write_result(result)


def _waits_for(values: Mapping[str, float]) -> str:
    """What a learner without a step waits for, by its metrics."""
    size, least = values.get("replay/size"), values.get("replay/min_size")
    if size is not None and least is not None and size < least:
        return f"replay: {size:,.0f} of {least:,.0f} items"
    has_batches = size is not None or "learner/queue" in values
    return f"waiting for the first {'batch' if has_batches else 'gradient'}"
