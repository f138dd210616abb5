"""One benchmark from its settings to its tables; it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence

from tfdrl.benchmarks import costs as plan_costs
from tfdrl.benchmarks import start_up
from tfdrl.benchmarks.harness import Bench, BenchmarkSettings, Measured, Subject
from tfdrl.benchmarks.measuring import Costs, cost, say
from tfdrl.benchmarks.page import Figure, Section
from tfdrl.benchmarks.system import System
from tfdrl.errors import ConfigurationError


def run(settings: BenchmarkSettings, subjects: Sequence[Subject]) -> list[Section]:
    """Measures; the tables to show. Call from the main thread.

    Raises:
      ConfigurationError: the gin file is wrong, or of an architecture that is not measured.
      TfdrlError: something failed or took too long.
    """
    with _scratch() as directory:
        bench = Bench.of(settings, directory)
        subject = None if settings.parts == "s" else _subject_of(bench, subjects)
        tables = []
        if "s" in settings.parts:
            tables.append(start_up.section(bench))
        return tables if subject is None else tables + sections(_measure(subject, bench))


def costs(settings: BenchmarkSettings, subjects: Sequence[Subject]) -> dict:
    """What plans are made of, for json.dump. Call from the main thread; raises as `run`."""
    with _scratch() as directory:
        bench = Bench.of(settings, directory)
        return plan_costs.measure(bench, _subject_of(bench, subjects))


def _subject_of(bench: Bench, subjects: Sequence[Subject]) -> Subject:
    """What to measure; raises ConfigurationError if nobody has said what its parts are."""
    for subject in subjects:
        if isinstance(bench.config, subject.configs):
            break
    else:
        names = ", ".join(subject.name for subject in subjects)
        raise ConfigurationError(
            f"the benchmark measures {names}, not {type(bench.config).__name__}; give a gin file "
            "with experiment.architecture = @apex(), @impala(), @seed(), @a3c() or @gorila(), "
            "such as apex/cartpole.gin"
        )
    *known, last = [*subject.parts, *subject.asked_for, "e"]
    if not {*known, last} & set(bench.settings.parts):
        raise ConfigurationError(
            f"--parts={','.join(bench.settings.parts)}: the parts of {subject.name} are "
            f"{', '.join(known)} and {last}"
        )
    return subject


def _measure(subject: Subject, bench: Bench) -> Measured:
    every = {**subject.parts, **subject.asked_for}
    parts = {key: part for key, part in every.items() if key in bench.settings.parts}
    frames_per_step = bench.frames_per_step  # an environment that cannot be made is refused here
    free = bench.bound(*subject.bindings(bench.config, bench.loaded.text))
    found, whole = {}, None
    for letter, part in parts.items():
        say(f"part {letter}")
        found[letter] = part.measure(free)
    if "e" in bench.settings.parts:
        say(f"whole system: {bench.settings.secs:g} s after its start")
        whole = bench.run()
    cores = len(os.sched_getaffinity(0))
    return Measured(subject, bench.config, frames_per_step, cores, found, whole)


@contextlib.contextmanager
def _scratch() -> Iterator[pathlib.Path]:
    """A directory for the run, and for what our processes leave in TMPDIR (AutoGraph does)."""
    before = os.environ.get("TMPDIR")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="tfdrl-benchmark-"))
    os.environ["TMPDIR"] = str(directory)
    try:
        yield directory
    finally:
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before
        shutil.rmtree(directory, ignore_errors=True)


def sections(measured: Measured) -> list[Section]:
    """Everything that was measured, in the order of the parts."""
    parts = {**measured.subject.parts, **measured.subject.asked_for}
    costs = {
        part: {name: cost(turns) for name, turns in found.turns.items()}
        for part, found in measured.found.items()
    }
    tables = [
        Section(parts[letter].title.format(config=measured.config), found.figures)
        for letter, found in measured.found.items()
    ]
    if measured.system is not None:
        tables += [_system(measured, costs), _processes(measured), _threads(measured)]
    if set(costs) >= set(measured.subject.parts):
        tables += measured.subject.limits(costs, measured)
    return tables


def _system(measured: Measured, costs: Costs) -> Section:
    system = measured.system
    values = {
        "frames": system.frames_per_second,
        "steps": measured.steps_per_second,
        "updates": system.learner_steps_per_second,
        **system.metrics,
    }
    figures = [
        Figure(words, values[key], unit)
        for key, (words, unit) in measured.subject.whole.items()
        if key in values
    ]
    figures += _traffic(system)
    if "d" in costs:
        share = system.learner_steps_per_second / costs["d"]["train"].units_per_second
        figures.append(Figure("learner steps/s here / in memory (d)", share, "ratio"))
    return Section("Whole system (e)", [Figure("measured for", system.secs, "s"), *figures])


def _traffic(system: System) -> list[Figure]:
    """Of each pair of roles, both ways."""
    return [
        Figure(f"{way} {pair[0]} {words} {pair[1]}", rate / system.frames_per_second, "bytes/frame")
        for pair, rates in system.traffic.items()
        for way, words, rate in (("from", "to", rates.sent), ("to", "from", rates.received))
        if system.frames_per_second
    ]


def _processes(measured: Measured) -> Section:
    figures = []
    for name, usage in measured.system.processes.items():
        figures += [
            Figure(f"{name}: CPU", usage.cores, "cores"),
            Figure(f"{name}: memory (RSS)", usage.rss_mb, "MB"),
            Figure(f"{name}: growth of memory", usage.rss_mb_per_minute, "MB/min"),
        ]
    figures += [
        Figure("all of these: CPU", measured.system.cores, "cores"),
        Figure("everything else on this machine: CPU", measured.system.other_cores, "cores"),
    ]
    return Section("Processes of the whole system (e)", figures)


def _threads(measured: Measured) -> Section:
    """By thread, for an environment step of the run, which unlike a rate bears a busy machine.

    Those that use less than a hundredth of the process are left out.
    """
    threads, steps_per_second = measured.system.threads, measured.steps_per_second
    total = sum(usage.cores for usage in threads.values())
    unit = "CPU us/environment step"
    figures = [Figure("all threads", _per_step(total, steps_per_second), unit)]
    for name, usage in threads.items():
        if usage.cores > 0.01 * total:
            figures.append(Figure(name, _per_step(usage.cores, steps_per_second), unit))
    shares = {name: usage.lock_share for name, usage in threads.items() if usage.lock_share}
    for name, share in shares.items():
        figures.append(Figure(f"{name}: holds the interpreter's lock", share, "share of time"))
    if shares:
        held = sum(shares.values())
        figures.append(Figure("the interpreter's lock is held", held, "share of time"))
    return Section(f"Threads of the {measured.system.chief} (e)", figures)


def _per_step(cores: float, steps_per_second: float) -> float:
    """Microseconds of CPU time."""
    return 1e6 * cores / steps_per_second
