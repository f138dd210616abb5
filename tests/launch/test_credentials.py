"""What a run's services are protected with: who is told of what, and that it goes with the run."""

import shutil
import subprocess

import pytest

from tfdrl.errors import ConfigurationError
from tfdrl.launch import credentials
from tfdrl.topology import Program, Role

_PROGRAM = Program(
    "any",
    (
        Role("replay", "x:y", serves=True, essential=True),
        Role("learner", "x:y", 2, ("replay",), serves=True, encrypts=True, clusters=True),
        Role("actor", "x:y", 1, ("replay", "learner")),
        Role("cleaner", "x:y", 1, ("replay",)),
    ),
)


def _told(made):
    return {
        role.name: {flag.partition("=")[0] for flag in made.flags(_PROGRAM, role)}
        for role in _PROGRAM.roles
    }


def test_on_one_machine_a_token_is_enough(tmp_path):
    with credentials.made(tmp_path, ["127.0.0.1", "localhost"]) as made:
        assert made.security.token and not made.security.is_given
        token = {"--token_file"}
        assert _told(made) == {"replay": set(), "learner": token, "actor": token, "cleaner": set()}
    assert not list(tmp_path.iterdir())


def test_between_machines_there_are_certificates_for_every_host(tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("no openssl")
    with credentials.made(tmp_path, ["127.0.0.1", "10.0.0.7", "n1.cluster"]) as made:
        directory = tmp_path / "credentials"
        assert directory.stat().st_mode & 0o777 == 0o700
        assert {p.name for p in directory.iterdir()} == {"ca.crt", "tls.crt", "tls.key", "token"}
        assert all(p.stat().st_mode & 0o077 == 0 for p in directory.glob("*.key"))
        assert made.security.can_serve_encrypted and made.security.authority
        command = ["openssl", "verify", "-CAfile", made.authority, "-verify_ip", "10.0.0.7"]
        subprocess.run([*command, made.certificate], check=True, capture_output=True)
        command[-2:] = ["-verify_hostname", "n1.cluster"]
        subprocess.run([*command, made.certificate], check=True, capture_output=True)
        command[-1] = "elsewhere"
        assert subprocess.run([*command, made.certificate], capture_output=True).returncode
        told = _told(made)
        tls = {"--tls_certificate", "--tls_key", "--tls_ca", "--token_file"}
        assert told["actor"] == tls and told["cleaner"] == set()
        assert told["replay"] == {"--insecure_network"}  # Reverb cannot be encrypted
        assert told["learner"] == {*tls, "--insecure_network"}  # nor can collectives
    assert not list(tmp_path.iterdir())


def test_without_them_only_where_that_is_said(tmp_path):
    with credentials.made(tmp_path, ["10.0.0.7"], insecure_network=True) as made:
        assert not made.security.token
        assert _told(made)["learner"] == {"--insecure_network"}
        assert _told(made)["actor"] == set()


def test_without_openssl_the_cure_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"install openssl, or.*--insecure_network"):
        with credentials.made(tmp_path, ["10.0.0.7"]):
            pass
    assert not list(tmp_path.iterdir())
