"""Whether a role is well, for Docker's HEALTHCHECK, Kubernetes' probes and people.

tfdrl's own services answer gRPC's health checks. Reverb's and TensorFlow's servers do not know
them, and say so: that is an answer too, from a server that is up. A role that serves nothing is
well as long as its process runs. Needs no TensorFlow.
"""

from __future__ import annotations

import pathlib
from typing import NamedTuple

import grpc

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.launch import process
from tfdrl.rpc import channels
from tfdrl.rpc.security import Security
from tfdrl.topology import Address

_METHOD = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"  # HealthCheckResponse: field 1, SERVING
_MAX_BYTES = 1 << 16
_FLAGS = ("listen", "tls_certificate", "tls_key", "tls_ca")
_EVERYWHERE = {"0.0.0.0": "localhost", "::": "localhost"}


class Flags(NamedTuple):
    """What a role's process was told by its command line; empty: nothing."""

    listen: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    tls_ca: str = ""


def check(address: Address, security: Security, timeout_secs: float) -> str:
    """Asks a server how it is; returns the answer in words.

    Raises:
      UnavailableError: no answer in time, or that it is not well.
    """
    channel = security.channel(address, channels.channel_options(_MAX_BYTES, _MAX_BYTES))
    try:
        answer = channel.unary_unary(_METHOD)(b"", timeout=timeout_secs, wait_for_ready=True)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return "serves, without health checks"
        raise UnavailableError(
            f"no answer from {address} within {timeout_secs:g} s: {error.code().name}: "
            f"{error.details()}"
        ) from None
    finally:
        security.close(channel)
    if answer != _SERVING:
        raise UnavailableError(f"{address} says that it does not serve")
    return "serves"


def check_process(pid: int, proc: pathlib.Path = pathlib.Path("/proc")) -> str:
    """Looks whether a process runs; returns its state in words.

    Raises:
      UnavailableError: it is stopped, a zombie, or not there.
    """
    try:
        state = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        raise UnavailableError(f"there is no process {pid}") from None
    if state in "TtZX":
        raise UnavailableError(f"process {pid} does not run (state {state})")
    return "runs"


def flags_of(pid: int, proc: pathlib.Path = pathlib.Path("/proc")) -> Flags:
    """Reads the command line of a role's process, such as --listen=0.0.0.0:8000.

    Raises:
      UnavailableError: there is no such process.
    """
    try:
        words = process.arguments_of(pid, proc)
    except OSError:
        raise UnavailableError(f"there is no process {pid}") from None
    found = {}
    for word, after in zip(words, [*words[1:], ""]):
        name, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name in _FLAGS:
            found[name] = value if equals else after
    return Flags(**found)


def address_of(text: str, flag: str = "listen") -> Address:
    """Where to ask somebody who listens at `text`, the value of a flag.

    Raises ConfigurationError for no address.
    """
    address = Address.parse(text, flag)
    return Address(_EVERYWHERE.get(address.host, address.host), address.port)


def check_role(pid: int, timeout_secs: float, proc: pathlib.Path = pathlib.Path("/proc")) -> str:
    """Checks the role that runs as process `pid`, by what its command line says.

    Raises:
      UnavailableError: it is not well.
      ConfigurationError: files of its TLS cannot be read, or its --listen is no address.
    """
    process_state, flags = check_process(pid, proc), flags_of(pid, proc)
    if not flags.listen:
        return process_state
    if flags.tls_certificate and not flags.tls_ca:
        raise ConfigurationError(
            f"process {pid} serves with TLS and has no --tls_ca; give this command --tls_ca"
        )
    security = Security.from_files(
        flags.tls_certificate, flags.tls_key, flags.tls_ca, environment={}
    )
    return check(address_of(flags.listen), security, timeout_secs)
