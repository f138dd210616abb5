"""Looks at parameter servers and asks them for a checkpoint or a rollback: for people."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from absl import flags

from tfdrl.errors import EXIT_OK, ConfigurationError, UnavailableError
from tfdrl.launch import command_line, gpus, process
from tfdrl.topology import Address

_USAGE = """Shows how parameter servers are, or asks them for something.

  tfdrl-parameters --parameter_server=hostA:8000,hostB:8000
  tfdrl-parameters --parameter_server=hostA:8000,hostB:8000 --checkpoint
  tfdrl-parameters --parameter_server=hostA:8000,hostB:8000 --rollback=12000

A rollback sets parameters and optimizer slots back to the newest snapshot that is not newer than
the version; gradients that were computed from what is discarded are rejected. Exit codes: 0 done,
1 a server does not answer, 2 wrong arguments."""

_LIMIT_SECS = 10.0


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string(
        "parameter_server", "", "host:port of every server, in their order.", flag_values=values
    )
    flags.DEFINE_bool("checkpoint", False, "Write checkpoints now.", flag_values=values)
    flags.DEFINE_integer(
        "rollback", None, "Go back to this version, or the snapshot before it.", flag_values=values
    )
    return values


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first) and does what it says; returns the exit code."""
    values = _flags()
    command_line.parse(values, argv, _USAGE)
    if not values.parameter_server:
        raise ConfigurationError("--parameter_server is missing; give host:port,host:port")
    texts = values.parameter_server.split(",")
    addresses = tuple(Address.parse(text.strip(), "parameter_server") for text in texts)
    process.silence()
    process.limit_threads(1)
    gpus.see("CPU")
    from tfdrl.parameter_server.watch import ParameterWatch

    watch = ParameterWatch(addresses, "tfdrl parameters")
    watch.connect(_LIMIT_SECS, threading.Event())
    before = _answers(watch.statuses())
    if values.rollback is not None:
        _check_snapshot(before, values.rollback)
        _require_all(not watch.rollback(values.rollback), "rollback")
        before = _wait(watch, before, lambda now, then: now["epoch"] > then["epoch"], "rollback")
    if values.checkpoint:
        _require_all(watch.checkpoint(), "checkpoint")

        def is_written(now, then):
            return now["checkpoints"]["written"] > then["checkpoints"]["written"]

        before = _wait(watch, before, is_written, "checkpoint")
    print(_page(addresses, before))
    return EXIT_OK


def _answers(statuses: Sequence[dict | None]) -> list[dict]:
    silent = [task for task, status in enumerate(statuses) if status is None]
    if silent:
        raise UnavailableError(f"parameter servers {silent} do not answer")
    return list(statuses)


def _require_all(all_were_told: bool, what: str) -> None:
    if not all_were_told:
        raise UnavailableError(f"not all parameter servers could be asked for the {what}")


def _check_snapshot(statuses: Sequence[dict], version: int) -> None:
    """The first server's snapshots decide; the others have some from about the same time."""
    for task, status in enumerate(statuses):
        taken = [snapshot for snapshot, _ in status["snapshots"]]
        is_old_enough = any(snapshot <= version for snapshot in taken) if task == 0 else taken
        if not is_old_enough:
            there_are = ", ".join(map(str, taken)) or "none"
            raise ConfigurationError(
                f"--rollback={version}: parameter server {task} has no snapshot that old; its "
                f"snapshots are of versions: {there_are}"
            )


def _wait(watch, before: Sequence[dict], is_done: Callable, what: str) -> list[dict]:
    deadline_secs = time.monotonic() + _LIMIT_SECS
    while time.monotonic() < deadline_secs:
        now = watch.statuses()
        if all(now) and all(map(is_done, now, before)):
            return now
        time.sleep(0.1)
    raise UnavailableError(f"the {what} was not done within {_LIMIT_SECS:g} s")


def _page(addresses: Sequence[Address], statuses: Sequence[dict]) -> str:
    lines = []
    for task, (address, status) in enumerate(zip(addresses, statuses)):
        lines.append(f"parameter server {task} at {address}")
        snapshots = ", ".join(f"{version:,}" for version, _ in status["snapshots"])
        verdicts = ", ".join(f"{name} {count:,}" for name, count in status["verdicts"].items())
        rows = {
            "version": f"{status['version']:,}",
            "epoch": f"{status['epoch']} ({status['rollbacks']} rollbacks)",
            "gradients": verdicts,
            "snapshots": snapshots or "none",
            "last checkpoint": status["checkpoints"]["version"] or "none since its start",
        }
        lines += [f"  {name:<17}{value}" for name, value in rows.items()]
    return "\n".join(lines)
