"""What actors of all architectures do between two things that others have to do with."""

from __future__ import annotations

from collections.abc import Generator

from tfdrl.planning.costs import Cost
from tfdrl.planning.site import Machine, Site
from tfdrl.planning.stations import repeated, together


def step_cost(site: Site, environments: int) -> Cost:
    """One step of so many environments, one after the other, by a policy of the actor's own."""
    costs = site.costs
    stepping = repeated(costs.need("environment.step"), environments)
    around = repeated(costs.get("acting.step"), environments)
    return together(stepping, costs.need("inference", environments), around)


def act(site: Site, machine: Machine, role: str, task: int, cost: Cost, steps: float) -> Generator:
    """So many such steps; a straggler takes longer."""
    slowness = site.slowness(role, task)
    many = repeated(cost, steps)
    yield from site.work(machine, many)
    if slowness > 1.0:
        yield site.env.timeout((slowness - 1.0) * many.secs)


def somewhere_within(site: Site, secs: float) -> Generator:
    """Actors start apart, as they are after a while."""
    yield site.env.timeout(site.random.uniform(0.0, secs))


def pace_secs(frames_per_second: float | None, frames: float, cost: Cost) -> float:
    """What an actor that is held to a speed waits beside its own work."""
    if frames_per_second is None:
        return 0.0
    return max(frames / frames_per_second - cost.secs, 0.0)
