"""How the parts of a program are declared, run in processes, timed in turns and reported.

One idea: an architecture is measured by a table of parts, each a thing of ours beside the bare
library below it. Both take turns of a second, forwards and backwards alternately, so that whatever
else the machine does slows both alike and leaves their ratio. Who works in a part has a process of
its own, with the threads of the role that does such work in a run: a worker, which calls one
function and answers what it measured, or a server, which is a role of the program itself. The
process that prints the tables only waits for them. It loads no TensorFlow: it is also the launcher
of the last part, the whole program, whose speed the costs of the other parts explain.

A new part is a function of turns (`measuring.interleave`) and an entry in the table of its
architecture (`subjects`).
"""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tfdrl import configuration
from tfdrl.benchmarks import processes, system
from tfdrl.benchmarks.measuring import Rounds, Turn, cost, ratio, say
from tfdrl.benchmarks.page import Figure, Section
from tfdrl.experiment import Experiment
from tfdrl.launch import credentials, placement, replicas
from tfdrl.launch.local import addresses

#: The run of part e ends when it was measured, not when it has learned.
_NO_GOAL = tuple(
    f"experiment.{name} = None" for name in ("solved_return", "max_frames", "max_learner_steps")
)


class BenchmarkSettings(NamedTuple):
    """What is measured and for how long.

    Attributes:
      gin_files, gin_bindings: as for training.
      parts: some of the letters a to e, n, and s.
      secs: window of part e.
      rounds: of the other parts.
    """

    gin_files: Sequence[str]
    gin_bindings: Sequence[str]
    parts: str
    secs: float
    rounds: Rounds


class Serving(NamedTuple):
    """Roles that listen, by name, and what their clients need."""

    servers: Mapping[str, Sequence[processes.Server]]
    credentials: credentials.Credentials


class Bench(NamedTuple):
    """What a part measures with: the configuration, and processes that have it.

    Attributes:
      settings: of the benchmark.
      loaded: the configuration.
      experiment: of it.
      directory: for scratch files.
    """

    settings: BenchmarkSettings
    loaded: configuration.Configuration
    experiment: Experiment
    directory: pathlib.Path

    @classmethod
    def of(cls, settings: BenchmarkSettings, directory: pathlib.Path) -> Bench:
        """Raises ConfigurationError if the gin files or bindings are wrong."""
        loaded = configuration.load(settings.gin_files, settings.gin_bindings, tensorflow=False)
        return cls(settings, loaded, Experiment.from_gin(), directory)

    def bound(self, *bindings: str) -> Bench:
        """The same with more bindings."""
        every = [*self.settings.gin_bindings, *bindings]
        return Bench.of(self.settings._replace(gin_bindings=every), self.directory)

    @property
    def config(self) -> Any:
        """Settings of the architecture."""
        return self.experiment.architecture

    @property
    def frames_per_step(self) -> int:
        """Of the environment."""
        with self.config.environment(num_envs=1, training=True, seed=0) as environment:
            return environment.frames_per_step

    def worker(self, role: str, function: str, *arguments: Any, servers=()):
        """A process with the threads of `role` that calls `function(job, *arguments)`.

        Without a role it has no TensorFlow.
        """
        fields = (self.loaded.digest, self.directory, self.settings.rounds, servers)
        gin = (role, list(self.settings.gin_files), list(self.settings.gin_bindings))
        return processes.worker(function, *gin, fields, arguments)

    @contextlib.contextmanager
    def servers(self, role: str) -> Iterator[list[processes.Server]]:
        """All replicas of a serving role, listening."""
        with self.serving(role) as (found, _):
            yield found[role]

    @contextlib.contextmanager
    def serving(self, *roles: str, actors: int = 0) -> Iterator[Serving]:
        """All replicas of serving roles, in their order, once they listen, and some actors."""
        program, root_dir = self.config.program(), self.new_directory()
        places = addresses.allocate(program)
        gin = self.settings.gin_files, self.settings.gin_bindings
        arguments = replicas.common_arguments(root_dir, *gin, verbose=False)
        with contextlib.ExitStack() as stack:
            made = stack.enter_context(credentials.made(root_dir, places.hosts))
            here = placement.place(program, placement.parse((), program), [addresses.THIS_MACHINE])
            every = replicas.replicas_of(program, here, places, root_dir, arguments, made)
            found: dict[str, list[processes.Server]] = {}
            for name in roles:
                say(f"starting a {name.replace('_', ' ')}")
                mine = [replica for replica in every if replica.role.name == name]
                found[name] = [
                    stack.enter_context(processes.server(replica, address))
                    for replica, address in zip(mine, places.listeners[name])
                ]
            for replica in [r for r in every if r.role.name == "actor"][:actors]:
                stack.enter_context(processes.role(replica))
            yield Serving(found, made)

    def run(self, *bindings: str) -> system.System:
        """The whole program with these bindings, for as long as the settings say."""
        minutes = (self.settings.secs + 600) / 60  # only in case this process cannot end it
        bench = self.bound(*bindings, *_NO_GOAL, f"experiment.max_minutes = {minutes:.1f}")
        gin = bench.settings.gin_files, bench.settings.gin_bindings
        root_dir = self.new_directory()
        return system.run(bench.loaded, bench.experiment, *gin, root_dir, self.settings.secs)

    def new_directory(self) -> pathlib.Path:
        """An empty one, for the files of a run."""
        return pathlib.Path(tempfile.mkdtemp(dir=self.directory, prefix="run-"))


