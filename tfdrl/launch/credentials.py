"""What protects the services of one start of a run: a token and, between machines, certificates.

They are made anew for each start, in the run's directory, for its user alone, and go with it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pathlib
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tfdrl.errors import ConfigurationError
from tfdrl.rpc.security import Security
from tfdrl.topology import Address, Program, Role

TOKEN, DIRECTORY = "token", "credentials"
_TOKEN_BYTES = 32
_DAYS = 365
_OPENSSL_SECS = 60.0


class Credentials(NamedTuple):
    """Files that roles get; empty: none of that kind.

    Attributes:
      token_file: with a secret that all of the run share.
      certificate, key, authority: PEM files of TLS between all of the run.
      is_open: what cannot be, or is not, encrypted may be reached from other machines.
    """

    token_file: str = ""
    certificate: str = ""
    key: str = ""
    authority: str = ""
    is_open: bool = False

    @property
    def security(self) -> Security:
        """Of the launcher's own channels."""
        return Security.from_files(self.certificate, self.key, self.authority, self.token_file)

    def flags(self, program: Program, role: Role) -> list[str]:
        """What a role is told of them."""
        encrypting = {other.name for other in program.roles if other.encrypts}
        uses_them = not encrypting.isdisjoint({role.name, *role.talks_to})
        named = {
            "tls_certificate": self.certificate,
            "tls_key": self.key,
            "tls_ca": self.authority,
            "token_file": self.token_file,
        }
        found = [f"--{name}={file}" for name, file in named.items() if uses_them and file]
        is_bare = role.serves and not (role.encrypts and self.certificate)
        has_cluster = role.clusters and role.replicas > 1
        if self.is_open and (is_bare or has_cluster):
            found.append("--insecure_network")
        return found


@contextlib.contextmanager
def made(
    root_dir: pathlib.Path, hosts: Sequence[str], insecure_network: bool = False
) -> Iterator[Credentials]:
    """Credentials for a run whose services are on `hosts`; they go with it.

    On this machine a token is enough. Between machines it would be read on its way: there are
    certificates, too, or with `insecure_network` nothing.

    Raises ConfigurationError if they cannot be written, or there is no openssl.
    """
    if all(Address(host, 1).is_loopback for host in hosts):
        with token_file(root_dir) as path:
            yield Credentials(str(path))
    elif insecure_network:
        yield Credentials(is_open=True)
    else:
        with _certificates(root_dir, hosts) as credentials:
            yield credentials


@contextlib.contextmanager
def token_file(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file that only this user can read, with a new secret; it goes with the run.

    Raises ConfigurationError if it cannot be written.
    """
    path = directory / TOKEN
    try:
        path.unlink(missing_ok=True)  # of a launcher that was killed
        # O_EXCL follows no link that somebody else has put there.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(file, "w") as opened:
            opened.write(secrets.token_hex(_TOKEN_BYTES))
    except OSError as error:
        raise _cannot_write(path, error) from None
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _certificates(root_dir: pathlib.Path, hosts: Sequence[str]) -> Iterator[Credentials]:
    directory = root_dir / DIRECTORY
    try:
        if directory.is_symlink():
            directory.unlink()
        shutil.rmtree(directory, ignore_errors=True)  # of a launcher that was killed
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise _cannot_write(directory, error) from None
    try:
        with token_file(directory) as token:
            make_certificate(directory, hosts)
            names = [str(directory / name) for name in ("tls.crt", "tls.key", "ca.crt")]
            yield Credentials(str(token), *names, is_open=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def make_certificate(directory: pathlib.Path, hosts: Sequence[str]) -> None:
    """Writes tls.crt and tls.key for all of `hosts`, and ca.crt, the authority that signed it.

    The authority's key is not kept: nobody can sign more for this run.

    Raises ConfigurationError if there is no openssl, or it fails.
    """
    names = ",".join(dict.fromkeys(["DNS:localhost", "IP:127.0.0.1", *map(_name, hosts)]))
    extensions = directory / "extensions"
    extensions.write_text(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    _openssl(
        directory,
        *("req", "-x509", *new_key, "-days", str(_DAYS), "-subj", "/CN=tfdrl run"),
        *("-keyout", "ca.key", "-out", "ca.crt"),
    )
    _openssl(
        directory,
        *("req", *new_key, "-subj", "/CN=tfdrl", "-keyout", "tls.key", "-out", "tls.csr"),
    )
    _openssl(
        directory,
        *("x509", "-req", "-in", "tls.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
        *("-CAcreateserial", "-CAserial", "serial", "-days", str(_DAYS)),
        *("-extfile", "extensions", "-out", "tls.crt"),
    )
    for name in ("ca.key", "tls.csr", "serial", "extensions"):
        (directory / name).unlink()


def _name(host: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        return f"DNS:{host}"


def _openssl(directory: pathlib.Path, *arguments: str) -> None:
    command = ["openssl", *arguments]
    cure = "install openssl, or, in a network that you trust, give --insecure_network"
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_OPENSSL_SECS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"no certificates can be made ({error}): {cure}") from None
    if done.returncode:
        raise ConfigurationError(f"openssl has failed: {done.stderr.strip()[-300:]}: {cure}")


def _cannot_write(path: pathlib.Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{path} cannot be written: {error.strerror}; choose another --root_dir"
    )
