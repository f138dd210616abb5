"""Writes the Kubernetes manifests, the Compose file or the sbatch file of a gin file's program."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from tfdrl import configuration
from tfdrl.errors import EXIT_OK, ConfigurationError
from tfdrl.launch import command_line, printed_commands
from tfdrl.topology import Program

_USAGE = """Writes a gin file's program to standard output, for Kubernetes, Compose or Slurm.

  tfdrl-manifests --gin_file=apex/atari_pong.gin --name=pong --image=registry/tfdrl:1 \\
      --gin_bindings='apex.actors = 64' | kubectl apply -f -

Every role is a Job; replay, learner, coordinator, parameter servers and evaluator have a volume
each. When the Job of the learner, or coordinator, is complete, remove the run by its label:

  kubectl delete job,svc,configmap,networkpolicy,pdb -l tfdrl/run=pong

The volumes, with all results, stay until you delete them (pvc). To go on with other settings:
--allow_config_change.

With --format=jobset the Jobs are one JobSet (jobset.x-k8s.io), which ends as a whole:

  tfdrl-manifests --format=jobset --gin_file=apex/atari_pong.gin --queue=team-a | kubectl apply -f -

With --format=compose the same roles are containers of one host, in a profile of the run's name:

  tfdrl-manifests --format=compose --gin_file=apex/cartpole.gin > compose.yaml
  docker compose --profile apex up

