"""From what was measured to the tables of figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfdrl.benchmarks.limits import PartCost
from tfdrl.benchmarks.measuring import Cost, cost, ratio
from tfdrl.benchmarks.page import Figure, Section
from tfdrl.benchmarks.subject import Costs, Measured


def sections(measured: Measured) -> list[Section]:
    """Everything that was measured, in the order of the parts."""
    subject = measured.subject
    costs = {
        part: {name: cost(turns) for name, turns in variants.items()}
        for part, variants in measured.turns.items()
    }
    found = [_part(part, measured, costs[part]) for part in sorted(costs)]
    if measured.system is not None:
        found.append(_system(measured, costs))
        found.append(_processes(measured))
    if set(costs) >= set(subject.parts):
        parts = subject.part_costs(costs, measured.config)
        found.append(_part_costs(parts))
        figures = subject.limits(parts, measured)
        if figures:
            title = "Limit by the parts' CPU costs (see tfdrl/benchmarks/limits.py)"
            found.append(Section(title, figures))
    return found


def _part(letter: str, measured: Measured, costs: Mapping[str, Cost]) -> Section:
    part, turns = measured.subject.parts[letter], measured.turns[letter]
    figures = [
        Figure(part.variants[name], found.units_per_second, f"{part.unit}/s")
        for name, found in costs.items()
    ]
    if part.comparison is not None:
        words, variant, of, aim, unit = part.comparison
        figures.append(Figure(words, ratio(turns[variant], turns[of]), unit, aim))
    return Section(f"{part.title} ({letter})", figures)


def _system(measured: Measured, costs: Costs) -> Section:
    system = measured.system
    figures = [
        Figure("measured for", system.secs, "s"),
        Figure("environment frames", system.frames_per_second, "frames/s"),
        *measured.subject.rates(system, measured.frames_per_step),
        Figure("learner steps", system.learner_steps_per_second, "learner steps/s"),
    ]
    figures += [
        Figure(words, system.metrics[name], unit)
        for name, (words, unit) in measured.subject.metrics.items()
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


def _part_costs(parts: Sequence[PartCost]) -> Section:
    figures = [
        Figure(f"{part.part} ({part.role})", 1e6 * part.cpu_secs, f"CPU us/{part.unit}")
        for part in parts
    ]
    return Section("CPU costs of the parts (a to d)", figures)
