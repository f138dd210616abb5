"""The stations of a queueing network, as discrete events of SimPy: processors, links, locks.

Each keeps `busy_secs`, the integral of the share of it that was in use, from which utilisation
follows. Processors share themselves out evenly (egalitarian processor sharing; Kleinrock, Queueing
Systems II, section 4.4), as an operating system's scheduler and a GPU's stream do in the mean;
links and locks serve first come, first served.
"""

from __future__ import annotations

import collections
import heapq
import itertools
from collections.abc import Callable, Generator

import simpy

from tfdrl.planning.costs import Cost


class Processor:
    """Cores, or one device, that all jobs share.

    A job of one thread gets a core at most, and one of k threads k cores; where they want more
    than there is, each gets the same part of what it wants. So all jobs advance alike, and the one
    that ends next is the one with the least left when it came.

    Args:
      env: of SimPy.
      name: in results.
      cores: how many.
    """

    def __init__(self, env: simpy.Environment, name: str, cores: float):
        self._env, self.name, self._cores = env, name, cores
        self._jobs: list[tuple[float, int, float, simpy.Event]] = []
        self._number = itertools.count()
        self._wanted = self._progress_secs = self._now = 0.0
        self._alarm_secs: float | None = None  # when the next one rings
        self._busy_secs = 0.0

    def run(self, cpu_secs: float, cores: float = 1.0) -> simpy.Event:
        """An event at the end of a job that takes so much CPU time, on so many cores at most."""
        done = self._env.event()
        if cpu_secs <= 0.0:
            return done.succeed()
        self._advance()
        end = self._progress_secs + cpu_secs / cores
        heapq.heappush(self._jobs, (end, next(self._number), cores, done))
        self._wanted += cores
        self._set_alarm()
        return done

    @property
    def busy_secs(self) -> float:
        """Share in use, integrated over time until now."""
        self._advance()
        return self._busy_secs

    def _speed(self) -> float:
        return min(1.0, self._cores / self._wanted) if self._wanted else 0.0

    def _advance(self) -> None:
        passed, self._now = self._env.now - self._now, self._env.now
        self._progress_secs += passed * self._speed()
        self._busy_secs += passed * min(self._wanted / self._cores, 1.0)

    def _set_alarm(self) -> None:
        """For the end of the first, unless one rings before that: an event a job, not two."""
        if not self._jobs:
            return
        alarm_secs = self._env.now + self._left_secs()
        if self._alarm_secs is None or alarm_secs < self._alarm_secs:
            self._alarm_secs = alarm_secs
            alarm = self._env.timeout(alarm_secs - self._env.now, alarm_secs)
            alarm.callbacks.append(self._ring)

    def _left_secs(self) -> float:
        """Of the first, if nobody else comes."""
        return max(self._jobs[0][0] - self._progress_secs, 0.0) / self._speed()

    def _ring(self, alarm: simpy.Event) -> None:
        if alarm.value != self._alarm_secs:
            return  # there was an earlier one
        self._alarm_secs = None
        self._advance()
        # Others may have come since it was set, and the first has something left. What rounding
        # leaves is nothing.
        nothing_secs = 1e-12 * max(self._env.now, 1.0)
        while self._jobs and self._left_secs() <= nothing_secs:
            _, _, cores, done = heapq.heappop(self._jobs)
            self._wanted -= cores
            done.succeed()
        if not self._jobs:
            self._wanted = self._progress_secs = 0.0  # rounding does not pile up
        self._set_alarm()


class Link:
    """One direction of a machine's network: bytes one after the other, first come, first served."""

    def __init__(self, env: simpy.Environment, name: str, bytes_per_second: float | None):
        self._env, self.name, self._speed = env, name, bytes_per_second
        self._free_secs, self._busy_secs = 0.0, 0.0

    def send(self, count: float) -> simpy.Event:
        """An event when so many bytes are through."""
        if self._speed is None:
            return self._env.timeout(0.0)
        secs = count / self._speed
        self._free_secs = max(self._free_secs, self._env.now) + secs
        self._busy_secs += secs
        return self._env.timeout(self._free_secs - self._env.now)

    @property
    def busy_secs(self) -> float:
        """Until now: what waits has not been sent."""
        return self._busy_secs - max(self._free_secs - self._env.now, 0.0)


class Lock:
    """What one holds at a time, while its work is done elsewhere: an interpreter, a shard.

    First come, first served. A free one is taken without an event of its own.
    """

    def __init__(self, env: simpy.Environment, name: str):
        self._env, self.name = env, name
        self._is_held, self._waiting = False, collections.deque()
        self._busy_secs = 0.0
        self._since_secs: float | None = None  # it works

    def holding(self, work: Callable[[], Generator]) -> Generator:
        """Waits for its turn, and holds the lock for as long as `work()` takes."""
        if self._is_held:
            turn = self._env.event()
            self._waiting.append(turn)
            yield turn
        self._is_held, self._since_secs = True, self._env.now
        try:
            yield from work()
        finally:
            self._busy_secs += self._env.now - self._since_secs
            self._since_secs = None
            if self._waiting:  # handed over, so that nobody comes between
                self._waiting.popleft().succeed()
            else:
                self._is_held = False

    @property
    def busy_secs(self) -> float:
        """Until now."""
        held = 0.0 if self._since_secs is None else self._env.now - self._since_secs
        return self._busy_secs + held


class Changes:
    """What processes wait for until something holds."""

    def __init__(self, env: simpy.Environment):
        self._env, self._event = env, env.event()

    def until(self, holds: Callable[[], bool]) -> Generator:
        """Looks again after each change."""
        while not holds():
            yield self._event

    def tell(self) -> None:
        """Something has changed."""
        if self._event.callbacks:
            event, self._event = self._event, self._env.event()
            event.succeed()


class Queue:
    """A bounded first-in-first-out queue; a full one makes writers wait.

    Args:
      env: of SimPy.
      capacity: things; a block is let in whole while there is room for one, if `blocks`.
      blocks: whether room for one thing is enough for a block.
    """

    def __init__(self, env: simpy.Environment, capacity: float, blocks: bool = False):
        self._capacity, self._blocks = capacity, blocks
        self._things: collections.deque = collections.deque()
        self._taken, self._put = Changes(env), Changes(env)

    def __len__(self) -> int:
        return len(self._things)

    def put(self, *things) -> Generator:
        """Waits for room, for each or for the first."""
        for thing in [things] if self._blocks else [(thing,) for thing in things]:
            yield from self._taken.until(lambda: len(self._things) < self._capacity)
            self._things.extend(thing)
            self._put.tell()

    def take(self, count: int) -> Generator:
        """Waits for so many, and takes them."""
        yield from self._put.until(lambda: len(self._things) >= count)
        found = [self._things.popleft() for _ in range(count)]
        self._taken.tell()
        return found


def repeated(cost: Cost, count: float) -> Cost:
    """Of so many in a row: their variation averages out."""
    variation = cost.variation / count**0.5 if count else 0.0
    return Cost(cost.secs * count, cost.cpu_secs * count, variation)


def together(*costs: Cost) -> Cost:
    """Of some after each other; variances add up."""
    secs = sum(cost.secs for cost in costs)
    deviation = sum((cost.secs * cost.variation) ** 2 for cost in costs) ** 0.5
    variation = deviation / secs if secs else 0.0
    return Cost(secs, sum(cost.cpu_secs for cost in costs), variation)
