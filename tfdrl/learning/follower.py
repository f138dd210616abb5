"""The session of a learner that is not the chief: it publishes, and leaves the rest to the chief.

The chief (`LearnerSession`) counts, checkpoints, takes evaluations and decides when to end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tfdrl.experiment import Experiment
from tfdrl.learning.publisher import Publisher
from tfdrl.rpc import security
from tfdrl.rpc.report_rules import ReportRules
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.runtime.metrics import Every, MetricsWriter
from tfdrl.topology import Context

_STATUS_PERIOD_SECS = 1.0
_EVENTS_PERIOD_SECS = 5.0


class FollowerSession:
    """Serves parameters to a part of the actors.

    Args:
      experiment: whose roles are served.
      context: of the learner's role.
      agent: its policy's variables are published, its train_step_counter counts.
      specs: text of the environment's specs.
      publish_period_steps: learner steps between publications.
      lag_steps: as of `LearnerSession`.

    Attributes:
      step: learner steps done.
    """

    def __init__(
        self,
        experiment: Experiment,
        context: Context,
        agent,
        specs: str,
        publish_period_steps: int,
        lag_steps: int = 0,
    ):
        self._context = context
        self.step = int(agent.train_step_counter.numpy())
        self.service = TrainingServer(
            context.listen,
            context.experiment,
            specs,
            security=security.of(context),
            rules=ReportRules.of(experiment),
        )
        self._publisher = Publisher(self.service, agent, publish_period_steps, lag_steps)
        self._publisher.publish(self.step)
        self._metrics = MetricsWriter(context.root_dir, context.role, context.task)
        self._status_is_due = Every(_STATUS_PERIOD_SECS, at_once=True)
        self._events_are_due = Every(_EVENTS_PERIOD_SECS)

    def goes_on(self) -> bool:
        """Whether nobody told this process to stop."""
        return not self._context.stop.is_set()

    def end(self, reason: str) -> None:
        """The chief tells everybody why the run ends."""

    def says(self, words: str) -> None:
        """The chief says it for all."""

    def count(self, updates: int) -> None:
        """Tells that so many learner steps were done; publishes when that is due."""
        self.step += updates
        self._publisher.publish_if_due(self.step)

    def tick(self, metrics: Callable[[], Mapping[str, float]]) -> None:
        """Writes metrics when that is due."""
        if not self._status_is_due():
            return
        values = metrics()
        self.service.set_status(self.step, values)
        if self._events_are_due():
            self._metrics.write(self.step, values)

    def __enter__(self) -> FollowerSession:
        return self

    def __exit__(self, *unused) -> None:
        self.service.close()
        self._metrics.close()
