"""One benchmark from its settings to its figures: starts what is needed, leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence

from tfdrl import configuration
from tfdrl.architectures.a3c import A3c
from tfdrl.architectures.gorila import Gorila
from tfdrl.architectures.seed import Seed
from tfdrl.benchmarks import page, parameter_servers, registry, report, seed, start_up, system
from tfdrl.benchmarks.measuring import Turn
from tfdrl.benchmarks.part_process import ROLES
from tfdrl.benchmarks.servers import (
    Server,
    _free_port,
    replay_server,
    role_server,
    start_process,
    wait_for,
)
from tfdrl.benchmarks.settings import BenchmarkSettings, gin_arguments, say
from tfdrl.benchmarks.subject import Measured
from tfdrl.errors import ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.topology import Address

_PART_LIMIT_SECS = 180.0  # of one part, beside the turns themselves
_MOST_VARIANTS = 3  # of a part
#: The run of part e ends when it was measured, not when it has learned.
_NO_GOAL = tuple(
    f"experiment.{name} = None" for name in ("solved_return", "max_frames", "max_learner_steps")
)


def run(settings: BenchmarkSettings) -> Measured:
    """Measures. Call from the main thread.

    Raises:
      ConfigurationError: the gin file is wrong, or of an architecture that is not measured.
      TfdrlError: something failed or took too long.
    """
    loaded = configuration.load(settings.gin_files, settings.gin_bindings, tensorflow=False)
    config = Experiment.from_gin().architecture
    subject = registry.subject_of(config)
    frames_per_step = _frames_per_step(config)
    turns, whole = {}, None
    with _scratch() as directory:
        if settings.parts != "e":
            turns = _measure_parts(settings, subject.bindings(config, loaded.text), directory)
        if "e" in settings.parts:
            whole = _run_system(settings, directory)
    cores = len(os.sched_getaffinity(0))
    return Measured(subject, config, frames_per_step, cores, turns, whole)


def sections(settings: BenchmarkSettings) -> list[page.Section]:
    """Measures; the tables to show. Call from the main thread. Raises as `run`."""
    configuration.load(settings.gin_files, settings.gin_bindings, tensorflow=False)
    config = Experiment.from_gin().architecture
    found = []
    if "s" in settings.parts:
        with _scratch() as directory:
            program, arguments = config.program(), gin_arguments(settings, [])
            found.append(start_up.section(program, arguments, directory, settings.rounds.count))
    rest = settings._replace(parts=settings.parts.replace("s", ""))
    return found + (_parts_sections(rest, config) if rest.parts else [])


def _parts_sections(settings: BenchmarkSettings, config) -> list[page.Section]:
    if isinstance(config, (A3c, Gorila)):
        return _parameter_server_sections(settings, config)
    if not isinstance(config, Seed):
        return report.sections(run(settings))
    if not set("abe") & set(settings.parts):
        raise ConfigurationError(
            f"--parts={','.join(settings.parts)}: the parts of SEED are a, b and e"
        )
    whole = None
    with _scratch() as directory:
        if "e" in settings.parts:
            whole = _run_system(settings, directory)
        return seed.sections(
            config, gin_arguments(settings, []), settings.rounds, settings.parts, whole
        )


def _parameter_server_sections(settings: BenchmarkSettings, config) -> list[page.Section]:
    if not set("abe") & set(settings.parts):
        raise ConfigurationError(
            f"--parts={','.join(settings.parts)}: the parts of A3C and Gorila are a, b and e"
        )
    frames_per_step, found = _frames_per_step(config), []
    with _scratch() as directory:
        if "a" in settings.parts:
            cycles = _measure_cycles(settings, config, directory)
            found.append(parameter_servers.cycles_section(config, cycles))
        if "b" in settings.parts:
            binding = parameter_servers.workers_binding(config)

            def run_with(workers: int) -> system.System:
                bindings = [*settings.gin_bindings, f"{binding} = {workers}"]
                scaled = settings._replace(gin_bindings=bindings)
                return _run_system(scaled, directory / f"{workers}-workers")

            found.append(parameter_servers.speed_up_section(run_with, frames_per_step))
        if "e" in settings.parts:
            whole = _run_system(settings, directory)
            found.append(parameter_servers.whole_section(config, whole, frames_per_step))
    return found


def _measure_cycles(settings: BenchmarkSettings, config, directory: pathlib.Path):
    out, log = directory / "cycles.json", directory / "cycles.log"
    limit_secs = _PART_LIMIT_SECS + 4 * settings.rounds.count * settings.rounds.secs
    with contextlib.ExitStack() as stack:
        addresses = [Address("127.0.0.1", _free_port()) for _ in range(config.parameter_servers)]
        servers = [
            stack.enter_context(
                role_server(settings, [], "parameter_server", task, address, directory / "run")
            )
            for task, address in enumerate(addresses)
        ]
        command = [
            *("tfdrl.benchmarks.parameter_client", f"--out={out}"),
            f"--parameter_server={','.join(map(str, addresses))}",
            f"--server_pid={servers[0].pid}",
            *parameter_servers.rounds_arguments(settings.rounds),
            *gin_arguments(settings, []),
        ]
        process = stack.enter_context(start_process(command, log, stderr=None))
        wait_for(process, limit_secs, "measuring a worker's cycles", log)
    return parameter_servers.Cycles.read(out)


def _frames_per_step(config) -> int:
    with config.environment(num_envs=1, training=True, seed=0) as environment:
        return environment.frames_per_step


@contextlib.contextmanager
def _scratch() -> Iterator[pathlib.Path]:
    """A directory for the run, and for what our processes leave in TMPDIR (AutoGraph does)."""
    before = os.environ.get("TMPDIR")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="tfdrl-benchmark-"))
    os.environ["TMPDIR"] = str(directory)
    try:
        yield directory
    finally:
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before
        shutil.rmtree(directory, ignore_errors=True)


def _run_system(settings: BenchmarkSettings, directory: pathlib.Path) -> system.System:
    say(f"whole system: {settings.secs:g} s after its start")
    minutes = (settings.secs + 600) / 60  # only in case this process cannot end it
    bindings = [*settings.gin_bindings, *_NO_GOAL, f"experiment.max_minutes = {minutes:.1f}"]
    loaded = configuration.load(settings.gin_files, bindings, tensorflow=False)
    return system.run(
        loaded,
        Experiment.from_gin(),
        settings.gin_files,
        bindings,
        directory / "run",
        settings.secs,
    )


def _measure_parts(
    settings: BenchmarkSettings, free: Sequence[str], directory: pathlib.Path
) -> dict[str, dict[str, list[Turn]]]:
    turns = {}
    for role, letters in ROLES.items():
        parts = "".join(part for part in letters if part in settings.parts)
        if not parts:
            continue
        with contextlib.ExitStack() as stack:
            server = None
            if set(parts) & set("bc"):  # each its own: what is read, the actor's writer wrote
                server = replay_server(settings, free, directory / f"replay-{role}")
                server = stack.enter_context(server)
            turns.update(_measure_role(settings, role, parts, free, directory, server))
    return turns


def _measure_role(
    settings: BenchmarkSettings,
    role: str,
    parts: str,
    free: Sequence[str],
    directory: pathlib.Path,
    server: Server | None,
) -> dict[str, dict[str, list[Turn]]]:
    say(f"parts of the {role}: {', '.join(parts)}")
    rounds, log = settings.rounds, directory / f"{role}.log"
    arguments = [
        *(f"--parts={parts}", f"--directory={directory}"),
        *(f"--rounds={rounds.count}", f"--round_secs={rounds.secs}"),
    ]
    if server is not None:
        arguments += [f"--replay={server.address}", f"--server_pid={server.pid}"]
    limit_secs = len(parts) * (_PART_LIMIT_SECS + _MOST_VARIANTS * 2 * rounds.count * rounds.secs)
    command = ["tfdrl.benchmarks.part_process", *arguments, *gin_arguments(settings, free)]
    with start_process(command, log, stderr=None) as process:
        wait_for(process, limit_secs, f"measuring the {role}'s parts", log)
    found = json.loads((directory / f"turns-{parts}.json").read_text())
    return {
        part: {name: [Turn(*turn) for turn in turns] for name, turns in variants.items()}
        for part, variants in found.items()
    }
