"""What the parts of a program cost: measured by `tfdrl-benchmark --costs`, or stated by hand.

A cost is the elapsed time of one unit of work that nothing delays, and the CPU time within it; an
environment that sleeps has much of the one and little of the other. On a device (a GPU or TPU)
elapsed time is the device's. Costs that depend on how many observations are worked on together
have their number in their name: inference.1, inference.64.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tfdrl.errors import ConfigurationError
from tfdrl.planning import amounts

FORMAT = 1
COMMAND = "tfdrl-benchmark --costs=costs.json --gin_file=..."
#: Times, with the unit of work; those with True go by the number of observations.
TIMES = {
    "environment.step": ("a step of one environment", False),
    "acting.step": ("all else that an actor does for a step of one environment", False),
    "inference": ("the network's answers to so many observations", True),
    "insert.item": ("writing one item: the actor", False),
    "insert.item.server": ("writing one item: the replay's process", False),
    "sample.item": ("reading one item: the learner", False),
    "sample.item.server": ("reading one item: the replay's process", False),
    "parameters.pull": ("asking for parameters: actor or worker", False),
    "parameters.serve": ("answering that: the learner's interpreter", False),
    "message.send": ("a message of so many observations and its answer: the actor", True),
    "message.serve": ("the same: the learner's interpreter", True),
    "batch.make": ("making a batch, for one learner step: the learner's interpreter", False),
    "training.step": ("a learner step on a batch in memory", False),
    "priorities.update": ("new priorities of one batch: the learner", False),
    "gradient.step": ("the gradient of one batch or rollout: a worker", False),
    "gradient.push": ("sending it and taking the newest parameters: a worker", False),
    "gradient.apply": ("the same on the parameter servers, all shards together", False),
}
SIZES = {
    "observation.bytes": "one observation on the wire",
    "item.bytes": "one transition, unroll or sequence, as it is written and stored",
    "parameters.bytes": "all parameters",
}


class Cost(NamedTuple):
    """Of one unit of work; `cpu_secs` above `secs` is that of several threads.

    `variation` is the standard deviation of single ones over their mean: their distribution is a
    gamma distribution, or they are all alike where it is 0.
    """

    secs: float
    cpu_secs: float
    variation: float = 0.0


_NOTHING = Cost(0.0, 0.0)


class Costs:
    """Costs by name.

    Args:
      times: of `TIMES`; those that go by a number as (name, number), or without one if the number
        does not matter.
      sizes: of `SIZES`, in bytes.
      source: where they come from, in words.

    Attributes:
      assumed: names of those that were asked for and are taken as nothing.
    """

    def __init__(
        self,
        times: Mapping[tuple[str, int | None], Cost],
        sizes: Mapping[str, float],
        source: str = "stated",
    ):
        self.times, self.sizes, self.source = dict(times), dict(sizes), source
        self.assumed: set[str] = set()

    def require(self, names: Iterable[str]) -> None:
        """Raises ConfigurationError that names all that are missing, and what measures them."""
        known = {name for name, _ in self.times}
        missing = [name for name in names if name not in known]
        if missing:
            words = ", ".join(f"{name} ({TIMES[name][0]})" for name in missing)
            raise ConfigurationError(
                f"costs are missing: {words}; measure them: {COMMAND}, or state them, such as "
                f"--cost={missing[0]}=1ms"
            )

    def need(self, name: str, count: int | None = None) -> Cost:
        """That cost, which has to be there (`require`)."""
        found = self._find(name, count)
        if found is None:
            self.require([name])
        return found

    def get(self, name: str, count: int | None = None) -> Cost:
        """That cost, or none where it is neither measured nor stated, which `assumed` keeps."""
        found = self._find(name, count)
        if found is None:
            self.assumed.add(name)
        return found or _NOTHING

    def size(self, name: str, why: str) -> float:
        """Bytes. Raises ConfigurationError that says why they are needed."""
        if name not in self.sizes:
            raise ConfigurationError(
                f"the size {name} ({SIZES[name]}) is missing, and {why}; state it, such as "
                f"--cost={name}=28KB, or measure it: {COMMAND}"
            )
        return self.sizes[name]

    def _find(self, name: str, count: int | None) -> Cost | None:
        if (name, None) in self.times:
            return self.times[name, None]
        points = sorted((n, cost) for (found, n), cost in self.times.items() if found == name)
        return _between(points, count) if points and count is not None else None


def _between(points: Sequence[tuple[int, Cost]], count: int) -> Cost:
    """The cost at `count`, on straight lines between the points.

    Below the first it is the first, since that is where the fixed part of a cost shows; above the
    last it goes on like the last line, or in proportion if there is one point only.
    """
    if count <= points[0][0]:
        return points[0][1]
    if len(points) == 1:
        (n, cost) = points[0]
        return Cost(cost.secs * count / n, cost.cpu_secs * count / n, cost.variation)
    after = next((i for i, (n, _) in enumerate(points) if n >= count), len(points) - 1)
    (low, a), (high, b) = points[max(after, 1) - 1], points[max(after, 1)]
    x = (count - low) / (high - low)
    secs, cpu_secs = (max(p + x * (q - p), 0.0) for p, q in zip(a[:2], b[:2]))
    return Cost(secs, cpu_secs, b.variation)


def read(path: str | None, stated: Iterable[str]) -> Costs:
    """Those of a file, if one is given, and what is stated beside it or in its place.

    Args:
      path: of the JSON that `tfdrl-benchmark --costs` writes.
      stated: such as "inference.256=0.92ms", "environment.step=10ms/0.1ms" (elapsed / CPU),
        "environment.step=10ms~0.3" (with a variation of 0.3), "item.bytes=28KB".

    Raises:
      ConfigurationError: no such file, another format, an unknown name or unit.
    """
    times, sizes, sources = {}, {}, []
    if path is not None:
        times, sizes = _of_file(path)
        sources.append(path)
    for text in stated:
        name, equals, amount = text.partition("=")
        where = f"--cost={text}"
        if not equals:
            raise ConfigurationError(f"{where}: write it as inference.256=0.92ms")
        if name in SIZES:
            sizes[name] = amounts.read(amount, amounts.BYTES, where)
        else:
            key = _key(name, where)
            if key[1] is None:  # whatever was measured of any number
                times = {k: cost for k, cost in times.items() if k[0] != name}
            times[key] = _stated(amount, where)
    return Costs(times, sizes, " and ".join([*sources, *["stated"] * bool(list(stated))]))


def _stated(text: str, where: str) -> Cost:
    text, tilde, variation = text.partition("~")
    elapsed, slash, cpu = text.partition("/")
    secs = amounts.read(elapsed, amounts.SECONDS, where)
    cpu_secs = amounts.read(cpu, amounts.SECONDS, where) if slash else secs
    return Cost(secs, cpu_secs, amounts.read(variation, {"": 1.0}, where) if tilde else 0.0)


def _key(name: str, where: str) -> tuple[str, int | None]:
    """Raises ConfigurationError that lists the names there are."""
    matched = re.fullmatch(r"(.*?)(?:\.(\d+))?", name)
    base, number = matched[1], matched[2]
    if base not in TIMES or (number is not None and not TIMES[base][1]) or number == "0":
        names = [f"{known}.N" if counts else known for known, (_, counts) in TIMES.items()]
        raise ConfigurationError(
            f"{where}: there is no cost {name!r}; there are {', '.join([*names, *SIZES])}"
        )
    return base, None if number is None else int(number)


def _of_file(path: str):
    try:
        found = json.loads(pathlib.Path(path).read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigurationError(
            f"--costs={path} cannot be read ({error}); write one: {COMMAND}"
        ) from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ConfigurationError(f"--costs={path} is no file of costs; write one: {COMMAND}")
    try:
        times = {
            _key(name, f"--costs={path}"): Cost(
                float(cost["secs"]), float(cost["cpu_secs"]), float(cost.get("variation", 0.0))
            )
            for name, cost in found["times"].items()
        }
        return times, {name: float(found["bytes"][name]) for name in found["bytes"]}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"--costs={path} is incomplete ({error!r}); write it again: {COMMAND}"
        ) from None


def as_json(times: Mapping[str, Cost], sizes: Mapping[str, float], about: Mapping) -> dict:
    """What `read` reads.

    Args:
      times: by name, with the number where there is one.
      sizes: in bytes.
      about: where and with what they were measured.
    """
    words = {name: TIMES[re.sub(r"\.\d+$", "", name)][0] for name in times}
    return {
        "format": FORMAT,
        "about": dict(about),
        "times": {
            name: {
                "secs": cost.secs,
                "cpu_secs": cost.cpu_secs,
                "variation": cost.variation,
                "of": words[name],
                "unit": "seconds, elapsed and CPU",
            }
            for name, cost in times.items()
        },
        "bytes": dict(sizes),
    }
