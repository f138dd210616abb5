"""The process that calls a function for a benchmark, with the threads of a role.

    python -m tfdrl.benchmarks.worker MODULE:NAME SOCKET

It receives (role, gin files, gin bindings, the fields of `Job` after the seed, more arguments) and
calls `function(job, *arguments)`. What that returns is the only answer. Of a generator each yielded
value is one, and what the benchmark says to it is what the `yield` returns.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection

from tfdrl.benchmarks.processes import Job
from tfdrl.errors import EXIT_OK
from tfdrl.launch import command_line, gpus, process


def main(argv: Sequence[str]) -> int:
    """Serves the benchmark until it says no more; returns the exit code."""
    process.die_with_launcher()
    process.silence()
    module, _, name = argv[1].partition(":")
    with Connection(int(argv[2])) as connection:
        role, gin_files, gin_bindings, fields, arguments = connection.recv()
        experiment = _configure(role, gin_files, gin_bindings)
        job = Job(experiment.architecture, experiment.seed, *fields)
        found = getattr(importlib.import_module(module), name)(job, *arguments)
        if not inspect.isgenerator(found):
            connection.send(found)
            return EXIT_OK
        answer = next(found)
        with contextlib.suppress(EOFError):
            while True:
                connection.send(answer)
                answer = found.send(connection.recv())
    return EXIT_OK


def _configure(role_name: str, gin_files: Sequence[str], gin_bindings: Sequence[str]):
    """The experiment, with TensorFlow where the role has it; of no role without."""
    from tfdrl import configuration
    from tfdrl.experiment import Experiment

    configuration.load(gin_files, gin_bindings, tensorflow=False)
    experiment = Experiment.from_gin()
    if not role_name:
        return experiment
    role = experiment.architecture.program().role(role_name)
    process.limit_threads(role.threads)
    gpus.see(role.devices)
    if not role.needs_tensorflow:
        return experiment
    configuration.load(gin_files, gin_bindings, tensorflow=True)
    return Experiment.from_gin()


if __name__ == "__main__":
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    # Native threads cannot keep it.
    process.leave(command_line.run("tfdrl benchmark", main, sys.argv))
