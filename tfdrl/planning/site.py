"""A program on machines: where each process is, and how it works and sends there."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from collections.abc import Generator, Iterator
from typing import NamedTuple

import simpy

from tfdrl.planning.costs import Cost, Costs
from tfdrl.planning.machines import ALL, Group, Machines
from tfdrl.planning.stations import Link, Lock, Processor
from tfdrl.topology import Program, Role


class Machine(NamedTuple):
    """One of them, as stations."""

    cores: Processor
    devices: tuple[Processor, ...]
    up: Link
    down: Link


@dataclasses.dataclass
class Counts:
    """What has happened since the start of the simulation.

    Attributes:
      steps: of environments.
      learner_steps: or updates of parameter servers.
      lag_sum, lag_count: of the policies whose steps were trained on, in learner steps.
      waiting_secs: by role, summed over its processes.
    """

    steps: int = 0
    learner_steps: int = 0
    lag_sum: float = 0.0
    lag_count: int = 0
    waiting_secs: dict[str, float] = dataclasses.field(default_factory=dict)

    def lag(self, steps: float, count: int = 1) -> None:
        """So many were trained on that were so old."""
        self.lag_sum += steps * count
        self.lag_count += count


@dataclasses.dataclass(frozen=True)
class Stragglers:
    """The last `count` of those that act take so many times as long for their own work."""

    count: int = 0
    times: float = 1.0


class Site:
    """Machines with stations, and a program's processes on them.

    Args:
      program: whose roles they are.
      machines: what there is.
      costs: of the parts.
      replicas: of a role, in the place of what machines or program say.
      stragglers: among actors or workers.
      seed: of what varies.

    Attributes:
      env: of SimPy.
      counts: so far.
      turn_steps: of environments, after which everybody has had a turn.
    """

    def __init__(
        self,
        program: Program,
        machines: Machines,
        costs: Costs,
        replicas: dict[str, int] | None = None,
        stragglers: Stragglers = Stragglers(),
        seed: int = 0,
    ):
        self.program, self.machines, self.costs = program, machines, costs
        self.env, self.counts = simpy.Environment(), Counts()
        self.stragglers, self.random = stragglers, random.Random(seed)
        self._replicas = replicas or {}
        self._machines = {group.role: self._stations(group) for group in machines.groups}
        self.locks: list[Lock] = []
        self.busy: dict[str, int] = {}
        self.turn_steps = 0

    def replicas(self, name: str) -> int:
        """How many processes of a role there are."""
        return replicas(self.program.role(name), self.machines, self._replicas)

    def _stations(self, group: Group) -> list[Machine]:
        speed, found = self.machines.bytes_per_second, []
        count = self._machine_count(group)
        name = "the machine" if group.role == ALL else f"the {group.role}'s machine"
        if count > 1:  # those of a group are alike, and looked at together
            name = "all machines" if group.role == ALL else f"the {group.role}s' machines"
        for _ in range(count):
            cores = Processor(self.env, f"cores of {name}", group.cores)
            devices = [
                Processor(self.env, f"{group.device} of {name}{_number(i, group.devices)}", 1.0)
                for i in range(group.devices if group.device else 0)
            ]
            links = [Link(self.env, f"network {way} {name}", speed) for way in ("from", "to")]
            found.append(Machine(cores, tuple(devices), *links))
        return found

    def _machine_count(self, group: Group) -> int:
        if group.role in self._replicas:
            per_machine = group.holds(self.program.role(group.role))
            return max(-(-self._replicas[group.role] // per_machine), 1)
        return group.count

    def machine(self, role: str, task: int = 0) -> Machine:
        """Where that process is: they fill one machine after the other, or take turns."""
        group = self.machines.of(role)
        mine = self._machines[group.role]
        own = group.role == role and not self.program.role(role).essential
        at = task // group.holds(self.program.role(role)) if own else task
        return mine[at % len(mine)]

    def lock(self, name: str) -> Lock:
        """A new one."""
        self.locks.append(Lock(self.env, name))
        return self.locks[-1]

    def stations(self) -> list[Processor | Link | Lock]:
        """All of them."""
        every = [m for mine in self._machines.values() for m in mine]
        parts = [part for m in every for part in (m.cores, *m.devices, m.up, m.down)]
        return [*parts, *self.locks]

    def work(self, machine: Machine, cost: Cost) -> Generator:
        """Does something on a machine's cores; what of its time is not CPU time just passes.

        That of several threads takes as many cores.
        """
        secs, cpu_secs = self._drawn(cost)
        if secs > cpu_secs:
            yield self.env.timeout(secs - cpu_secs)
        if cpu_secs > 0.0:
            threads = max(cpu_secs / secs, 1.0) if secs else 1.0
            yield machine.cores.run(cpu_secs, threads)

    def compute(self, machine: Machine, cost: Cost, device: int = 0) -> Generator:
        """The same on one of the machine's devices, if it has any."""
        if not machine.devices:
            yield from self.work(machine, cost)
        elif cost.secs > 0.0:
            yield machine.devices[device % len(machine.devices)].run(self._drawn(cost)[0])

    def send(self, source: Machine, target: Machine, size: str, count: float = 1.0) -> Generator:
        """Sends so many things of a size from machine to machine; within one it takes no time."""
        if source is target or self.machines.bytes_per_second is None or not count:
            return
        total = count * self.costs.size(size, "machines send it to each other")
        yield source.up.send(total)
        yield target.down.send(total)

    def _drawn(self, cost: Cost) -> tuple[float, float]:
        """Elapsed and CPU seconds of one of them."""
        if not cost.variation:
            return cost.secs, cost.cpu_secs
        shape = cost.variation**-2
        factor = self.random.gammavariate(shape, 1.0 / shape)
        return cost.secs * factor, cost.cpu_secs * factor

    @contextlib.contextmanager
    def waiting(self, role: str) -> Iterator[None]:
        """The time within counts as waiting."""
        since = self.env.now
        try:
            yield
        finally:
            waited = self.counts.waiting_secs
            waited[role] = waited.get(role, 0.0) + self.env.now - since

    def start(self, role: str, process, count: int | None = None) -> None:
        """Starts `process(task)` for each process of a role; its waiting is looked at."""
        self.busy[role] = self.replicas(role) if count is None else count
        for task in range(self.busy[role]):
            self.env.process(process(task))

    def slowness(self, role: str, task: int) -> float:
        """How many times as long this process takes."""
        is_slow = task >= self.busy[role] - self.stragglers.count
        return self.stragglers.times if is_slow else 1.0


def _number(index: int, count: int) -> str:
    return f", number {index}" if count > 1 else ""


def replicas(role: Role, machines: Machines, stated: dict[str, int]) -> int:
    """How many there are: as stated, or as many as a role's own machines hold, or as gin says."""
    if role.name in stated:
        return stated[role.name]
    group = machines.of(role.name)
    if group.role != role.name or role.essential:
        return role.replicas
    return group.count * group.holds(role)
