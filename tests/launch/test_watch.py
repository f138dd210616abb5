"""tfdrl-watch: one look, as words and as JSON; the view until the run is over; who is not there."""

import json
import subprocess
import sys
import threading

import certificates
import pytest

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.launch import services
from tfdrl.launch.addresses import Addresses
from tfdrl.launch.credentials import Credentials
from tfdrl.launch.tools import watch
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.rpc.security import Security
from tfdrl.topology import Address

_ANYWHERE = Address("localhost", 0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("certificates")
    certificates.make_all(directory)
    return directory


def _watch(*flags):
    command = [sys.executable, "-m", "binaries.watch", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def learner():
    servers = []

    def start(security=Security()):  # noqa: B008
        servers.append(TrainingServer(_ANYWHERE, "experiment", "specs", security=security))
        servers[-1].set_status(1200, {"learner/waiting_share": 0.04, "learner/loss": float("nan")})
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def _with_an_actor(server, security=Security()):  # noqa: B008
    client = TrainingClient(
        server.address,
        experiment="experiment",
        role="actor",
        task=0,
        run_id=5,
        specs="specs",
        security=security,
    )
    client.join(5.0)
    client.report(frames=400, metrics={"actor/waiting_share": 0.12})
    client.close()


def test_a_look_in_words_and_as_json(learner, tmp_path):
    server = learner()
    _with_an_actor(server)
    done = _watch(f"--learner={server.address}", "--once")
    assert done.returncode == 0, done.stderr
    assert "frames 400" in done.stdout and "learner steps 1,200" in done.stdout
    assert "waiting learner 4 %, actors 12 %" in done.stdout
    assert "processes actor 1/1" in done.stdout
    assert "WARNING" not in done.stdout
    status = json.loads(_watch(f"--learner={server.address}", "--once", "--json").stdout)
    assert (status["learner_step"], status["frames"]) == (1200, 400)
    assert status["metrics"] == {"learner/waiting_share": 0.04, "learner/loss": None}
    assert status["roles"][0]["role"] == "actor" and status["uptime_secs"] > 0


def test_a_run_is_found_by_its_directory_with_its_certificates_and_token(files, learner, tmp_path):
    server = learner(Security.from_files(*_named(files, "learner")))
    certificate, key, authority, token = _named(files, "actor")
    made = Credentials(token, certificate, key, authority)
    places = Addresses({"learner": (server.address,)}, {})
    with services.written(tmp_path, "learner", places, made):
        assert (tmp_path / services.FILE).stat().st_mode & 0o777 == 0o600
        done = _watch(str(tmp_path), "--once")
        assert done.returncode == 0 and "learner steps 1,200" in done.stdout, done.stderr
    done = _watch(f"--root_dir={tmp_path}", "--once")
    assert done.returncode == 2 and "no launcher runs in" in done.stderr
    with pytest.raises(UnavailableError):
        watch.once([server.address], Security(), 1.0)


def _named(files, name):
    return [flag.partition("=")[2] for flag in certificates.flags(files, name)]


def test_the_view_ends_with_the_run(learner, capsys):
    server = learner()
    threading.Timer(1.5, server.finish, ["solved: it is"]).start()
    assert watch.follow([server.address], Security(), 5.0, lambda: False) == "solved: it is"
    assert "learner steps 1,200" in capsys.readouterr().out


def test_the_view_ends_when_it_is_told_to(learner):
    assert watch.follow([learner().address], Security(), 5.0, lambda: True) == ""


def test_of_several_learners_the_first_must_answer(learner):
    server, nobody = learner(), Address("localhost", 1)
    assert watch.once([server.address, nobody], Security(), 1.0).learner_step == 1200
    with pytest.raises(UnavailableError):
        watch.once([nobody, server.address], Security(), 1.0)


@pytest.mark.parametrize(
    "flags, words",
    [
        ((), "give either --root_dir of a run, or --learner=host:port"),
        (("--learner=a:1", "--json"), "--json goes with --once"),
        (("--learner=here",), "is not an address"),
        (("--learner=a:1", "--leaner=b:1"), "did you mean --learner"),
    ],
)
def test_what_is_wrong_is_said(flags, words):
    from binaries import watch as main

    with pytest.raises(ConfigurationError, match=words):
        main.main(["tfdrl-watch", *flags])
