"""Bytes that pass between the roles of a run, from what its processes have logged of themselves."""

from __future__ import annotations

import itertools
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

    A process looks at itself at moments of its own, up to 15 s apart: between two looks bytes are
    taken to flow evenly.

    Args:
      root_dir: of the run.
      begin_secs, end_secs: Unix time. Of a process whose first and last look leave a part of this
        uncovered the rate is that of the rest; one without a rest is left out.
    """
    found: dict[tuple[str, str], Traffic] = {}
    for path in sorted((root_dir / usage_log.DIRECTORY).glob("*.jsonl")):
        role = path.stem.rpartition("-")[0]
        if role in _NOT_COUNTED:
            continue
        for looks in usage_log.read(path):
            for peer, mine in _rates(looks, begin_secs, end_secs).items():
                known = found.get((role, peer), Traffic(0.0, 0.0))
                found[role, peer] = Traffic(known.sent + mine.sent, known.received + mine.received)
    return found


def _rates(looks: list[Usage], begin_secs: float, end_secs: float) -> dict[str, Traffic]:
    begin_secs, end_secs = max(begin_secs, looks[0].secs), min(end_secs, looks[-1].secs)
    if begin_secs >= end_secs:
        return {}
    sums: dict[str, Traffic] = {}
    for first, last in itertools.pairwise(looks):
        common_secs = min(last.secs, end_secs) - max(first.secs, begin_secs)
        if common_secs <= 0.0:
            continue
        share = common_secs / (last.secs - first.secs)
        for peer, flow in last.flows.items():
            before, known = first.flows.get(peer, Flow()), sums.get(peer, Traffic(0.0, 0.0))
            sums[peer] = Traffic(
                known.sent + share * (flow.sent_bytes - before.sent_bytes),
                known.received + share * (flow.received_bytes - before.received_bytes),
            )
    secs = end_secs - begin_secs
    return {p: Traffic(s.sent / secs, s.received / secs) for p, s in sums.items() if p != CLIENTS}
