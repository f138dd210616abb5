"""Certificates for tests, made by openssl."""

import pathlib
import subprocess

TOKEN = "0123456789abcdef0123456789abcdef"


def make_authority(directory: pathlib.Path, name: str) -> None:
    """NAME.pem and NAME.key: signs others."""
    _openssl(
        directory,
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
        *("-keyout", f"{name}.key", "-out", f"{name}.pem"),
    )


def make_certificate(directory: pathlib.Path, name: str, authority: str) -> None:
    """NAME.pem and NAME.key for this host, signed by an authority."""
    (directory / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    _openssl(
        directory,
        *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
        *("-keyout", f"{name}.key", "-out", f"{name}.csr"),
    )
    _openssl(
        directory,
        *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-days", "2"),
        *("-CAkey", f"{authority}.key", "-CAcreateserial", "-extfile", "san"),
        *("-out", f"{name}.pem"),
    )


def make_all(directory: pathlib.Path) -> None:
    """ours.pem signed learner and actor, theirs.pem signed stranger; token is a file."""
    for authority in ("ours", "theirs"):
        make_authority(directory, authority)
    make_certificate(directory, "learner", "ours")
    make_certificate(directory, "actor", "ours")
    make_certificate(directory, "stranger", "theirs")
    (directory / "token").write_text(TOKEN + "\n")


def flags(directory: pathlib.Path, name: str) -> list[str]:
    """What a role is started with."""
    return [
        f"--tls_certificate={directory}/{name}.pem",
        f"--tls_key={directory}/{name}.key",
        f"--tls_ca={directory}/ours.pem",
        f"--token_file={directory}/token",
    ]


def _openssl(directory: pathlib.Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)
