"""Interleaved measurements in wall and CPU time: ratios that a noisy machine leaves intact."""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tfdrl.benchmarks.proc import cpu_secs, delayed_secs


class Turn(NamedTuple):
    """One turn of one variant; CPU seconds of those who work, and of the watched server.

    In `delayed_secs` of the turn's time who works was ready and others had the cores; the server's
    delays are not in it.
    """

    units: int
    wall_secs: float
    cpu_secs: float
    server_cpu_secs: float = 0.0
    delayed_secs: float = 0.0


class Cost(NamedTuple):
    """Medians over the turns of one variant."""

    units_per_second: float
    cpu_secs: float  # of those who work, for one unit
    server_cpu_secs: float  # of the server, for one unit
    delayed_secs: float = 0.0  # for one unit


#: {part: {variant: Cost}}
Costs = Mapping[str, Mapping[str, Cost]]


class Rounds(NamedTuple):
    """How long to measure: the rounds, and the seconds of each variant in a round."""

    count: int
    secs: float


class Variant(NamedTuple):
    """One of the things that are compared, which this process does.

    work        does a little of it and returns how many units that was
    prepare     called, untimed, before each turn
    most_units  a turn ends when it has done so many, however short it was; None for no such end
    """

    work: Callable[[], int]
    prepare: Callable[[], None] = lambda: None
    most_units: int | None = None

    def __call__(self, secs: float, server_pid: int | None = None) -> Turn:
        """A turn of so many seconds: works again and again, at least once."""
        self.prepare()
        server_now = (lambda: 0.0) if server_pid is None else (lambda: cpu_secs(server_pid))
        delays, own = delayed_secs(os.getpid()), time.thread_time()
        wall, cpu, server, units = time.perf_counter(), time.process_time(), server_now(), 0
        most_units = float("inf") if self.most_units is None else self.most_units
        while not units or (time.perf_counter() - wall < secs and units < most_units):
            units += self.work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        server, own = server_now() - server, time.thread_time() - own
        grown = {
            thread: secs - delays.get(thread, 0.0)
            for thread, secs in delayed_secs(os.getpid()).items()
        }
        return Turn(units, wall, cpu, server, _delay(grown, threading.get_native_id(), wall - own))


def _delay(by_thread: Mapping[int, float], caller: int, idle_secs: float) -> float:
    """Seconds by which a turn was longer since others had the cores, from those of each thread.

    The caller's count, and while it sleeps those of the thread that computes for it: TensorFlow
    does half of a small network's work or more in its own threads. Of many that are delayed at the
    same time only one can be what the caller waits for.

    Args:
      by_thread: delays of this process's threads in the turn.
      caller: the thread whose turn it is.
      idle_secs: of the turn in which the caller did not run; its delay is among them.
    """
    others = max((secs for thread, secs in by_thread.items() if thread != caller), default=0.0)
    return max(min(by_thread.get(caller, 0.0) + others, idle_secs), 0.0)


def interleave(
    name: str,
    variants: Mapping[str, Callable[[float, int | None], Turn]],
    rounds: Rounds,
    server_pid: int | None = None,
) -> dict[str, list[Turn]]:
    """Measures the variants in turns, forwards and backwards alternately.

    Args:
      name: of the measurement, for the progress on stderr.
      variants: what to measure; `variant(secs, server_pid)` takes a turn, of 0 seconds first.
      rounds: how often and how long.
      server_pid: process whose CPU time counts too.
    """
    order = list(variants)
    turns: dict[str, list[Turn]] = {key: [] for key in order}
    for variant in variants.values():  # traces, connects
        variant(0.0, None)
    for number in range(rounds.count):
        for key in order:
            turns[key].append(variants[key](rounds.secs, server_pid))
        order.reverse()
        say(f"  {name}: round {number + 1} of {rounds.count}")
    return turns


def say(text: str) -> None:
    """Tells the user what is done now."""
    print(text, file=sys.stderr, flush=True)


def cost(turns: Sequence[Turn]) -> Cost:
    """Medians over turns."""
    return Cost(
        statistics.median(turn.units / turn.wall_secs for turn in turns),
        statistics.median(turn.cpu_secs / turn.units for turn in turns),
        statistics.median(turn.server_cpu_secs / turn.units for turn in turns),
        statistics.median(turn.delayed_secs / turn.units for turn in turns),
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
