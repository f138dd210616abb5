"""A learner's side of a replay that several servers hold: batches from each of them in turn."""

from __future__ import annotations

import threading
import time

from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.parts import replay_identity, replay_reading, replay_samples, replay_tables
from tfdrl.parts.global_parameters import GlobalParameters
from tfdrl.parts.metrics import Every, MetricsWriter, Rate, WaitingClock
from tfdrl.parts.ratio_limiters import LearnerLimiter
from tfdrl.parts.replay_reading import ReplayInfo, Samples
from tfdrl.parts.replay_samples import SampledBatch
from tfdrl.parts.run_link import RunLink, no_episodes
from tfdrl.topology import Addresses, Context

_REPORT_SECS = 1.0
_EVENTS_SECS = 10.0
_POLL_SECS = 0.05


class SharedSamples:
    """Takes batches of transitions from every server in turn; one that is away is left out.

    Args:
      addresses: of the replay servers.
      environment: gives the specs.
      config: with `batch_size`, `prefetch_batches` and `timeout_secs`.
      context: of the learner.

    Attributes:
      waiting: the time without a batch.
      tables: Reverb's TableInfo of each, as of the start; None of one that was not waited for.

    Raises:
      UnavailableError: a server did not come up in time.
      ConfigurationError: one holds items of another environment.
    """

    def __init__(
        self, addresses: Addresses, environment: BatchedEnvironment, config, context: Context
    ):
        addresses = addresses if isinstance(addresses, tuple) else (addresses,)
        signature = replay_tables.transition_signature(environment)
        self._infos = [ReplayInfo(address, config.timeout_secs) for address in addresses]
        self._samples, self.tables = [], []
        for address, info in zip(addresses, self._infos):
            self.tables.append(info.wait(signature, f"learner {context.task}", context.stop))
            replay_identity.require_other_process(address, replay_tables.TABLE)
            dataset = replay_samples.sample_dataset(
                address, signature, config.batch_size, 1, 0.0, config.prefetch_batches
            )
            ready = replay_reading.ready_of(config.prefetch_batches)
            self._samples.append(Samples(dataset, ready, info, context.stop))
        self._turn, self._stop = 0, context.stop
        self._sizes = [0] * len(self._infos)
        threading.Thread(target=self._watch_sizes, name="replay-sizes", daemon=True).start()
        self._is_time_to_ask = Every(5.0)
        self.waiting = WaitingClock()

    def next(self, timeout_secs: float = 0.5) -> SampledBatch | None:
        """The next batch [B, ...]; None if no server had one within the time limit.

        Raises:
          UnavailableError: no server answered for its time limit.
        """
        deadline_secs = time.monotonic() + timeout_secs
        found = self._any()
        if found is not None:
            return found
        with self.waiting:
            while found is None and time.monotonic() < deadline_secs and not self._stop.is_set():
                self._stop.wait(_POLL_SECS)
                found = self._any()
        if found is None and self._is_time_to_ask():
            replay_reading.say_why(self._infos)
        return found

    def size(self) -> int:
        """Transitions of all servers that answer, as of about a second ago."""
        return sum(self._sizes)

    def _watch_sizes(self) -> None:
        """In a thread: that a server is away is known after seconds, in which learning goes on."""
        while not self._stop.wait(_REPORT_SECS):
            self._sizes = [info.size() or 0 for info in self._infos]

    def _any(self) -> SampledBatch | None:
        for offset in range(len(self._samples)):
            turn = (self._turn + offset) % len(self._samples)
            batch = self._samples[turn].ready()
            if batch is not None:
                self._turn = turn + 1
                return SampledBatch(*(replay_samples.first(part) for part in batch))
        return None


class LearnerReports:
    """What a learner tells the coordinator and TensorBoard.

    Args:
      link: to the coordinator.
      parameters, samples, limiter: whose counters are told.
      context: of the learner.
    """

    def __init__(
        self,
        link: RunLink,
        parameters: GlobalParameters,
        samples: SharedSamples,
        limiter: LearnerLimiter,
        context: Context,
    ):
        self._link, self._parameters, self._samples = link, parameters, samples
        self._limiter = limiter
        self._metrics = MetricsWriter(context.root_dir, context.role, context.task)
        self._is_due, self._events_are_due = Every(_REPORT_SECS), Every(_EVENTS_SECS)
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
            values["learner/sample_age_secs"] = float(self._batch.age_secs.numpy().mean())
        self._link.report(0, values, no_episodes())
        if self._events_are_due():
            self._metrics.write(max(self._parameters.version, 0), values)
