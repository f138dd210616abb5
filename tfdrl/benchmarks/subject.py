"""What the benchmark knows of an architecture: its parts, their costs and the limit they set."""

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tfdrl.benchmarks.limits import PartCost
from tfdrl.benchmarks.measuring import Cost, Rounds, Turn
from tfdrl.benchmarks.page import Figure
from tfdrl.benchmarks.system import System
from tfdrl.topology import Address


class PartJob(NamedTuple):
    """What the measurement of one part is given, in a process with the role's threads.

    Attributes:
      config: settings of the architecture, such as `Apex`.
      seed: of the experiment.
      directory: for scratch files.
      rounds: how often and how long.
      replay, server_pid: the replay server of this process alone, for the parts b and c.
    """

    config: Any
    seed: int
    directory: pathlib.Path
    rounds: Rounds
    replay: Address | None
    server_pid: int | None


class Comparison(NamedTuple):
    """The ratio of two variants' units/s; `aim` is the least that is wanted."""

    words: str
    variant: str
    of: str
    aim: float | None = None
    unit: str = "ratio"


class Part(NamedTuple):
    """One part of an architecture.

    Attributes:
      function: "module:name" of `function(job) -> {variant: [Turn, ...]}`, which may import
        TensorFlow; the process that prints the tables does not.
      title: of its table.
      unit: of work, in the plural.
      variants: what each is, in words.
      comparison: the ratio to show, if there is one.
    """

    function: str
    title: str
    unit: str
    variants: Mapping[str, str]
    comparison: Comparison | None = None

    def measure(self, job: PartJob) -> dict[str, list[Turn]]:
        """Imports the function and calls it."""
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(module), name)(job)


#: {part: {variant: Cost}}
Costs = Mapping[str, Mapping[str, Cost]]


class Subject(NamedTuple):
    """One architecture.

    Attributes:
      name: of the architecture.
      config: its class of settings.
      parts: a (environment stepping) and b (insertion into replay) of an actor, c (reading from
        replay) and d (training in memory) of a learner; d has a variant "train" in learner steps.
      bindings: `bindings(config, text)` -> gin bindings by which the server of the parts holds
        nobody up; `text` is the configuration.
      metrics: {metric: (words, unit)} of the whole system.
      rates: `rates(system, frames_per_step)` -> more figures of the whole system.
      part_costs: `part_costs(costs, config)` of all parts.
      limits: `limits(part_costs, measured)` -> figures; may be empty where the whole system was
        not measured.
    """

    name: str
    config: type
    parts: Mapping[str, Part]
    bindings: Callable[[Any, str], list[str]]
    metrics: Mapping[str, tuple[str, str]]
    rates: Callable[[System, int], list[Figure]]
    part_costs: Callable[[Costs, Any], list[PartCost]]
    limits: Callable[[Sequence[PartCost], Measured], list[Figure]]


class Measured(NamedTuple):
    """What was measured; `subject`, `config` and `frames_per_step` say of what."""

    subject: Subject
    config: Any
    frames_per_step: int
    cores: int
    turns: dict[str, dict[str, list[Turn]]]
    system: System | None
