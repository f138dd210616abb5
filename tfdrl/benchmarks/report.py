"""The figures of a benchmark: as a page of tables and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tfdrl.benchmarks import limits
from tfdrl.benchmarks.benchmark import Measured
from tfdrl.benchmarks.measuring import Cost, cost, ratio

#: What is compared, by part: (title, unit, variant, of, least ratio that is aimed at).
_PARTS = {
    "a": ("Environment stepping", "environment steps", "actor", "inference", 0.60),
    "b": ("Insertion into replay", "transitions", "writer", "raw", 0.50),
    "c": ("Sampling from replay", "transitions", "learner", "raw", None),
    "d": ("Training in memory", "learner steps", None, None, None),
}
_WORDS = {
    ("a", "environment"): "bare vector environment",
    ("a", "inference"): "bare environment + bare inference",
    ("a", "actor"): "actor, without writing",
    ("b", "raw"): "bare TrajectoryWriter",
    ("b", "writer"): "TransitionWriter",
    ("c", "raw"): "bare TrajectoryDataset, batched",
    ("c", "learner"): "learner's dataset and queue",
    ("d", "train"): "Trainer.train on one batch",
}
_METRICS = {
    "learner/waiting_share": ("learner waits for samples", "share of time"),
    "actor/waiting_share": ("actors wait for the replay", "share of time"),
    "learner/policy_lag": ("policy lag", "learner steps"),
}


class Figure(NamedTuple):
    """One number with its unit; `aim` is the least that is wanted, if there is such a thing."""

    name: str
    value: float
    unit: str
    aim: float | None = None


class Section(NamedTuple):
    """One table of the page."""

    title: str
    figures: list[Figure]


def sections(measured: Measured) -> list[Section]:
    """Everything that was measured, in the order of the parts."""
    costs = {
        part: {name: cost(turns) for name, turns in variants.items()}
        for part, variants in measured.turns.items()
    }
    found = [_part(part, measured, costs[part]) for part in sorted(costs)]
    if measured.system is not None:
        found.append(_system(measured, costs))
        found.append(_processes(measured))
    if set(costs) >= set("abcd"):
        parts = limits.part_costs(costs, measured.config.batch_size)
        found.append(_part_costs(parts))
        if measured.system is not None:
            found.append(_limit(parts, measured))
    return found


def _part(part: str, measured: Measured, costs: Mapping[str, Cost]) -> Section:
    title, unit, variant, of, aim = _PARTS[part]
    figures = [
        Figure(_WORDS[part, name], found.units_per_second, f"{unit}/s")
        for name, found in costs.items()
    ]
    if of is not None:
        words = f"{_WORDS[part, variant]} / {_WORDS[part, of]}"
        value = ratio(measured.turns[part][variant], measured.turns[part][of])
        figures.append(Figure(words, value, "ratio", aim))
    return Section(f"{title} ({part})", figures)


def _system(measured: Measured, costs: Mapping[str, Mapping[str, Cost]]) -> Section:
    system = measured.system
    figures = [
        Figure("measured for", system.secs, "s"),
        Figure("environment frames", system.frames_per_second, "frames/s"),
        Figure("learner steps", system.learner_steps_per_second, "learner steps/s"),
    ]
    figures += [
        Figure(words, system.metrics[name], unit)
        for name, (words, unit) in _METRICS.items()
        if name in system.metrics
    ]
    if "d" in costs:
        alone = costs["d"]["train"].units_per_second
        words = "learner steps/s here / in memory (d)"
        figures.append(Figure(words, system.learner_steps_per_second / alone, "ratio"))
    return Section("Whole system (e)", figures)


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


def _part_costs(parts: list[limits.PartCost]) -> Section:
    figures = [
        Figure(f"{part.part} ({part.role})", 1e6 * part.cpu_secs, f"CPU us/{part.unit}")
        for part in parts
    ]
    return Section("CPU costs of the parts (a to d)", figures)


def _limit(parts: list[limits.PartCost], measured: Measured) -> Section:
    system, cores = measured.system, measured.cores
    found = limits.limit(
        parts,
        cores,
        system.frames_per_second,
        measured.frames_per_step,
        system.learner_steps_per_second,
    )
    parts_cores = found.reached * cores
    figures = [
        Figure("cores", cores, "cores"),
        Figure("environment step, all parts", 1e6 * found.environment_step_cpu_secs, "CPU us"),
        Figure("learner step, all parts", 1e6 * found.learner_step_cpu_secs, "CPU us"),
        Figure("limit at the measured mix", found.frames_per_second, "frames/s"),
        Figure("limit at the measured mix", found.learner_steps_per_second, "learner steps/s"),
        Figure("reached / limit", found.reached, "ratio"),
        # Unlike the one above it says little less on a machine that others use too.
        Figure("CPU of the parts / CPU that the run used", parts_cores / system.cores, "ratio"),
    ]
    return Section("Limit by the parts' CPU costs (see tfdrl/benchmarks/limits.py)", figures)


def as_json(found: list[Section]) -> list[dict]:
    """The sections for json.dump."""
    return [
        {"title": section.title, "figures": [figure._asdict() for figure in section.figures]}
        for section in found
    ]


def as_text(found: list[Section]) -> str:
    """The page."""
    width = max(len(figure.name) for section in found for figure in section.figures)
    lines = []
    for section in found:
        lines += ["", section.title]
        lines += [_line(figure, width) for figure in section.figures]
    return "\n".join(lines[1:])


def _line(figure: Figure, width: int) -> str:
    if figure.unit == "ratio":
        number, unit = f"{100 * figure.value:,.0f}", "%"
    else:
        decimals = 0 if abs(figure.value) >= 100 else 1 if abs(figure.value) >= 10 else 2
        number, unit = f"{figure.value:,.{decimals}f}", figure.unit
    aim = ""
    if figure.aim is not None:
        verdict = "reached" if figure.value >= figure.aim else "missed"
        aim = f"  (aim: {100 * figure.aim:.0f} %, {verdict})"
    return f"  {figure.name:<{width}}  {number:>12} {unit}{aim}"
