"""Bytes that pass between the roles of a run, from what its processes have logged of themselves."""

from __future__ import annotations

import pathlib
from typing import NamedTuple

from tfdrl.rpc import usage_log
from tfdrl.rpc.usage import CLIENTS, Flow, Usage

#: Who only looks on.
_NOT_COUNTED = ("evaluator",)


class Traffic(NamedTuple):
    """Bytes per second, of all processes of one role, to those of another and back."""

    sent: float
    received: float


def of_run(
    root_dir: pathlib.Path, begin_secs: float, end_secs: float
) -> dict[tuple[str, str], Traffic]:
    """By (role, role that it has connected to), between two moments.

    Args:
      root_dir: of the run.
      begin_secs, end_secs: Unix time. A process that has not looked at itself twice meanwhile is
        left out.
    """
    found: dict[tuple[str, str], Traffic] = {}
    for path in sorted((root_dir / usage_log.DIRECTORY).glob("*.jsonl")):
        role = path.stem.rpartition("-")[0]
        if role in _NOT_COUNTED:
            continue
        for looks in usage_log.read(path):
            within = [look for look in looks if begin_secs <= look.secs <= end_secs]
            for peer, mine in _rates(within).items():
                known = found.get((role, peer), Traffic(0.0, 0.0))
                found[role, peer] = Traffic(known.sent + mine.sent, known.received + mine.received)
    return found


def _rates(looks: list[Usage]) -> dict[str, Traffic]:
    if len(looks) < 2:
        return {}
    first, last = looks[0], looks[-1]
    secs = last.secs - first.secs
    return {
        peer: Traffic(
            (flow.sent_bytes - first.flows.get(peer, Flow()).sent_bytes) / secs,
            (flow.received_bytes - first.flows.get(peer, Flow()).received_bytes) / secs,
        )
        for peer, flow in last.flows.items()
        if peer != CLIENTS
    }
