"""Trains with every off-policy correction under a forced policy lag, with and without replay.

The experiment of Espeholt 2018, section 5.2.2 and table 2, on a task of the user's choice: one
whole training run for each correction, replay share and seed, all on equally many frames.
"""

from __future__ import annotations

import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tfdrl import configuration
from tfdrl.architectures.impala import Impala
from tfdrl.errors import ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.launch import run_directory
from tfdrl.launch.interrupts import Interrupts
from tfdrl.launch.panel import duration
from tfdrl.runtime import locks
from tfdrl.studies.corrections import plot, table
from tfdrl.studies.corrections import run as corrections_run
from tfdrl.studies.corrections.table import Training

_AGENT = "VTraceAgent"


class StudySettings(NamedTuple):
    """What is compared.

    Attributes:
      gin_files, gin_bindings: as for training; the task and everything that is not compared.
      corrections: some of `tfdrl.ops.actor_critic.CORRECTIONS`.
      replay_shares: of a batch, 0 for no replay.
      seeds: how many, from 1 on.
      frames: environment frames of each run; None: experiment.max_frames.
      policy_lag_steps: forced lag in learner steps; None: impala.policy_lag_steps.
      minutes: after which a run ends without all its frames.
    """

    gin_files: Sequence[str]
    gin_bindings: Sequence[str]
    corrections: Sequence[str]
    replay_shares: Sequence[float]
    seeds: int
    frames: int | None
    policy_lag_steps: int | None
    minutes: float


def run(settings: StudySettings, root_dir: pathlib.Path, say: Callable[[str], None]) -> bool:
    """Trains what is missing in `root_dir`; writes table.txt, table.csv and plot.png there.

    Ctrl-C ends the run that is going on and leaves a table of those that are complete; a second
    one kills it. Call from the main thread: it takes over the signals.

    Args:
      settings: what is compared.
      root_dir: new, or of an earlier comparison with the same settings, which is continued.
      say: is told the progress.

    Returns whether all runs are complete.

    Raises:
      ConfigurationError: the gin file is not one of IMPALA's V-trace agent, or is wrong, or
        `root_dir` has runs with other settings.
      TfdrlError: a run failed or did not end in time.
    """
    task = _check(settings)
    trainings = list(_trainings(settings))
    _make(root_dir)
    with Interrupts() as interrupts, locks.lock(root_dir, "comparison"):
        missing = [t for t in trainings if not _is_complete(settings, root_dir, t)]
        if len(missing) < len(trainings):
            say(f"{len(trainings) - len(missing)} of {len(trainings)} runs are there already")
        try:
            _train(settings, root_dir, missing, interrupts, say)
        finally:
            _report(settings, root_dir, task, trainings)
    return all(corrections_run.ending(root_dir / training.name) for training in trainings)


def bindings(settings: StudySettings, training: Training) -> list[str]:
    """The gin bindings of one run: the user's, then those that are compared."""
    own = {
        f"{_AGENT}.correction": training.correction,
        "impala.replay_share": training.replay_share,
        "experiment.seed": training.seed,
        "experiment.solved_return": None,  # or the better ones would see less data
        "experiment.max_learner_steps": None,
        "experiment.max_minutes": float(settings.minutes),
    }
    if settings.frames is not None:
        own["experiment.max_frames"] = settings.frames
    if settings.policy_lag_steps is not None:
        own["impala.policy_lag_steps"] = settings.policy_lag_steps
    return [*settings.gin_bindings, *(f"{name} = {value!r}" for name, value in own.items())]


def _trainings(settings: StudySettings) -> Iterator[Training]:
    """All of one seed before the next: an interrupted comparison has compared something."""
    for seed in range(1, settings.seeds + 1):
        for replay_share in settings.replay_shares:
            for correction in settings.corrections:
                yield Training(correction, replay_share, seed)


