"""A worker's copy of the global parameters: pulled from the servers, improved by its gradients."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent import futures

import tensorflow as tf

from tfdrl.errors import UnavailableError
from tfdrl.parameter_server import layout as parameter_server_layout
from tfdrl.parameter_server.gradients import Gradient
from tfdrl.parameter_server.protocol import ACCEPTED, NON_FINITE, Header, State
from tfdrl.parameter_server.remote_shard import ShardClient
from tfdrl.parameter_server.session import LostError
from tfdrl.parameter_server.settings import ParameterServerSettings
from tfdrl.runtime.metrics import Every, WaitingClock
from tfdrl.topology import Addresses, Context, each_of

_BARRIER_SECS, _MAX_BARRIER_SECS = 0.001, 0.016
_RETRY_SECS = 0.2


class GlobalParameters:
    """Keeps local variables at what the parameter servers have, and sends gradients there.

    Every push brings the newest parameters back. Shard 0 decides whether a gradient is too old
    (Nair 2015, section 5), so that all shards take or leave it together; each then applies its
    part on its own, without a lock across shards. A gradient whose answer was lost is not sent
    again: it may have been applied.

    Args:
      addresses: of the parameter servers, in the order of their tasks.
      variables: local copies, in the order of the agent's `LossGradient`.
      settings: of the servers.
      context: of this role.
      timeout_secs: how long a server may be away.
      barrier: number of workers whose gradients make one update together; 0: asynchronous.
      moments: local copies of the running statistics, in the order of the `LossGradient`.

    Attributes:
      version: updates of shard 0, of the parameters that the variables hold; -1 before the first.
      epoch: of shard 0; it changes when the parameters were set back.
      steps: agent steps behind all updates so far.
      accepted, rejected: gradients that were applied, and that were not.
      loss: of the last gradient.
      communication: the time spent talking to the servers.
    """

    def __init__(
        self,
        addresses: Addresses,
        variables: Sequence[tf.Variable],
        settings: ParameterServerSettings,
        context: Context,
        timeout_secs: float,
        barrier: int = 0,
        moments: Sequence[tf.Variable] = (),
    ):
        addresses = each_of(addresses)
        shards = len(addresses)
        layouts, indices = parameter_server_layout.layouts(variables, shards, barrier, moments)
        self._caller = f"{context.role} {context.task}"
        self._shards = [
            ShardClient(
                *(layout, settings, address, [variables[i] for i in mine]),
                moments=moments if layout.moments else (),
                context=context,
                shards=shards,
            )
            for layout, mine, address in zip(layouts, indices, addresses)
        ]
        self.indices = indices
        self._context, self._timeout_secs, self._barrier = context, timeout_secs, barrier
        self._threads = futures.ThreadPoolExecutor(max(len(addresses) - 1, 1), "shards")
        self.communication = WaitingClock()
        self.accepted = self.rejected = self.steps = 0
        self.loss = math.nan
        self._extra: dict[str, float] = {}

    @property
    def version(self) -> int:
        return self._shards[0].state.version

    @property
    def epoch(self) -> int:
        return self._shards[0].state.epoch

    @property
    def nbytes(self) -> int:
        """Of one copy of the parameters."""
        return sum(shard.graph.layout.nbytes for shard in self._shards)

    def connect(self) -> bool:
        """Waits for all servers and pulls; False if told to stop before.

        Raises:
          UnavailableError: one did not come up in time.
          ConfigurationError: one holds another network or belongs to another run.
        """
        for shard in self._shards:
            shard.connect(self._timeout_secs)
        if not self._context.stop.is_set():
            self.pull()
        return not self._context.stop.is_set()

    def pull(self) -> bool:
        """Brings the variables up to date; parameters travel only if there are newer ones.

        Returns whether there were. Raises as `connect`.
        """
        with self.communication:
            found = self._on_all(ShardClient.pull)
        self.steps = max(self.steps, self._shards[0].state.steps)
        return any(found)

    def refresh(self) -> None:
        """Pulls although the versions are known: somebody else wrote into the variables."""
        for shard in self._shards:
            shard.forget()
        self.pull()

    def push(self, gradient: Gradient, steps: int) -> int | None:
        """Sends a gradient that was computed from the variables as they are; brings newer ones.

        Args:
          gradient: of `LossGradient`, with the parts of `indices`.
          steps: agent steps that it was computed from.

        Returns the verdict, see `protocol.VERDICTS`; None if the server was lost on the
        way. Raises as `connect`.
        """
        self.loss = gradient.loss
        self._extra = {**gradient.extra, "gradient_norm": gradient.norm}
        if not gradient.is_finite:
            return self.withhold(NON_FINITE)
        first, rest = self._shards[0], self._shards[1:]
        with self.communication:
            before = [shard.state for shard in self._shards]
            verdict = self._recovered(first, lambda: first.push(gradient, 0, steps, self._header))
            if verdict == ACCEPTED:
                jobs = [
                    self._threads.submit(
                        self._recovered,
                        shard,
                        lambda shard=shard, part=part: shard.push(
                            gradient, part, steps, self._decided
                        ),
                    )
                    for part, shard in enumerate(rest, start=1)
                ]
                for job in jobs:
                    job.result()
                if self._barrier:
                    self._wait_for_others(before)
            elif rest and not self._context.stop.is_set():
                self._on_all(ShardClient.pull)
        self.steps = max(self.steps, first.state.steps)
        if verdict == ACCEPTED:
            self.accepted += 1
        else:
            self.rejected += 1
        return verdict

    def withhold(self, verdict: int) -> int:
        """Counts a gradient that is not sent, and brings the newest parameters."""
        with self.communication:
            self._recovered(self._shards[0], lambda: self._shards[0].withhold(verdict))
            if not self._context.stop.is_set():
                self._on_all(ShardClient.pull)
        self.rejected += 1
        return verdict

    def versions(self) -> dict[str, float]:
        """What an actor reports of its parameters."""
        return {"actor/parameter_version": self.version}

    def counters(self) -> dict[str, float]:
        """What a worker reports of its gradients."""
        return {
            **self.versions(),
            "worker/gradients": self.accepted,
            "worker/rejected_gradients": self.rejected,
            "worker/loss": self.loss,
            **{f"worker/{name}": value for name, value in self._extra.items()},
        }

    def close(self) -> None:
        """Ends the sessions."""
        self._threads.shutdown(wait=False)
        for shard in self._shards:
            shard.close()

    def _header(self, state: State, steps: int) -> Header:
        return Header(state.epoch, state.version, steps, self._context.task if self._barrier else 0)

    def _decided(self, state: State, steps: int) -> Header:
        return self._header(state, steps)._replace(is_decided=1)

    def _wait_for_others(self, before: Sequence[State]) -> None:
        """At the barrier: until the update that this gradient is part of was made."""
        deadline_secs = time.monotonic() + self._timeout_secs
        is_time_to_say, pause_secs = Every(5.0), _BARRIER_SECS
        while not self._context.stop.is_set():
            pairs = zip(self._shards, before)
            if all((s.state.epoch, s.state.version) != (b.epoch, b.version) for s, b in pairs):
                return
            self._on_all(ShardClient.pull)
            if time.monotonic() > deadline_secs:
                raise UnavailableError(
                    f"{self._caller} waited {self._timeout_secs:g} s at the barrier for the other "
                    f"{self._barrier - 1} workers after version {before[0].version}"
                )
            if is_time_to_say():
                logging.warning("%s waits at the barrier for the other workers", self._caller)
            self._context.stop.wait(pause_secs)
            pause_secs = min(2 * pause_secs, _MAX_BARRIER_SECS)

    def _on_all(self, call: Callable) -> list:
        def run(shard):
            return self._recovered(shard, lambda: call(shard))

        jobs = [self._threads.submit(run, shard) for shard in self._shards[1:]]
        return [run(self._shards[0]), *(job.result() for job in jobs)]

    def _recovered(self, shard: ShardClient, call: Callable):
        """`call()`; after the loss of the server None, with a new session and its parameters."""
        try:
            return call()
        except LostError as error:
            logging.warning("%s lost %s: %s", self._caller, shard.session.name, error)
        if self._context.stop.is_set():
            return None
        deadline_secs = time.monotonic() + self._timeout_secs
        shard.connect(self._timeout_secs)
        while not self._context.stop.is_set():
            try:
                shard.pull()
                break
            except LostError as error:
                if time.monotonic() > deadline_secs:
                    raise UnavailableError(
                        f"{self._caller}: {shard.session.name} did not give its parameters within "
                        f"{self._timeout_secs:g} s: {error}"
                    ) from None
                self._context.stop.wait(_RETRY_SECS)
                shard.connect(self._timeout_secs)
        return None
