"""Plays whole episodes with a run's checkpoint or exported policy: `--help` lists the flags."""

from __future__ import annotations

import pathlib
import sys
import threading
from collections.abc import Sequence

from absl import flags

from tfdrl.errors import EXIT_OK, ConfigurationError
from tfdrl.launch import command_line, gpus, process, run_directory, trained_policies
from tfdrl.launch.tools import evaluate

_USAGE = """Plays whole episodes with what a run has learnt, and says how good they were.

  tfdrl-evaluate --root_dir=runs/apex-cartpole/20250131-235959
  tfdrl-evaluate --root_dir=runs/a --checkpoint=3000 --episodes=20 --video=pole.mp4
  tfdrl-evaluate --policy=runs/a/policy
  tfdrl-evaluate --policy=cartpole-impala       one that comes with tfdrl; --policy=list lists them

Agent and environment are those of the run's config.gin; rewards are raw, actions greedy."""
#: --policy=list
_LIST = "list"


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()

    def text(name: str, about: str) -> None:
        flags.DEFINE_string(name, "", about, flag_values=values)

    text("root_dir", "Directory of the run.")
    text("checkpoint", "Learner step or path prefix of a checkpoint (default: the newest one).")
    about = (
        "An exported policy, played in place of a checkpoint: its directory, the name of one that "
    )
    text("policy", about + "comes with tfdrl, or 'list' for those names.")
    text("video", "Record the first episode to this .mp4 file; needs tfdrl[video].")
    flags.DEFINE_integer("episodes", 100, "Episodes.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "environments",
        0,
        "Environments stepped together (default: as in the run's own evaluations).",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "seed",
        None,
        "Seed of the environments (default: one that the run's evaluations do not use).",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "gin_bindings", [], "Overrides one setting of the run's.", flag_values=values
    )
    flags.DEFINE_bool("verbose", False, "Show TensorFlow's messages.", flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first) and plays; returns the exit code."""
    values = _flags()
    command_line.parse(values, argv, _USAGE)
    if values.policy == _LIST:
        print("\n".join(trained_policies.listing()))
        return EXIT_OK
    root_dir, policy = _places(values)
    if not values.verbose:
        process.silence()
    gpus.see("CPU")  # as the evaluator: the GPU may be a learner's
    stop = threading.Event()
    process.stop_on_signals(stop)
    evaluate.evaluate(
        evaluate.Request(
            root_dir=root_dir,
            episodes=values.episodes,
            checkpoint=values.checkpoint,
            policy=str(policy or ""),
            environments=values.environments,
            video=values.video,
            seed=values.seed,
            gin_bindings=values.gin_bindings,
        ),
        stop,
        lambda line: print(line, flush=True),
    )
    return EXIT_OK


def _places(values: flags.FlagValues) -> tuple[pathlib.Path, pathlib.Path | None]:
    """Directory of the run, and of the exported policy if that is played."""
    if values.policy and values.checkpoint:
        raise ConfigurationError("give --checkpoint or --policy, not both")
    run = pathlib.Path(values.root_dir) if values.root_dir else None
    if not values.policy:
        if run is None:
            raise ConfigurationError("--root_dir is missing; give the directory of a run")
        return run, None
    policy = pathlib.Path(values.policy)
    if policy.exists():
        return run or _run_above(policy), policy
    trained = trained_policies.find(values.policy)
    if trained is None:
        raise trained_policies.not_found(values.policy)
    return run or trained, trained / run_directory.POLICY


def _run_above(policy: pathlib.Path) -> pathlib.Path:
    above = policy.resolve().parent
    if not (above / run_directory.CONFIG).is_file():
        raise ConfigurationError(
            f"--root_dir is missing, and {above} has no {run_directory.CONFIG} that would tell "
            "the environment"
        )
    return above


def console() -> None:
    """Entry point of the console script."""
    sys.exit(command_line.run("tfdrl evaluate", main, sys.argv))


if __name__ == "__main__":
    console()
