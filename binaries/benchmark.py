"""Measures how fast the parts and the whole of a program run on this machine."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import sys
from collections.abc import Sequence

from absl import flags

from tfdrl.benchmarks import page, report
from tfdrl.benchmarks.harness import BenchmarkSettings
from tfdrl.benchmarks.measuring import Rounds
from tfdrl.benchmarks.subjects import SUBJECTS
from tfdrl.errors import EXIT_FAILED, EXIT_OK, ConfigurationError
from tfdrl.launch import command_line, open_files, process

_DEFAULT = "apex/cartpole.gin"
_USAGE = """Measures a program, and its parts beside the bare libraries.

  tfdrl-benchmark --gin_file=apex/atari_pong.gin --seconds=120 --json=pong.json
  tfdrl-benchmark --gin_file=impala/atari_pong.gin --seconds=120
  tfdrl-benchmark --gin_file=seed/random_frames_vtrace.gin --round_secs=3
  tfdrl-benchmark --gin_file=a3c/cartpole.gin --parts=a,e
  tfdrl-benchmark --gin_file=a3c/sleeping.gin --parts=b --seconds=15
  tfdrl-benchmark --gin_file=impala/sleeping.gin --parts=n --gin_bindings='impala.actors = 501'

Parts: a environment stepping, b insertion into replay (IMPALA: the queue), c sampling from it, d
training in memory (of that V-trace alone), e the whole program. Of SEED: a the inference service
beside a bare gRPC stream, b more and more streams, e the whole. Of A3C and Gorila: a a worker's
cycle beside the same step locally, b more and more workers, e the whole, with the CPU time of each
thread of the learner or coordinator for an environment step and, where py-spy is installed (pip
install 'tfdrl[profile]'), how long each holds the interpreter's lock. Of every architecture, if
asked for: s what a start costs, with forked roles and with fresh ones; of IMPALA and Ape-X n what
hundreds of actors cost the learner and the launcher. With --costs=FILE, in place
of the tables: what one step, batch, item, pull or message costs, for tfdrl-plan. V-trace at another
size:

  tfdrl-benchmark --gin_file=impala/atari_pong.gin --parts=d \\
      --gin_bindings='impala.unroll_steps = 100' --gin_bindings='impala.batch_size = 64'

Progress goes to stderr, the tables to stdout. The machine should have nothing else to do. Exit
codes: 0 measured, 1 failed, 2 wrong configuration."""


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    command_line.gin_flags(values)
    flags.DEFINE_list("parts", list("abcde"), "What to measure.", flag_values=values)
    command_line.float_flag(values, "seconds", 60.0, "How long part e is measured.", lowest=1.0)
    flags.DEFINE_integer(
        "rounds",
        5,
        "Turns of each variant in parts a to d, n and s.",
        lower_bound=1,
        flag_values=values,
    )
    command_line.float_flag(values, "round_secs", 1.0, "Seconds of one turn.", lowest=0.0)
    flags.DEFINE_string(
        "costs",
        "",
        "File for the costs that tfdrl-plan takes, and nothing else.",
        flag_values=values,
    )
    flags.DEFINE_string("json", "", "File for all figures.", flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first), measures, prints; returns the exit code."""
    values = _flags()
    command_line.parse_gin_files(values, argv, _USAGE)
    unknown = set(values.parts) - set("abcdens")
    if unknown or not values.parts:
        raise ConfigurationError(f"--parts={','.join(values.parts)}: give some of a,b,c,d,e,n,s")
    for name in ("json", "costs"):
        path = getattr(values, name)
        if path and not pathlib.Path(path).resolve().parent.is_dir():
            raise ConfigurationError(f"--{name}={path}: there is no such directory")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    process.silence()
    open_files.raise_limit()  # its processes get the limit, too
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(EXIT_FAILED))  # so that it tidies up
    settings = BenchmarkSettings(
        values.gin_file or [_DEFAULT],
        values.gin_bindings,
        "".join(sorted(set(values.parts))),
        values.seconds,
        Rounds(values.rounds, values.round_secs),
    )
    if values.costs:
        found = report.costs(settings, SUBJECTS)
        pathlib.Path(values.costs).write_text(json.dumps(found, indent=2) + "\n")
        return EXIT_OK
    found = report.run(settings, SUBJECTS)
    print(page.as_text(found), flush=True)
    if values.json:
        pathlib.Path(values.json).write_text(json.dumps(page.as_json(found), indent=2) + "\n")
    return EXIT_OK


def console() -> None:
    """Entry point of the console script."""
    sys.exit(command_line.run("tfdrl benchmark", main, sys.argv))


if __name__ == "__main__":
    console()
