"""Each connection is a file: a role that cannot have enough of them says so before it starts."""

import os
import resource
import subprocess
import sys

import pytest
from paths import CHECKOUT, python_path

from tfdrl import configuration
from tfdrl.errors import ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.launch import open_files
from tfdrl.rpc import channels


def program_of(gin_file, *bindings):
    configuration.load([gin_file], bindings, tensorflow=False)
    return Experiment.from_gin().architecture.program()


@pytest.mark.parametrize(
    "gin_file, binding, clients",
    [
        ("impala/cartpole.gin", "impala.actors = 500", {"replay": 509, "learner": 509}),
        ("seed/cartpole_vtrace.gin", "seed.actors = 1000", {"learner": 1009, "actor": 0}),
        ("a3c/cartpole.gin", "a3c.workers = 300", {"parameter_server": 309, "coordinator": 309}),
    ],
)
def test_clients_are_those_who_have_the_address(gin_file, binding, clients):
    program = program_of(gin_file, binding)
    found = {name: open_files.clients_of(program, program.role(name)) for name in clients}
    assert found == clients


def test_a_fleet_that_no_server_takes_is_told_to_be_smaller(monkeypatch):
    monkeypatch.setattr(channels, "most_connections", lambda: channels.MOST_CONNECTIONS)
    program = program_of("impala/cartpole.gin", "impala.actors = 5000")
    with pytest.raises(
        ConfigurationError,
        match="5,009 connections come to each learner of impala, which takes 4,096: "
        "start fewer, with more environments each",
    ):
        open_files.check_connections(program, program.role("learner"))
    open_files.check_connections(program, program.role("actor"))


def test_files_decide_how_many_may_connect():
    program = program_of("impala/cartpole.gin", "impala.actors = 500")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1018, hard))
        open_files.check_connections(program, program.role("learner"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (1000, hard))
        with pytest.raises(ConfigurationError, match="takes 500: half of the 1,000 files"):
            open_files.check_connections(program, program.role("learner"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def limited(soft, hard):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_limit_of_this_process_is_raised_as_far_as_it_may_be():
    script = (
        "import resource; from tfdrl.launch import open_files; open_files.raise_limit(); "
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": python_path()},
        preexec_fn=limited(256, 900),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert int(done.stdout) == 900, done.stderr


def test_a_learner_without_files_for_its_actors_is_a_mistake(tmp_path):
    command = [sys.executable, "-m", "binaries.learner", "--gin_file=impala/cartpole.gin"]
    command += ["--gin_bindings=impala.actors = 500", f"--root_dir={tmp_path}/run"]
    command.append("--replay=localhost:1")
    done = subprocess.run(
        command,
        cwd=CHECKOUT,
        preexec_fn=limited(100, 800),
        capture_output=True,
        text=True,
        timeout=60,
    )
    words = (
        "509 connections come to each learner of impala, which takes 400: half of the "
        "800 files that it may open; raise that limit (`ulimit -Hn`"
    )
    assert done.returncode == 2 and words in done.stderr, done.stderr
