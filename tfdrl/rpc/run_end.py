"""How a role that nobody stops ends with its run: it asks the chief, and leaves after it.

A replay or a parameter server serves whoever comes, and is told nothing. Where no launcher watches
over the run (containers, Kubernetes' Jobs, terminals) each would serve on when all is over.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tfdrl.errors import TfdrlError, UnavailableError
from tfdrl.rpc.security import Security
from tfdrl.topology import Address, Context

if TYPE_CHECKING:
    from tfdrl.rpc.run_client import TrainingClient

_LOG = logging.getLogger(__name__)
_PERIOD_SECS = 1.0
_CALL_SECS = 5.0
#: The chief writes its last checkpoint, and may ask servers for theirs, after it said the end.
_CHIEF_LEAVES_SECS = 120.0
_GRACE_SECS = 1.0


@contextlib.contextmanager
def stops(context: Context, chief: Address | None) -> Iterator[None]:
    """Meanwhile `context.stop` is set when the run is over, and its chief has left.

    A chief that cannot be reached has ended nothing: it may come back from its checkpoint.

    Args:
      context: of a role that serves.
      chief: where the chief's training service listens; None: somebody else stops this role.
    """
    if chief is None:
        yield
        return
    left = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(context, chief, left), name="run end", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join(_CALL_SECS)


def _watch(context: Context, chief: Address, left: threading.Event) -> None:
    from tfdrl.rpc.run_client import TrainingClient  # a mistake in flags is told without gRPC

    client = TrainingClient(
        chief,
        experiment=context.experiment,
        role=context.role,
        task=context.task,
        run_id=random.SystemRandom().getrandbits(63),
        security=context.security or Security(),
    )
    with contextlib.closing(client):
        try:
            if _is_over(client, left):
                _wait_until_gone(client, left)
                context.stop.set()
        except TfdrlError as error:
            _LOG.error("nobody will tell this role when the run is over: %s", error)


def _is_over(client: TrainingClient, left: threading.Event) -> bool:
    """Waits until the chief says that the run is over; False if `left` is set before."""
    while not left.is_set():
        with contextlib.suppress(UnavailableError):
            reply = client.report(timeout_secs=_CALL_SECS)
            if reply.stop:
                _LOG.info("the run is over: %s", reply.reason)
                return True
        left.wait(_PERIOD_SECS)
    return False


def _wait_until_gone(client: TrainingClient, left: threading.Event) -> None:
    """Goes on reporting: a chief waits a moment until all have heard of the end, and leaves."""
    deadline_secs = time.monotonic() + _CHIEF_LEAVES_SECS
    with contextlib.suppress(UnavailableError):
        while not left.is_set() and time.monotonic() < deadline_secs:
            client.report(timeout_secs=_CALL_SECS)
            left.wait(0.25)
    left.wait(_GRACE_SECS)
