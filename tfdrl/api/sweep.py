"""Runs all variants of a program, one after the other or several at once, and reports on them."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import NamedTuple

from tfdrl import configuration
from tfdrl.api import training
from tfdrl.api.snapshots import Snapshot
from tfdrl.api.variants import Variant
from tfdrl.errors import EXIT_FAILED, EXIT_OK, ConfigurationError, TfdrlError
from tfdrl.launch import run_directory, summary
from tfdrl.launch.interrupts import Interrupts
from tfdrl.launch.settings import LauncherSettings
from tfdrl.launch.supervisor import TOLD
from tfdrl.reports import comparison, groups, page
from tfdrl.reports import run as reported
from tfdrl.runtime import locks

LOG = "launcher.log"
_SAY_SECS = 30.0
_POLL_SECS = 0.2


class Sweep(NamedTuple):
    """What is run.

    Attributes:
      gin_files, gin_bindings: of all.
      variants: what each has of its own; a directory of `root_dir` each.
      root_dir: new, or of the same sweep, which is continued.
      parallel: how many at once.
      settings: of each run's supervision.
    """

    gin_files: Sequence[str]
    gin_bindings: Sequence[str]
    variants: Sequence[Variant]
    root_dir: pathlib.Path
    parallel: int = 1
    settings: LauncherSettings = LauncherSettings()


def run(sweep: Sweep, say: Callable[[str], None] = print) -> int:
    """Trains what is not complete yet; a run that fails does not keep the others from running.

    Ctrl-C ends those that are under way, with checkpoints; the same call goes on with them. Call
    from the main thread.

    Returns the exit code: 0 if all are complete, or were told to stop.

    Raises ConfigurationError before anything is trained, and for what only a run finds out.
    """
    sweep = _shared(sweep, say)
    try:
        sweep.root_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"--root_dir={sweep.root_dir} cannot be written: {error.strerror}; choose another"
        ) from None
    missing = [v for v in sweep.variants if not is_complete(sweep.root_dir / v.name)]
    there = len(sweep.variants) - len(missing)
    already = f", {there} of them complete already" if there else ""
    say(f"{len(sweep.variants)} runs in {sweep.root_dir}{already}")
    with Interrupts() as interrupts, locks.lock(sweep.root_dir, "sweep"):
        failed = _train(sweep, missing, interrupts, say)
        _report(sweep, say)
    return EXIT_FAILED if failed else EXIT_OK


def _shared(sweep: Sweep, say: Callable[[str], None]) -> Sweep:
    """The same sweep, whose variants have what they heed of the bindings of all.

    Raises ConfigurationError for what nobody heeds, and for whatever else no run could go by.
    """
    files, common = sweep.gin_files, sweep.gin_bindings
    programs = {v.name: (files, [*common, *v.bindings]) for v in sweep.variants}
    ignored = configuration.unheeded(programs, common, say)
    variants = [
        v._replace(bindings=[b for b in common if b not in ignored[v.name]] + v.bindings)
        for v in sweep.variants
    ]
    for variant in variants:
        configuration.check(files, variant.bindings)
    return sweep._replace(gin_bindings=(), variants=variants)


def is_complete(root_dir: pathlib.Path) -> bool:
    """Whether a run has finished: neither failed nor told to stop."""
    if not (root_dir / run_directory.CONFIG).is_file():
        return False
    rows = summary.read(root_dir)
    return rows.get("exit code") == "0" and not rows["ended"].startswith(TOLD)


def _train(
    sweep: Sweep, missing: Sequence[Variant], interrupts: Interrupts, say: Callable[[str], None]
) -> bool:
    """Returns whether any failed."""
    failed = False
    with futures.ThreadPoolExecutor(sweep.parallel) as pool:
        running = {pool.submit(_one, sweep, v, interrupts, say): v for v in missing}
        try:
            while running:
                # With a time limit: a signal is noticed between two waits.
                done, _ = futures.wait(running, _POLL_SECS, futures.FIRST_COMPLETED)
                for future in done:
                    variant = running.pop(future)
                    try:
                        say(f"{variant.name}: {future.result()}")
                    except ConfigurationError as error:
                        raise ConfigurationError(f"{variant.name}: {error}") from None
                    except TfdrlError as error:
                        failed = True
                        say(f"{variant.name} FAILED: {error}")
        except BaseException:
            interrupts.count += 1  # the others end, too
            raise
    return failed


def _one(sweep: Sweep, variant: Variant, interrupts: Interrupts, say: Callable) -> str:
    """Trains one, unless all are to stop; returns how it ended, in words."""
    if interrupts.count:
        return "not trained"
    root_dir = sweep.root_dir / variant.name
    root_dir.mkdir(exist_ok=True)
    said_secs = time.monotonic()

    def look(snapshot: Snapshot) -> str | None:
        nonlocal said_secs
        if time.monotonic() - said_secs > _SAY_SECS:
            said_secs = time.monotonic()
            say(f"{variant.name}: {_words(snapshot)}")
        return "stop" if interrupts.count else None

    say(f"{variant.name} starts; what it prints: {root_dir / LOG}")
    with (root_dir / LOG).open("a") as log:
        done = training.launched(
            sweep.gin_files,
            [*sweep.gin_bindings, *variant.bindings],
            os.fspath(root_dir),
            sweep.settings,
            look,
            lambda line: print(line, file=log, flush=True),
        )
    best = "" if done.best_return is None else f"; best return {done.best_return:,.1f}"
    return f"{done.ended}{best}"


def _words(snapshot: Snapshot) -> str:
    found = [f"{snapshot.frames:,} frames", f"{snapshot.learner_steps:,} learner steps"]
    if snapshot.mean_return is not None:
        found.append(f"return {snapshot.mean_return:,.1f} (best {snapshot.best_return:,.1f})")
    return ", ".join(found)


def _report(sweep: Sweep, say: Callable[[str], None]) -> None:
    """A table over the runs there are, and root_dir/report.html."""
    paths = [sweep.root_dir / v.name for v in sweep.variants]
    runs = [reported.read(p) for p in paths if (p / run_directory.CONFIG).is_file()]
    if not runs:
        return
    labels = page.labels_of(runs)
    rows = comparison.rows(groups.grouped(runs, labels))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        say("  ".join(f"{cell:<{n}}" for cell, n in zip(row, widths)).rstrip())
    page.write(sweep.root_dir / page.FILE, page.text(runs, labels))
    say(f"report: {sweep.root_dir / page.FILE}")
