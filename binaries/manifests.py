"""Writes the Kubernetes manifests of a gin file's program."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

from tfdrl import configuration
from tfdrl.errors import EXIT_OK, ConfigurationError
from tfdrl.launch import command_line

_USAGE = """Writes the Kubernetes manifests of a gin file's program to standard output.

  tfdrl-manifests --gin_file=apex/atari_pong.gin --name=pong --image=registry/tfdrl:1 \\
      --gin_bindings='apex.actors = 64' | kubectl apply -f -

Every role is a Job; replay, learner, coordinator and parameter servers have a volume each. When the
Job of the learner, or coordinator, is complete, remove the run by its label:

  kubectl delete all,pvc,configmap,networkpolicy,pdb -l tfdrl/run=pong"""


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    command_line.gin_flags(values)
    for name, default, about in (
        ("name", "", "Of the run, a part of host names (default: the architecture's)."),
        ("image", "tfdrl:latest", "Image of the roles with TensorFlow."),
        ("light_image", "tfdrl-seed-actor:latest", "Image of roles without, SEED's actors."),
        ("storage", "10Gi", "Size of each volume."),
        ("cpu", "1", "Cores that a pod requests."),
        ("memory", "2Gi", "Memory that a pod requests."),
    ):
        flags.DEFINE_string(name, default, about, flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first) and prints the manifests; returns the exit code."""
    from tfdrl.experiment import Experiment
    from tfdrl.launch import manifests

    values = _flags()
    command_line.parse(values, argv, _USAGE)
    if not values.gin_file:
        raise ConfigurationError("--gin_file is missing; tfdrl-train --list shows what there is")
    loaded = configuration.load(values.gin_file, values.gin_bindings, tensorflow=False)
    program = Experiment.from_gin().architecture.program()
    settings = manifests.Settings(
        values.name or program.name,
        *(values[name].value for name in manifests.Settings._fields[1:]),
    )
    print(manifests.text(manifests.objects(program, loaded, settings)), end="")
    return EXIT_OK


def console() -> None:
    """Entry point of the console script."""
    sys.exit(command_line.run("tfdrl manifests", main, sys.argv))


if __name__ == "__main__":
    console()
