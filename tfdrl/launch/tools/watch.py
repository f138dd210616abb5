"""A look at a run from outside: what its chief tells, as a panel, as lines, or as JSON, once."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tfdrl.errors import UnavailableError
from tfdrl.launch import panel
from tfdrl.launch.status import RunStatus, Tracker, Watch, combined
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.rpc.run_messages import Status
from tfdrl.rpc.security import Security
from tfdrl.topology import Address, Role

_RECENT_SECS = 30.0
_TICK_SECS = 0.2


def once(addresses: Sequence[Address], security: Security, timeout_secs: float) -> Status:
    """Asks the chief's replicas once; their status, combined.

    Raises UnavailableError if the first does not answer in time.
    """
    statuses: list[Status | None] = []
    for address in addresses:
        client = TrainingClient(
            address, experiment="", role="watch", task=0, run_id=0, security=security
        )
        try:
            statuses.append(client.status(timeout_secs=timeout_secs))
        except UnavailableError:
            if not statuses:
                raise
            statuses.append(None)
        finally:
            client.close()
    return combined(statuses)


def as_json(status: Status) -> str:
    """A status as one line of JSON; a number that is not finite is null."""
    found = status._asdict()
    found["roles"] = [role._asdict() for role in status.roles]
    found["evaluation"] = status.evaluation and status.evaluation._asdict()
    return json.dumps(_finite(found))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def facts(snapshot: RunStatus) -> list[panel.Fact]:
    """The rows of the panel: those of the launcher's, but that processes are those that report."""
    status, now_secs = snapshot.status, time.monotonic()
    uptime_secs = status.uptime_secs if status else 0.0
    return panel.facts(snapshot, _crews(status), 0, elapsed_secs=uptime_secs, now_secs=now_secs)


def _crews(status: Status | None) -> list[panel.RoleProcesses]:
    reports = status.roles if status else []
    known = {(role.role, role.task) for role in reports}
    recent = {(r.role, r.task) for r in reports if r.seconds_since_report < _RECENT_SECS}
    there, alive = (Counter(name for name, _ in keys) for keys in (known, recent))
    return [panel.RoleProcesses(Role(name, "", there[name]), alive[name]) for name in there]


def follow(
    addresses: Sequence[Address],
    security: Security,
    timeout_secs: float,
    stopped: Callable[[], bool],
) -> str:
    """Shows the run until it is over, or `stopped()`; returns why it went away, "" if it did not.

    Raises UnavailableError if the chief does not answer at first.
    """
    tracker = Tracker(time.monotonic())
    tracker.add(once(addresses, security, timeout_secs), time.monotonic())
    display, watch = panel.display(f"tfdrl at {addresses[0]}"), Watch(addresses, "", security)
    first = tracker.snapshot
    try:
        while not stopped():
            snapshot = watch.snapshot if watch.snapshot.status else first
            if display.is_due():
                display.show(facts(snapshot))
            if snapshot.status.finished:
                return snapshot.status.reason or "the run is over"
            if time.monotonic() - snapshot.answered_secs > panel.SILENCE_SECS:
                return f"no answer for {panel.SILENCE_SECS:g} s: the run is over, or out of reach"
            time.sleep(_TICK_SECS)
        return ""
    finally:
        watch.close()
        display.close()
