"""What several groups of runs say beside each other: the table, and sentences that it carries."""

from __future__ import annotations

from collections.abc import Sequence

from tfdrl.reports import statistics, words
from tfdrl.reports.findings import bottleneck
from tfdrl.reports.groups import Group
from tfdrl.reports.statistics import Estimate

#: Below so many seeds on each side nothing is said of who is better.
LEAST_SEEDS = 3


def rows(groups: Sequence[Group]) -> list[list[str]]:
    """The table: a head, then a row for each group; columns that nobody has are left out."""
    heads = [
        "",
        "seeds",
        "final return",
        "interquartile mean",
        "reached target",
        "frames to target",
        "time to target",
        "frames/s",
        "learner steps/s",
        "gradients' age",
        "gradients dropped",
        "waits: acting",
        "waits: learner",
        "cores",
        "CPU s per 1,000 frames",
        "memory",
        "bytes per frame",
    ]
    table = [_row(group) for group in groups]
    kept = [i for i in range(len(heads)) if i == 0 or any(row[i] for row in table)]
    return [[row[i] for i in kept] for row in [heads, *table]]


def text(groups: Sequence[Group]) -> str:
    """The table for a terminal: a column for each group, a line for each of its numbers."""
    columns = rows(groups)
    lines = list(zip(*columns))
    widths = [max(map(len, column)) for column in columns]
    return "".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() + "\n"
        for line in lines
    )


def _row(group: Group) -> list[str]:
    frames, reached = group.to_target("frames")
    secs, _ = group.to_target("seconds")
    has_target = group.runs[0].facts.solved_return is not None
    cores, rate = group.mean("cpu_cores"), group.mean("frames_rate")
    return [
        group.label,
        str(len(group.runs)),
        estimate_words(group.final()),
        estimate_words(group.final(statistics.interquartile_mean)) if len(group.runs) > 3 else "",
        f"{reached} of {len(group.runs)}" if has_target else "",
        words.number(_mean(frames)),
        words.duration(_mean(secs)),
        words.number(rate),
        words.number(group.mean("steps_rate")),
        words.number(group.mean("gradient_age")),
        words.share(group.mean("dropped_share")),
        words.share(_waits(group, ("actor", "worker"))),
        words.share(_waits(group, ("learner",))),
        words.number(cores),
        words.number(1000 * cores / rate if cores is not None and rate else None),
        words.megabytes(group.mean("memory_mb")),
        words.number(group.mean("bytes_per_frame")),
    ]


def estimate_words(estimate: Estimate | None) -> str:
    """ "312 (290 to 350)"; without an interval where there is none."""
    if estimate is None:
        return ""
    if estimate.low != estimate.low:
        return words.number(estimate.value)
    low, high = words.number(estimate.low), words.number(estimate.high)
    return f"{words.number(estimate.value)} ({low} to {high})"


def findings(groups: Sequence[Group]) -> list[str]:
    """Sentences about the groups of one task; a difference is told where its intervals show it."""
    found = [_best(groups), _fewest_frames(groups), _fastest(groups)]
    found += [f"{g.label}: {bottleneck(g.runs[i], g.numbers[i]).words}" for g, i in _shown(groups)]
    return [sentence for sentence in found if sentence]


def _shown(groups: Sequence[Group]) -> list[tuple[Group, int]]:
    return [(group, group.shown) for group in groups]


def _best(groups: Sequence[Group]) -> str:
    known = [(g, g.final()) for g in groups if len(g.finals) >= LEAST_SEEDS]
    if len(known) < 2:
        return ""
    known.sort(key=lambda pair: -pair[1].value)
    (first, best), *others = known
    beaten = [group.label for group, other in others if best.low > other.high]
    value = f"{first.label} ended with the highest return, {estimate_words(best)}"
    seeds = min(len(group.finals) for group, _ in known)
    if not beaten:
        return (
            f"{value}, but its 95 % interval overlaps with all others: with {seeds} seeds no "
            "difference can be told."
        )
    rest = [group.label for group, _ in others if group.label not in beaten]
    words_of_rest = f"; that of {_and(rest)} overlaps with its own" if rest else ""
    return f"{value}: above the 95 % interval of {_and(beaten)}{words_of_rest}."


def _fewest_frames(groups: Sequence[Group]) -> str:
    """Who reached the target in fewer frames in each of its seeds than others in any of theirs."""
    known = {}
    for group in groups:
        frames, reached = group.to_target("frames")
        if reached == len(group.runs) >= LEAST_SEEDS:
            known[group.label] = frames
    if len(known) < 2:
        return ""
    first = min(known, key=lambda label: _mean(known[label]))
    beaten = [label for label, frames in known.items() if max(known[first]) < min(frames)]
    if not beaten:
        return ""
    return (
        f"{first} reached the target with {words.number(_mean(known[first]))} frames on average, "
        f"in each of its seeds with fewer than {_and(beaten)} in any."
    )


def _fastest(groups: Sequence[Group]) -> str:
    """Frames per second, which differ between runs of one setting, too: ranges, not means."""
    known = {
        g.label: [n.frames_rate for n in g.numbers]
        for g in groups
        if all(n.frames_rate is not None for n in g.numbers)
    }
    if len(known) < 2:
        return ""
    first = max(known, key=lambda label: min(known[label]))
    slower = [label for label, rates in known.items() if max(rates) < min(known[first])]
    if len(slower) != len(known) - 1:
        return ""
    return (
        f"{first} made the most environment frames a second, {words.number(_mean(known[first]))} "
        "on average, and in each of its runs more than the others in any of theirs."
    )


def _waits(group: Group, roles: Sequence[str]) -> float | None:
    shares = [
        numbers.roles[role].waiting_share
        for numbers in group.numbers
        for role in roles
        if role in numbers.roles and numbers.roles[role].waiting_share is not None
    ]
    return _mean(shares)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _and(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