With --format=slurm it is the file of a job, with nodes, cores, GPUs, time limit and requeueing:

  tfdrl-manifests --format=slurm --gin_file=apex/atari_pong.gin --nodes=4 --root_dir=/shared/pong \\
      > pong.sh && sbatch pong.sh"""


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    command_line.gin_flags(values)
    about = "What to write."
    formats = ["kubernetes", "jobset", "compose", "slurm"]
    flags.DEFINE_enum("format", "kubernetes", formats, about, flag_values=values)
    for name, default, about in (
        ("name", "", "Of the run, a part of host names (default: the architecture's)."),
        ("image", "tfdrl:latest", "Image of the roles with TensorFlow."),
        ("light_image", "tfdrl-seed-actor:latest", "Image of roles without, SEED's actors."),
        ("storage", "10Gi", "Size of each volume; for some roles another: 10Gi,replay=100Gi."),
        ("cpu", "1", "Cores that a pod requests; the same: 1,learner=8."),
        ("memory", "2Gi", "Memory that a pod requests; the same: 2Gi,replay=64Gi."),
        ("tls_secret", "", "Secret with tls.crt, tls.key, ca.crt and token: mutual TLS."),
    ):
        flags.DEFINE_string(name, default, about, flag_values=values)
    flags.DEFINE_integer(
        "gpus",
        0,
        "NVIDIA GPUs for each process of a role that sees GPUs (the learner); --image must have "
        "CUDA then.",
        lower_bound=0,
        flag_values=values,
    )
    _kubernetes_flags(values)
    _slurm_flags(values)
    flags.DEFINE_bool(
        "allow_config_change",
        False,
        "Continue volumes of an earlier run of that name with settings that differ from theirs.",
        flag_values=values,
    )
    return values


def _kubernetes_flags(values: flags.FlagValues) -> None:
    for name, default, about in (
        ("namespace", "", "Kubernetes: namespace of all objects (default: kubectl's)."),
        (
            "packages",
            "",
            "Kubernetes: your own packages, beside the images: configmap:NAME/my_package, "
            "configmap:NAME or pvc:NAME.",
        ),
        ("queue", "", "JobSet: Kueue's local queue, which starts all pods at once, or none."),
    ):
        flags.DEFINE_string(name, default, about, flag_values=values)
    for name, about in (
        (
            "node_selector",
            "Kubernetes: label of the nodes for all roles, or for one: pool=cpu, learner:pool=gpu.",
        ),
        ("pull_secret", "Kubernetes: Secret that opens the images' registry."),
    ):
        flags.DEFINE_multi_string(name, [], about, flag_values=values)
    about = "Kubernetes: TensorBoard beside the chief, for kubectl port-forward."
    flags.DEFINE_bool("tensorboard", False, about, flag_values=values)


def _slurm_flags(values: flags.FlagValues) -> None:
    for name, default, about in (
        ("root_dir", "", "Slurm: directory of the run, on a file system that all nodes share."),
        ("time", "24:00:00", "Slurm: time limit of the job."),
        ("node_memory", "", "Slurm: memory of each node, such as 64G (default: all of it)."),
        ("partition", "", "Slurm: partition (default: the cluster's)."),
    ):
        flags.DEFINE_string(name, default, about, flag_values=values)
    about = "Slurm: number of nodes."
    flags.DEFINE_integer("nodes", 1, about, lower_bound=1, flag_values=values)
    about = "Slurm: put the job into the queue again after preemption, or its time limit."
    flags.DEFINE_bool("requeue", True, about, flag_values=values)
    flags.DEFINE_multi_string(
        "resources",
        [],
        "Slurm: as of tfdrl-train, such as learner=gpu:1,cpu:8.",
        flag_values=values,
    )


def _batch(values: flags.FlagValues, program: Program) -> str:
    """The sbatch file."""
    from tfdrl.launch import placement
    from tfdrl.launch.slurm import batch

    if not values.root_dir:
        raise ConfigurationError(
            "--root_dir is missing; give a directory on a file system that all nodes share: a job "
            "that is queued again continues there"
        )
    seeing = [role.name for role in program.roles if role.devices == "GPU" and values.gpus]
    resources = [*(f"{name}=gpu:{values.gpus}" for name in seeing), *values.resources]
    own = set(configuration.gin_file_names())
    command = [printed_commands.installed("tfdrl-train")]
    command.append(f"--root_dir={pathlib.Path(values.root_dir).resolve()}")
    for name in values.gin_file:
        path = name if name in own else configuration.find_gin_file(name).resolve()
        command.append(f"--gin_file={path}")
    command += [f"--gin_bindings={binding}" for binding in values.gin_bindings]
    command += [f"--resources={text}" for text in resources]
    command += ["--allow_config_change"] * values.allow_config_change
    settings = batch.BatchSettings(
        name=values.name or program.name,
        directory=os.getcwd(),
        nodes=values.nodes,
        time=values.time,
        memory=values.node_memory,
        partition=values.partition,
        requeue=values.requeue,
    )
    return batch.text(program, placement.parse(resources, program), settings, command)


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first) and prints the manifests; returns the exit code."""
    from tfdrl.experiment import Experiment
    from tfdrl.launch.cluster import compose, packages, plain_yaml
    from tfdrl.launch.cluster.amounts import amounts, node_labels
    from tfdrl.launch.cluster.jobset import with_jobset
    from tfdrl.launch.cluster.manifest_settings import ManifestSettings
    from tfdrl.launch.cluster.manifests import objects
    from tfdrl.launch.cluster.role_commands import check_name

    values = _flags()
    command_line.parse_gin_files(values, argv, _USAGE)
    if not values.gin_file:
        raise ConfigurationError("--gin_file is missing; tfdrl-train --list shows what there is")
    loaded = configuration.load(values.gin_file, values.gin_bindings, tensorflow=False)
    program = Experiment.from_gin().architecture.program()
    if values.format == "slurm":
        print(_batch(values, program), end="")
        return EXIT_OK
    given = {name: values[name].value for name in ManifestSettings._fields}
    given["name"] = values.name or program.name
    for flag in ("storage", "cpu", "memory"):
        given[flag] = amounts(flag, given[flag], program)
    given["packages"] = packages.parse(values.packages)
    given["node_selector"] = node_labels(values.node_selector, program)
    settings = ManifestSettings(**given)
    if settings.queue and values.format != "jobset":
        raise ConfigurationError(
            "--queue needs --format=jobset: Kueue would admit the Jobs of a run one by one, and "
            "those that it started would wait for the others in vain"
        )
    if values.format == "compose":
        run_flags, directory = compose.gin_flags(values.gin_file, values.gin_bindings)
        run_flags += ["--allow_config_change"] * settings.allow_config_change
        run = compose.Run(check_name(settings.name), program, run_flags, directory)
        images = settings.image, settings.light_image
        documents = [compose.document([run], *images, settings.gpus)]
    else:
        documents = objects(program, loaded, settings)
        if values.format == "jobset":
            documents = with_jobset(documents, program, settings)
    print(plain_yaml.text(documents, compact=values.format == "compose"), end="")
    return EXIT_OK


def console() -> None:
    """Entry point of the console script."""
    sys.exit(command_line.run("tfdrl manifests", main, sys.argv))


if __name__ == "__main__":
    console()
