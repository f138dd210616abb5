"""The sbatch file: nodes that hold the program, and a command that does what was typed."""

import pathlib
import shlex
import subprocess

import pytest

from binaries import manifests
from tfdrl.errors import ConfigurationError
from tfdrl.launch import placement
from tfdrl.launch.placement import Node, place
from tfdrl.launch.slurm import batch
from tfdrl.topology import Program, Role


def _program(actors=10):
    return Program(
        "apex",
        (
            Role("replay", "x:y", serves=True, essential=True),
            Role("learner", "x:y", serves=True, essential=True, devices="GPU"),
            Role("actor", "x:y", actors),
        ),
    )


@pytest.mark.parametrize("nodes", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "resources", [(), ("learner=gpu:1,cpu:5",), ("actor=cpu:3", "learner=cpu:7")]
)
def test_nodes_hold_the_program_and_not_one_core_less_would(nodes, resources):
    program = _program()
    wanted = placement.parse(resources, program)
    shape = batch.shape_of(program, wanted, nodes)
    equal = [Node(f"{n}", "", shape.cpus, shape.gpus) for n in range(nodes)]
    place(program, wanted, equal)
    with pytest.raises(ConfigurationError):
        place(program, wanted, [node._replace(cpus=node.cpus - 1) for node in equal])


def test_replicas_apart_want_as_many_nodes():
    program = _program(actors=4)
    wanted = placement.parse(["actor=apart:1"], program)
    assert batch.shape_of(program, wanted, 4).cpus == 3
    with pytest.raises(ConfigurationError, match="--nodes=3: actor 3 wants a node of its own"):
        batch.shape_of(program, wanted, 3)


def _written(capsys, *flags):
    assert manifests.main(["tfdrl-manifests", "--format=slurm", *flags]) == 0
    return capsys.readouterr().out


def test_the_file_says_what_was_asked_for(capsys, tmp_path):
    flags = ["--gin_file=impala/cartpole.gin", f"--root_dir={tmp_path}/a b", "--nodes=2"]
    flags += ["--time=2-12", "--node_memory=64G", "--partition=gpu", "--gpus=1"]
    flags += ["--gin_bindings=impala.actors = 9", "--resources=learner=cpu:4"]
    text = _written(capsys, *flags)
    options = {line[8:] for line in text.splitlines() if line.startswith("#SBATCH ")}
    assert {
        *("--nodes=2", "--time=2-12", "--mem=64G", "--partition=gpu", "--gpus-per-node=1"),
        *("--ntasks-per-node=1", "--signal=B:USR1@300", "--requeue", "--no-kill"),
        *("--cpus-per-task=8", f"--chdir={pathlib.Path.cwd()}", "--job-name=impala"),
    } <= options
    command = shlex.split(text.splitlines()[-1])
    assert command[0] == "exec" and pathlib.Path(command[1]).name == "tfdrl-train"
    assert command[2:] == [
        f"--root_dir={tmp_path}/a b",
        "--gin_file=impala/cartpole.gin",
        "--gin_bindings=impala.actors = 9",
        "--resources=learner=gpu:1",
        "--resources=learner=cpu:4",
        "--launcher=slurm",
        "--requeue",
    ]
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_a_gin_file_of_ones_own_is_found_from_anywhere(capsys, tmp_path, monkeypatch):
    (tmp_path / "mine.gin").write_text("include 'impala/cartpole.gin'\n")
    monkeypatch.chdir(tmp_path)
    text = _written(capsys, "--gin_file=mine.gin", "--root_dir=run", "--norequeue")
    assert f"--gin_file={tmp_path}/mine.gin" in text and f"--root_dir={tmp_path}/run" in text
    assert "#SBATCH --no-requeue" in text and "--launcher=slurm --requeue" not in text


@pytest.mark.parametrize(
    "flags, words",
    [
        ((), "--root_dir is missing"),
        (("--root_dir=a", "--time=soon"), "--time='soon': write it as 24:00:00"),
        (("--root_dir=a", "--resources=actor=gpu:1"), "actor sees no GPUs"),
    ],
)
def test_what_cannot_be_a_job(flags, words):
    with pytest.raises(ConfigurationError, match=words):
        manifests.main(["m", "--format=slurm", "--gin_file=impala/cartpole.gin", *flags])
