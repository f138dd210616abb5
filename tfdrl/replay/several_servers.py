"""A learner's side of a replay that several servers hold: batches from each of them in turn."""

from __future__ import annotations

import threading
import time

from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.errors import ConfigurationError
from tfdrl.replay import transition_table
from tfdrl.replay.client import ReplayInfo, say_why
from tfdrl.replay.identity import require_other_process
from tfdrl.replay.reading import Samples, ready_of
from tfdrl.replay.transition_dataset import SampledBatch, first, sample_dataset
from tfdrl.runtime.metrics import Every, WaitingClock
from tfdrl.topology import Addresses, Context, each_of

_REPORT_SECS = 1.0
_POLL_SECS = 0.05


class SharedSamples:
    """Takes batches of transitions from every server in turn; one that is away is left out.

    Args:
      addresses: of the replay servers.
      environment: gives the specs.
      n_step: steps of a full window.
      context: of the learner.
      batch_size: B.
      prefetch_batches: that may be sampled ahead, of each server.
      timeout_secs: how long a server may be away.

    Attributes:
      waiting: the time without a batch.
      tables: Reverb's TableInfo of each, as of the start; None of one that was not waited for.

    Raises:
      UnavailableError: a server did not come up in time.
      ConfigurationError: one holds items of another environment, or samples by priority.
    """

    def __init__(
        self,
        addresses: Addresses,
        environment: BatchedEnvironment,
        n_step: int,
        context: Context,
        batch_size: int,
        prefetch_batches: int,
        timeout_secs: float,
    ):
        addresses = each_of(addresses)
        signature = transition_table.transition_signature(environment, n_step)
        self._infos = [ReplayInfo(address, timeout_secs) for address in addresses]
        self._samples, self.tables = [], []
        for address, info in zip(addresses, self._infos):
            table = info.wait(signature, f"learner {context.task}", context.stop)
            if table is not None and transition_table.is_prioritized(table):
                raise ConfigurationError(
                    f"the replay at {address} samples by priority, which nobody here refreshes or "
                    "corrects for (Gorila samples uniformly); set replay_table.sampler = 'uniform'"
                )
            self.tables.append(table)
            require_other_process(address, transition_table.TABLE)
            dataset = sample_dataset(address, signature, batch_size, 1, 0.0, prefetch_batches)
            ready = ready_of(prefetch_batches)
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
            say_why(self._infos)
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
                return SampledBatch(*(first(part) for part in batch))
        return None