class Found(NamedTuple):
    """Of one part: the figures to show, and the turns by variant, if it has any."""

    figures: list[Figure]
    turns: Mapping[str, Sequence[Turn]] = {}


class Part(NamedTuple):
    """One part of an architecture.

    title    of its table, in which {config...} are settings
    measure  is called in the main thread of the process that prints the tables
    """

    title: str
    measure: Callable[[Bench], Found]


class Comparison(NamedTuple):
    """The ratio of two variants' units/s; `aim` is the least that is wanted.

    `words` are those of the two variants if there are none.
    """

    variant: str
    of: str
    aim: float | None = None
    words: str = ""
    unit: str = "ratio"


class Compared(NamedTuple):
    """A part whose variants take turns in one process.

    Attributes:
      title: as of `Part`.
      role: whose threads it has.
      function: "module:name" of `function(job) -> {variant: [Turn, ...]}`, for a worker.
      unit: of work, in the plural.
      variants: what each is, in words.
      comparison: the ratio to show, if there is one.
      serving: role that it needs a server of, if any.
    """

    title: str
    role: str
    function: str
    unit: str
    variants: Mapping[str, str]
    comparison: Comparison | None = None
    serving: str = ""

    def measure(self, bench: Bench) -> Found:
        """As `Part.measure`."""
        rounds = bench.settings.rounds
        turns_secs = 2 * len(self.variants) * rounds.count * rounds.secs
        with contextlib.ExitStack() as stack:
            servers = stack.enter_context(bench.servers(self.serving)) if self.serving else ()
            worker = bench.worker(self.role, self.function, servers=servers)
            turns = stack.enter_context(worker).hear(processes.START_LIMIT_SECS + turns_secs)
        return self.found(turns)

    def found(self, turns: Mapping[str, Sequence[Turn]]) -> Found:
        """What such turns show."""
        figures = rates(turns, self.variants, self.unit)
        if self.comparison is not None:
            variant, of, aim, words, unit = self.comparison
            words = words or f"{self.variants[variant]} / {self.variants[of]}"
            figures.append(Figure(words, ratio(turns[variant], turns[of]), unit, aim))
        return Found(figures, turns)


def rates(turns: Mapping[str, Sequence[Turn]], words: Mapping[str, str], unit: str) -> list[Figure]:
    """How fast each variant is."""
    return [
        Figure(words[name], cost(found).units_per_second, f"{unit}/s")
        for name, found in turns.items()
    ]


class Subject(NamedTuple):
    """One architecture, or several that have the same parts.

    Attributes:
      name: of the architecture.
      configs: classes of settings.
      parts: by letter, in the order of the report.
      whole: {key: (words, unit)} of the whole program: frames, steps (of environments), updates and
        the metrics of `system.System`.
      bindings: `bindings(config, text)` -> gin bindings by which the servers of the parts hold
        nobody up; `text` is the configuration.
      asked_for: more of them, which are measured only where they are asked for.
      limits: `limits(costs, measured)` -> what the costs of all parts allow the whole.
    """

    name: str
    configs: tuple[type, ...]
    parts: Mapping[str, Part | Compared]
    whole: Mapping[str, tuple[str, str]]
    asked_for: Mapping[str, Part] = {}
    bindings: Callable[[Any, str], Sequence[str]] = lambda config, text: ()
    limits: Callable[[Mapping, Measured], list[Section]] = lambda costs, measured: []


class Measured(NamedTuple):
    """What was measured; `subject`, `config` and `frames_per_step` say of what."""

    subject: Subject
    config: Any
    frames_per_step: int
    cores: int
    found: Mapping[str, Found]
    system: system.System | None

    @property
    def steps_per_second(self) -> float:
        """Environment steps of the whole program."""
        return self.system.frames_per_second / self.frames_per_step
