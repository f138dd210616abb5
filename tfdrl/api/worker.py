"""The process that trains or plays for a Python program: `python -m tfdrl.api.worker`.

Not in that program's own process: a launcher takes over signals, threads, and gin.
"""

from __future__ import annotations

import json
import pathlib
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from tfdrl.api.channel import Sender
from tfdrl.errors import EXIT_OK, TfdrlError, text_of
from tfdrl.launch import printed_commands, process, replicas, training
from tfdrl.launch.settings import LauncherSettings, Limits
from tfdrl.launch.supervisor import RunEnd
from tfdrl.reports.at_the_end import ReportWriter

_PERIOD_SECS = 1.0


class _Telling:
    """An `Observer` that sends what it sees."""

    def __init__(self, sender: Sender):
        self._sender, self._due_secs = sender, 0.0
        self._report = ReportWriter()

    def begin(self, root_dir: pathlib.Path) -> None:
        self._report.begin(root_dir)
        self._sender.send("root_dir", str(root_dir))

    def see(self, snapshot, elapsed_secs: float) -> None:
        if time.monotonic() < self._due_secs:
            return
        from tfdrl.api import snapshots

        self._due_secs = time.monotonic() + _PERIOD_SECS
        self._sender.offer("snapshot", snapshots.of(snapshot, elapsed_secs)._asdict())

    def end(self, ending: RunEnd) -> None:
        self._report.end(ending)
        self._sender.send("end", ending._asdict())


def _train(sender: Sender, gin_files, gin_bindings, root_dir, settings: dict[str, Any]) -> int:
    limits = Limits(**settings.pop("limits"))
    verbose = settings.get("verbose", False)
    training.prepare(verbose)

    def command(path: pathlib.Path) -> list[str]:
        flags = replicas.gin_flags(gin_files, gin_bindings)
        return [printed_commands.program("tfdrl-train"), *flags, f"--root_dir={path}"]

    return training.train(
        gin_files,
        gin_bindings,
        root_dir,
        LauncherSettings(limits=limits, **settings),
        command,
        observer=_Telling(sender),
    )


def _play(sender: Sender, **request: Any) -> int:
    from tfdrl.launch import gpus
    from tfdrl.launch.tools import evaluate

    process.silence()
    gpus.see("CPU")  # as the evaluator: the GPU may be a learner's
    stop = threading.Event()
    process.stop_on_signals(stop)
    asked = evaluate.Request(**{**request, "root_dir": pathlib.Path(request["root_dir"])})
    evaluation = evaluate.evaluate(asked, stop, print)
    sender.send("evaluation", evaluation._asdict())
    return EXIT_OK


_CALLS = {"train": _train, "play": _play}


def main(argv: Sequence[str]) -> int:
    """Does what it is asked for; `argv` is a descriptor and [call, its arguments] in JSON."""
    process.die_with_launcher()
    sender, (call, arguments) = Sender(int(argv[1])), json.loads(argv[2])
    try:
        return _CALLS[call](sender, **arguments)
    except TfdrlError as error:
        sender.send("error", {"exit_code": error.exit_code, "text": text_of(error)})
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv))
