"""Trains what is compared, one run after the other under one budget, and writes its page."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tfdrl import configuration
from tfdrl.errors import ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.launch import curves, run_directory
from tfdrl.launch.interrupts import Interrupts
from tfdrl.launch.panel import duration
from tfdrl.reports import comparison, groups, page
from tfdrl.reports import run as reports_run
from tfdrl.runtime import locks
from tfdrl.studies.comparison import training
from tfdrl.studies.comparison.settings import Budget, Setting

TABLE = "table.txt"


class Study(NamedTuple):
    """What is compared, with which seeds, under which budget."""

    settings: Sequence[Setting]
    seeds: Sequence[int]
    budget: Budget


class Job(NamedTuple):
    """One run of a study."""

    setting: Setting
    seed: int
    gin_bindings: Sequence[str]
    directory: pathlib.Path

    @property
    def words(self) -> str:
        return f"{self.setting.label}, seed {self.seed}"


def run(study: Study, root_dir: pathlib.Path, say: Callable[[str], None]) -> bool:
    """Trains what is missing in `root_dir`; writes report.html and table.txt there.

    Ctrl-C ends the run that goes on and leaves a page of those that are complete; a second one
    kills it. Call from the main thread: it takes over the signals.

    Args:
      study: what is compared.
      root_dir: new, or of an earlier study with the same settings, which is continued.
      say: is told the progress.

    Returns whether all runs are complete.

    Raises:
      ConfigurationError: a gin file is wrong, or `root_dir` has runs with other settings.
      TfdrlError: a run failed or did not end in time.
    """
    targets = _check(study)
    jobs = list(_jobs(study, root_dir))
    _make(root_dir)
    with Interrupts() as interrupts, locks.lock(root_dir, "comparison"):
        missing = [job for job in jobs if not _is_complete(job)]
        if len(missing) < len(jobs):
            say(f"{len(jobs) - len(missing)} of {len(jobs)} runs are there already")
        try:
            _train(study, missing, interrupts, say)
        finally:
            _report(jobs, targets, root_dir)
    return all(training.ending(job.directory) for job in jobs)


def _jobs(study: Study, root_dir: pathlib.Path):
    """All of one seed before the next: an interrupted study has compared something."""
    for seed in study.seeds:
        for setting in study.settings:
            bindings = (*setting.gin_bindings, *study.budget.bindings(seed))
            yield Job(setting, seed, bindings, root_dir / f"{setting.slug}-{seed}")


def _check(study: Study) -> dict[str, float | None]:
    """Refuses what cannot work before anything is trained; returns each setting's target."""
    targets = {}
    for setting in study.settings:
        configuration.load(setting.gin_files, setting.gin_bindings, tensorflow=False)
        targets[setting.label] = Experiment.from_gin().solved_return
        bindings = [*setting.gin_bindings, *study.budget.bindings(study.seeds[0])]
        configuration.load(setting.gin_files, bindings, tensorflow=False)
        Experiment.from_gin().architecture.program()
    return targets


def _make(root_dir: pathlib.Path) -> None:
    try:
        root_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"--root_dir={root_dir} cannot be written: {error.strerror}; choose another directory"
        ) from None


def _is_complete(job: Job) -> bool:
    config = job.directory / run_directory.CONFIG
    if training.ending(job.directory) is None or not config.exists():
        return False
    expected = configuration.check(job.setting.gin_files, job.gin_bindings).text
    listed = [f"  {line}" for line in configuration.differences(config.read_text(), expected)]
    if listed:
        raise ConfigurationError(
            "\n".join([f"{job.directory} was trained with other settings:", *listed])
            + "\nGive those again, or choose another --root_dir"
        )
    return True


def _train(
    study: Study, missing: Sequence[Job], interrupts: Interrupts, say: Callable[[str], None]
) -> None:
    start_secs = time.monotonic()
    for number, job in enumerate(missing):
        if interrupts.count:
            return
        left = ""
        if number:
            each_secs = (time.monotonic() - start_secs) / number
            left = f"; about {duration(each_secs * (len(missing) - number))} left"
        say(f"[{number + 1}/{len(missing)}] {job.words}{left}")
        _clear(job.directory)
        one = training.Training(
            job.directory, job.setting.gin_files, job.gin_bindings, study.budget.minutes
        )
        began_secs = time.monotonic()
        ended = training.train(one, lambda: interrupts.count, say)
        if ended is None:
            say("stopped; the same command with the same --root_dir continues")
            return
        rows = curves.read(job.directory)
        last = f"return {rows[-1]['mean']:.2f}; " if rows else "no evaluation; "
        say(f"    {last}{ended.reason}; {duration(time.monotonic() - began_secs)}")


def _clear(directory: pathlib.Path) -> None:
    """Removes a run that was not completed.

    It is not continued: what comes after a restart (an empty queue, parameters that are up to
    date) is no part of what is compared.
    """
    if not (directory / run_directory.CONFIG).exists():
        return
    with run_directory.claim(directory):  # waits for processes that are about to end
        shutil.rmtree(directory)


def _report(jobs: Sequence[Job], targets: dict[str, float | None], root_dir: pathlib.Path) -> None:
    """Writes what is known; prints the table."""
    runs, labels = [], []
    for job in jobs:
        if not training.ending(job.directory):
            continue
        with contextlib.suppress(ConfigurationError):  # its directory was taken away
            found = reports_run.read(job.directory)
            facts = found.facts._replace(solved_return=targets[job.setting.label])
            runs.append(found._replace(facts=facts))
            labels.append(page.NAMES.get(job.setting.label, job.setting.label))
    if not runs:
        return
    table = comparison.text(groups.grouped(runs, labels)) + _notes(jobs)
    (root_dir / TABLE).write_text(table)
    page.write(root_dir / page.FILE, page.text(runs, labels, remarks=_notes(jobs).splitlines()))
    print(f"{table}\n{root_dir / page.FILE}", flush=True)


def _notes(jobs: Sequence[Job]) -> str:
    """A line for each run that is missing, or did not end by its budget."""
    lines = []
    for job in jobs:
        ended = training.ending(job.directory)
        has_frames = "experiment.max_frames = None" not in job.gin_bindings
        if ended is None:
            lines.append(f"{job.words}: not trained yet")
        elif ended.exit_code:
            lines.append(f"{job.words}: {ended.reason}")
        elif has_frames and not ended.reason.startswith("reached max_frames"):
            lines.append(f"{job.words}: {ended.reason}, before its frames")
    return "".join(f"{line}\n" for line in lines)


def say_on_stderr(text: str) -> None:
    """Progress, so that stdout has the table only."""
    print(text, file=sys.stderr, flush=True)
