"""Interleaved measurements in wall and CPU time: ratios that a noisy machine leaves intact."""

from __future__ import annotations

import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Variant(NamedTuple):
    """One of the things that are compared.

    work        does a little of it and returns how many units that was
    prepare     called, untimed, before each turn
    most_units  a turn ends when it has done so many, however short it was; None for no such end
    """

    work: Callable[[], int]
    prepare: Callable[[], None] = lambda: None
    most_units: int | None = None


class Turn(NamedTuple):
    """One turn of one variant; CPU seconds of this process and of the watched server."""

    units: int
    wall_secs: float
    cpu_secs: float
    server_cpu_secs: float


class Cost(NamedTuple):
    """Medians over the turns of one variant."""

    units_per_second: float
    cpu_secs: float  # of this process, for one unit
    server_cpu_secs: float  # of the server, for one unit


class Rounds(NamedTuple):
    """How long to measure: the rounds, and the seconds of each variant in a round."""

    count: int
    secs: float


def cpu_secs(pid: int) -> float:
    """CPU seconds that all threads of a process have used so far (Linux)."""
    return time.clock_gettime((~pid << 3) | 2)  # the kernel's id of that process's CPU clock


def rss_bytes(pid: int) -> int:
    """Memory of a process that is in use (Linux). Raises OSError if there is none."""
    pages = pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def interleave(
    name: str, variants: Mapping[str, Variant], rounds: Rounds, server_pid: int | None = None
) -> dict[str, list[Turn]]:
    """Measures the variants in turns, forwards and backwards alternately.

    Args:
      name: of the measurement, for the progress on stderr.
      variants: what to measure.
      rounds: how often and how long.
      server_pid: process whose CPU time counts too.
    """
    order = list(variants)
    turns: dict[str, list[Turn]] = {key: [] for key in order}
    for variant in variants.values():  # traces, connects
        variant.prepare()
        variant.work()
    for number in range(rounds.count):
        for key in order:
            variants[key].prepare()
            turns[key].append(_turn(variants[key], rounds.secs, server_pid))
        order.reverse()
        print(f"  {name}: round {number + 1} of {rounds.count}", file=sys.stderr, flush=True)
    return turns


def _turn(variant: Variant, secs: float, server_pid: int | None) -> Turn:
    def server_now():
        return 0.0 if server_pid is None else cpu_secs(server_pid)

    wall, cpu, server, units = time.perf_counter(), time.process_time(), server_now(), 0
    most_units = float("inf") if variant.most_units is None else variant.most_units
    while not units or (time.perf_counter() - wall < secs and units < most_units):
        units += variant.work()
    return Turn(
        units,
        time.perf_counter() - wall,
        time.process_time() - cpu,
        server_now() - server,
    )


def cost(turns: Sequence[Turn]) -> Cost:
    """Medians over turns."""
    return Cost(
        statistics.median(turn.units / turn.wall_secs for turn in turns),
        statistics.median(turn.cpu_secs / turn.units for turn in turns),
        statistics.median(turn.server_cpu_secs / turn.units for turn in turns),
    )


def ratio(turns: Sequence[Turn], of: Sequence[Turn]) -> float:
    """Median over the rounds of (units/s of `turns`) / (units/s of `of`)."""
    return statistics.median(
        (a.units / a.wall_secs) / (b.units / b.wall_secs) for a, b in zip(turns, of)
    )


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the least-squares line through points; 0 where x does not vary."""
    x_mean, y_mean = statistics.fmean(x), statistics.fmean(y)
    variance = sum((a - x_mean) ** 2 for a in x)
    if not variance:
        return 0.0
    return sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y)) / variance
