"""What a learner of Gorila tells the coordinator and TensorBoard."""

from __future__ import annotations

from tfdrl.acting.run_connection import RunConnection, no_episodes
from tfdrl.experience.transitions import age_secs
from tfdrl.learning.ratio_limiters import LearnerLimiter
from tfdrl.parameter_server.client import GlobalParameters
from tfdrl.replay.several_servers import _REPORT_SECS, SharedSamples
from tfdrl.replay.transition_dataset import SampledBatch
from tfdrl.runtime.metrics import Every, MetricsWriter, Rate
from tfdrl.topology import Context

_EVENTS_SECS = 10.0


class LearnerReports:
    """What a learner tells the coordinator and TensorBoard.

    Args:
      connection: to the coordinator.
      parameters, samples, limiter: whose counters are told.
      context: of the learner.
    """

    def __init__(
        self,
        connection: RunConnection,
        parameters: GlobalParameters,
        samples: SharedSamples,
        limiter: LearnerLimiter,
        context: Context,
    ):
        self._connection, self._parameters, self._samples = connection, parameters, samples
        self._limiter = limiter
        self._metrics = MetricsWriter(context.root_dir, context.role, context.task)
        self._is_due = Every(_REPORT_SECS)
        self._events_are_due = Every(context.log_period_secs(_EVENTS_SECS))
        self._rate, self._batch = Rate(), None

    def tick(self, batch: SampledBatch | None) -> None:
        """Remembers the batch; reports about once a second."""
        self._batch = self._batch if batch is None else batch
        if not self._is_due():
            return
        values = {
            **self._parameters.counters(),
            "learner/gradients_per_second": self._rate.take(
                self._parameters.accepted + self._parameters.rejected
            ),
            "learner/waiting_share": self._samples.waiting.take_share(),
            "worker/communication_share": self._parameters.communication.take_share(),
            "replay/size": self._samples.size(),
            **self._limiter.metrics(),
        }
        if self._batch is not None:
            values["learner/policy_lag"] = float(
                self._parameters.version - self._batch.version.numpy().mean()
            )
            values["learner/sample_age_secs"] = float(
                age_secs(self._batch.time_secs.numpy()).mean()
            )
        self._connection.report(0, values, no_episodes())
        if self._events_are_due():
            self._metrics.write(max(self._parameters.version, 0), values)
