"""A process's log of what it uses: a line of JSON now and then, under root_dir/usage.

Roles without TensorFlow leave one, too. Others show the same numbers in TensorBoard.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import threading
from collections.abc import Iterator, Mapping

from tfdrl.rpc.usage import Flow, ProcessUsage, Usage
from tfdrl.topology import Address, Addresses, Context

DIRECTORY = "usage"
#: Between two looks: a short run has many of them, a long one not too many.
_FIRST_SECS, _GROWTH, _LONGEST_SECS = 1.0, 1.1, 15.0
_LAST_LOOK_SECS = 3.0  # on a machine that is busy

_newest: dict[str, float] = {}


def metrics() -> dict[str, float]:
    """This process's rates between the last two looks; empty where nobody looks, or not yet."""
    return _newest


@contextlib.contextmanager
def kept(context: Context, peers: Mapping[str, Addresses]) -> Iterator[None]:
    """Keeps the log of a role's process until the block is left.

    Args:
      context: of the role.
      peers: whom it connects to: addresses by role.
    """
    left = threading.Event()
    path = pathlib.Path(context.root_dir) / DIRECTORY / f"{context.role}-{context.task}.jsonl"
    thread = threading.Thread(
        target=_run,
        args=(path, peers, context.listen, left, context.log_period_secs(_LONGEST_SECS)),
        name="usage",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join(_LAST_LOOK_SECS)


def read(path: pathlib.Path) -> list[list[Usage]]:
    """The looks of each start of a role, in the order of time; broken lines are left out."""
    starts: dict[int, list[Usage]] = {}
    with contextlib.suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                row = json.loads(line)
                flows = {role: Flow(*counts) for role, counts in row.pop("flows").items()}
                starts.setdefault(row.pop("pid"), []).append(Usage(flows=flows, **row))
    return list(starts.values())


def _run(
    path: pathlib.Path,
    peers: Mapping[str, Addresses],
    listen: Address | None,
    left: threading.Event,
    longest_secs: float,
) -> None:
    global _newest
    usage, pause_secs, is_last = ProcessUsage(peers, listen), _FIRST_SECS, False
    before = usage.look()
    while not is_last:
        is_last = left.wait(pause_secs)
        now = usage.look()
        _newest = now.metrics(before)
        with contextlib.suppress(OSError):  # a full disk costs the log, not the run
            _append(path, now)
        before, pause_secs = now, min(_GROWTH * pause_secs, longest_secs)


def _append(path: pathlib.Path, usage: Usage) -> None:
    path.parent.mkdir(exist_ok=True)
    row = {
        "pid": os.getpid(),
        "secs": round(usage.secs, 3),
        "cpu_secs": round(usage.cpu_secs, 3),
        "memory_mb": round(usage.memory_mb, 1),
        "flows": usage.flows,
    }
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
