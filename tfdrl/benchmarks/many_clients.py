"""Clients that pull parameters and report as actors do, many in one process."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import numpy as np

from tfdrl.benchmarks.processes import Job
from tfdrl.errors import UnavailableError
from tfdrl.launch.credentials import Credentials
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.rpc.run_messages import NO_VERSION
from tfdrl.topology import Address

_TIMEOUT_SECS = 60.0
_REPORT_SECS = 1.0
#: As many as an actor's, of such names.
_METRICS = {f"actor/metric_of_a_name_{number}": 0.5 for number in range(20)}


class Order(NamedTuple):
    """What clients are to do.

    what       "join", once; "live" for so long: report each second, and pull what is newer every
               `pull_secs`; "pull" for so long: whole sets, as fast as they come
    number     of clients, of one process
    """

    what: str
    number: int = 0
    secs: float = 0.0
    pull_secs: float = 0.0


class Answer(NamedTuple):
    """What they have done: pulls that were answered, bytes that came, times <float>[k]."""

    replies: int
    size_bytes: int
    times_ms: np.ndarray
    failures: int


def clients(
    job: Job, learner: Address, credentials: Credentials, tasks: Sequence[int]
) -> Generator[Answer | None, Order, None]:
    """Clients with these tasks; told an `Order`, they carry it out and yield an `Answer`."""
    security = credentials.security
    found = [
        TrainingClient(
            learner,
            experiment=job.digest,
            role="actor",
            task=task,
            run_id=random.SystemRandom().getrandbits(63),
            security=security,
        )
        for task in tasks
    ]
    answer = None
    while True:
        order = yield answer
        answer = _carry_out(order, found[: order.number])


def _carry_out(order: Order, found: Sequence[TrainingClient]) -> Answer:
    does = {"join": _join, "live": _live, "pull": _pull}[order.what]
    done = [_Done() for _ in found]
    threads = [
        threading.Thread(target=does, args=(order, client, own), daemon=True)
        for client, own in zip(found, done)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times_ms = [one_ms for own in done for one_ms in own.times_ms]
    return Answer(
        len(times_ms),
        sum(own.size_bytes for own in done),
        np.array(times_ms),
        sum(own.failures for own in done),
    )


class _Done:
    """Of one client."""

    def __init__(self):
        self.times_ms: list[float] = []
        self.size_bytes = self.failures = 0

    def time(self, call: Callable[[], object]) -> object:
        """What the call returns, if it succeeds; its time counts."""
        begin_secs = time.perf_counter()
        try:
            found = call()
        except UnavailableError:
            self.failures += 1
            return None
        self.times_ms.append(1e3 * (time.perf_counter() - begin_secs))
        return found

    def pull(self, client: TrainingClient, have_version: int) -> int:
        """The version that the client has then."""
        found = self.time(lambda: client.parameters(have_version, _TIMEOUT_SECS))
        if found is None:
            return have_version
        version, tensors = found
        self.size_bytes += sum(tensor.nbytes for tensor in tensors)
        return version


def _join(order: Order, client: TrainingClient, done: _Done) -> None:
    del order
    done.time(lambda: client.join(_TIMEOUT_SECS))


def _live(order: Order, client: TrainingClient, done: _Done) -> None:
    end_secs, version, frames = time.monotonic() + order.secs, NO_VERSION, 0
    pull_secs = time.monotonic() + random.uniform(0.0, order.pull_secs)
    report_secs = time.monotonic() + random.uniform(0.0, _REPORT_SECS)
    while (due_secs := min(pull_secs, report_secs)) < end_secs:
        time.sleep(max(0.0, due_secs - time.monotonic()))
        if due_secs == pull_secs:
            version = done.pull(client, version)
            pull_secs += order.pull_secs
        else:
            frames += 20
            try:
                client.report(frames=frames, metrics=_METRICS, timeout_secs=_TIMEOUT_SECS)
            except UnavailableError:
                done.failures += 1
            report_secs += _REPORT_SECS


def _pull(order: Order, client: TrainingClient, done: _Done) -> None:
    end_secs = time.monotonic() + order.secs
    while time.monotonic() < end_secs:
        done.pull(client, NO_VERSION)
