"""TLS and token: who has them is served, everybody else hears why not."""

import dataclasses
import pathlib
import socket
import subprocess
import threading

import certificates
import numpy as np
import pytest
from certificates import TOKEN
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.rpc import security
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.rpc.security import Security
from tfdrl.topology import Address


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    certificates.make_all(directory)
    return directory


def read(files, name="", authority="ours", token="", environment=None):
    pair = [str(files / f"{name}.{kind}") for kind in ("pem", "key")] if name else ["", ""]
    authority = str(files / f"{authority}.pem") if authority else ""
    token = str(files / token) if token else ""
    return Security.from_files(*pair, authority, token, environment or {})


@pytest.fixture
def serve():
    servers = []

    def serve(protection):
        servers.append(TrainingServer(Address("127.0.0.1", 0), "digest", security=protection))
        servers[-1].publish(1, [np.arange(1000)])
        return servers[-1].address

    yield serve
    for server in servers:
        server.close()


def test_files_of_the_script_protect_a_run(serve, tmp_path):
    script = pathlib.Path(__file__).resolve().parents[2] / "docker" / "make_certificates.sh"
    made = tmp_path / "made"
    subprocess.run([script, made, "learner.somewhere", "10.1.2.3"], check=True)
    assert sorted(path.name for path in made.iterdir()) == ["ca.crt", "tls.crt", "tls.key", "token"]
    assert {path.stat().st_mode & 0o077 for path in made.iterdir()} == {0}
    flags = [str(made / name) for name in ("tls.crt", "tls.key", "ca.crt", "token")]
    protection = Security.from_files(*flags, environment={})
    address = serve(protection)
    ask(address, protection)
    with pytest.raises(ConfigurationError, match="token"):
        ask(address, dataclasses.replace(protection, token=""))
    again = subprocess.run([script, made, "learner"], capture_output=True, text=True)
    assert again.returncode == 2 and "is there already" in again.stderr


def ask(address, protection):
    """Joins and pulls."""
    client = TrainingClient(
        address, experiment="digest", role="actor", task=0, run_id=1, security=protection
    )
    try:
        client.join(2.0, threading.Event())
        version, tensors = client.parameters(-1)
        assert version == 1 and len(tensors[0]) == 1000
    finally:
        client.close()


def test_mutual_tls_with_a_token(files, serve):
    address = serve(read(files, "learner", token="token"))
    ask(address, read(files, "actor", token="token"))
    ask(address, read(files, "actor", environment={security.TOKEN_VARIABLE: TOKEN}))


def test_tls_of_the_server_alone(files, serve):
    ask(serve(read(files, "learner", authority="")), read(files))


def test_a_learner_that_comes_later_is_found(files, serve):
    """A handshake needs more time than a call that fails at once."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    client = TrainingClient(
        Address("127.0.0.1", port),
        **{"experiment": "digest", "role": "actor", "task": 0, "run_id": 1},
        security=read(files, "actor"),
    )
    servers = []

    def start():
        server = TrainingServer(
            Address("127.0.0.1", port), "digest", security=read(files, "learner")
        )
        servers.append(server)

    threading.Timer(1.0, start).start()
    client.join(10.0, threading.Event())
    client.close()
    servers[0].close()


@pytest.mark.parametrize(
    ("who", "error", "words"),
    [
        ({"name": "actor"}, ConfigurationError, "the token is missing or wrong"),
        (
            {"name": "actor", "environment": {security.TOKEN_VARIABLE: TOKEN[:-1] + "0"}},
            *(ConfigurationError, "the token is missing or wrong"),
        ),
        ({"name": "", "token": "token"}, UnavailableError, "did not come up"),
        ({"name": "stranger", "token": "token"}, UnavailableError, "did not come up"),
        (
            {"name": "actor", "authority": "theirs", "token": "token"},
            *(UnavailableError, "did not come up"),
        ),
        (None, UnavailableError, "did not come up"),
    ],
    ids=["no token", "wrong token", "no certificate", "stranger", "wrong server", "no TLS"],
)
def test_who_is_not_let_in(files, serve, who, error, words):
    address = serve(read(files, "learner", token="token"))
    with pytest.raises(error, match=words) as raised:
        ask(address, Security() if who is None else read(files, **who))
    assert TOKEN not in str(raised.value)


def test_a_token_without_tls_on_this_machine(files, serve):
    protection = read(files, authority="", token="token")
    address = serve(protection)
    ask(address, protection)
    for other in (Security(), dataclasses.replace(protection, token="x" * 32)):
        with pytest.raises(ConfigurationError, match="the token is missing or wrong"):
            ask(address, other)


def test_health_checks_need_no_token(files, serve):
    address, protection = serve(read(files, "learner", token="token")), read(files, "actor")
    with protection.channel(address, []) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_the_token_does_not_leave_in_the_clear(files):
    open_token = read(files, authority="", token="token")
    elsewhere = Address("10.1.2.3", 8000)
    for call in (
        lambda: open_token.channel(elsewhere, []),
        lambda: open_token.listen(None, Address("0.0.0.0", 8000)),
        lambda: dataclasses.replace(open_token, authority=b"x").listen(None, elsewhere),
        lambda: read(files, "learner", authority="", token="token").channel(elsewhere, []),
    ):
        with pytest.raises(ConfigurationError, match="would travel in the clear"):
            call()
    # Of the environment, it is for those who have TLS.
    assert read(files, authority="", environment={security.TOKEN_VARIABLE: TOKEN}) == Security()
    assert TOKEN not in repr(read(files, "actor", token="token"))


def test_mistakes_are_named(files):
    with pytest.raises(ConfigurationError, match=r"--tls_ca=.*nothing.pem cannot be read: No such"):
        read(files, authority="nothing")
    with pytest.raises(ConfigurationError, match="--tls_certificate and --tls_key belong together"):
        Security.from_files(certificate=str(files / "actor.pem"))
    pair = str(files / "actor.pem"), str(files / "learner.key")
    with pytest.raises(ConfigurationError, match="are no pair of a certificate and its private"):
        Security.from_files(*pair)
    with pytest.raises(ConfigurationError, match=r"--tls_ca=.*token holds no certificates"):
        Security.from_files(authority=str(files / "token"))
    with pytest.raises(ConfigurationError, match="the token has 5 characters; it needs 16"):
        Security(authority=b"x", token="short")
    (files / "empty").write_text("\n")
    with pytest.raises(ConfigurationError, match=r"--token_file=.*empty is empty"):
        read(files, token="empty")


def test_comparison_takes_bytes_and_text():
    protection = Security(authority=b"x", token=TOKEN)
    assert protection.lets_in([("a", "b"), ("authorization", f"Bearer {TOKEN}")])
    assert protection.lets_in([("authorization", f"Bearer {TOKEN}".encode())])
    assert not protection.lets_in([])
    assert not protection.lets_in([("authorization", TOKEN)])
    assert not protection.lets_in([("authorization", "Bearer \u00e9")])