def _check(settings: StudySettings) -> str:
    """Refuses what cannot work before anything is trained; returns a line on the task."""
    for replay_share in settings.replay_shares:
        training = Training(settings.corrections[0], replay_share, 1)
        configuration.load(settings.gin_files, bindings(settings, training), tensorflow=False)
        experiment = Experiment.from_gin()
        config = experiment.architecture
        if not isinstance(config, Impala) or _AGENT not in repr(config.agent):
            raise ConfigurationError(
                f"the corrections are those of IMPALA's {_AGENT}; give a gin file with "
                "experiment.architecture = @impala() and impala.agent = @VTraceAgent, such as "
                "impala/corrections.gin"
            )
        if experiment.max_frames is None:
            raise ConfigurationError(
                "every run must see equally much: give --frames, or bind experiment.max_frames"
            )
    return (
        f"{', '.join(settings.gin_files)}: {experiment.max_frames:,} frames, actors "
        f"{config.policy_lag_steps} learner steps behind"
    )


def _make(root_dir: pathlib.Path) -> None:
    try:
        root_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"--root_dir={root_dir} cannot be written: {error.strerror}; choose another directory"
        ) from None


def _is_complete(settings: StudySettings, root_dir: pathlib.Path, training: Training) -> bool:
    directory = root_dir / training.name
    config = directory / run_directory.CONFIG
    if corrections_run.ending(directory) is None or not config.exists():
        return False
    expected = configuration.check(settings.gin_files, bindings(settings, training)).text
    found = configuration.differences(config.read_text(), expected)
    listed = [f"  {line}" for line in found if not line.startswith("experiment.max_minutes:")]
    if listed:
        raise ConfigurationError(
            "\n".join([f"{directory} was trained with other settings:", *listed])
            + "\nGive those again, or choose another --root_dir"
        )
    return True


def _train(
    settings: StudySettings,
    root_dir: pathlib.Path,
    missing: Sequence[Training],
    interrupts: Interrupts,
    say: Callable[[str], None],
) -> None:
    start_secs = time.monotonic()
    for number, training in enumerate(missing):
        if interrupts.count:
            return
        left = ""
        if number:
            each_secs = (time.monotonic() - start_secs) / number
            left = f"; about {duration(each_secs * (len(missing) - number))} left"
        say(f"[{number + 1}/{len(missing)}] {training.words}{left}")
        directory = root_dir / training.name
        _clear(directory)
        job = corrections_run.TrainingJob(
            directory, settings.gin_files, bindings(settings, training), settings.minutes
        )
        began_secs = time.monotonic()
        ended = corrections_run.train(job, lambda: interrupts.count, say)
        if ended is None:
            say("stopped; the same command with the same --root_dir continues")
            return
        value = table.final_return(table.read(directory))
        took = duration(time.monotonic() - began_secs)
        say(f"    final return {value:.2f}; {ended.reason}; {took}")


def _clear(directory: pathlib.Path) -> None:
    """Removes a run that was not completed.

    It is not continued: after a restart the actors would be up to date for as many learner steps
    as the forced lag has, which is what the comparison is about.
    """
    if not (directory / run_directory.CONFIG).exists():
        return
    with run_directory.claim(directory):  # waits for processes that are about to end
        shutil.rmtree(directory)


def _report(
    settings: StudySettings, root_dir: pathlib.Path, task: str, trainings: Sequence[Training]
) -> None:
    """Writes what is known; prints the table."""
    found = [
        table.Result(training, table.read(root_dir / training.name), ended)
        for training in trainings
        if (ended := corrections_run.ending(root_dir / training.name))
    ]
    if not found:
        return
    cells = table.cells(found)
    page = table.text(cells, settings.corrections, settings.replay_shares, task)
    page += table.notes(found)
    (root_dir / "table.txt").write_text(page)
    table.write_csv(root_dir / "table.csv", cells)
    plot.draw(root_dir / "plot.png", found, settings.replay_shares, task)
    print(page, end="", flush=True)


def say_on_stderr(text: str) -> None:
    """Progress, so that stdout has the table only."""
    print(text, file=sys.stderr, flush=True)
