"""Whether a role is well, for Docker's HEALTHCHECK, Kubernetes' probes and people.

tfdrl's own services answer gRPC's health checks, and say how far they are to who has their token.
Reverb's and TensorFlow's servers do not know
them, and say so: that is an answer too, from a server that is up. A role that serves nothing is
well as long as its process runs. Needs no TensorFlow.
"""

from __future__ import annotations

import os
import pathlib
import time
from typing import NamedTuple

import grpc

from tfdrl.errors import ConfigurationError, TfdrlError, UnavailableError
from tfdrl.launch import panel, process
from tfdrl.launch.status import RunStatus
from tfdrl.rpc import channels
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.rpc.security import Security
from tfdrl.topology import Address

_METHOD = "/grpc.health.v1.Health/Check"
_SERVING = b"\x08\x01"  # HealthCheckResponse: field 1, SERVING
_MAX_BYTES = 1 << 16
#: Of /proc/PID/stat, counted from the state: starttime, in clock ticks after the boot.
_START_FIELD = 19
_FLAGS = ("role", "task", "listen", "tls_certificate", "tls_key", "tls_ca", "token_file")
_EVERYWHERE = {"0.0.0.0": "localhost", "::": "localhost"}


class Flags(NamedTuple):
    """What a role's process was told by its command line; empty: nothing."""

    role: str = ""
    task: str = ""
    listen: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    token_file: str = ""

    @property
    def name(self) -> str:
        """Of the role, with its number; "" of one whose program says it all."""
        return f"{self.role} {self.task}".strip()


def check(address: Address, security: Security, timeout_secs: float) -> str:
    """Asks a server how it is; returns the answer in words: "serves: learner step 7, ...".

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
    words = progress(address, security, timeout_secs)
    return f"serves: {words}" if words else "serves"


def progress(address: Address, security: Security, timeout_secs: float) -> str:
    """How far the run of a learner, or coordinator, is, and who waits; "" if it does not tell."""
    client = TrainingClient(
        address, experiment="", role="health", task=0, run_id=0, security=security
    )
    try:
        status = client.status(timeout_secs=timeout_secs)
    except TfdrlError:  # another kind of service, or a token that we do not have
        return ""
    finally:
        client.close()
    waiting = panel.waiting(RunStatus(status=status))
    parts = [
        status.doing,
        f"learner step {status.learner_step:,}",
        f"{status.frames:,} frames",
        f"up {panel.duration(status.uptime_secs)}",
        f"waiting: {waiting}" if waiting else "",
    ]
    return ", ".join(filter(None, parts))


def check_process(pid: int, proc: pathlib.Path = pathlib.Path("/proc")) -> str:
    """Looks whether a process runs; returns its state in words: "runs, up 0:01:07".

    Raises:
      UnavailableError: it is stopped, a zombie, or not there.
    """
    try:
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        raise UnavailableError(f"there is no process {pid}") from None
    if fields[0] in "TtZX":
        raise UnavailableError(f"process {pid} does not run (state {fields[0]})")
    start_secs = int(fields[_START_FIELD]) / os.sysconf("SC_CLK_TCK")
    return f"runs, up {panel.duration(time.clock_gettime(time.CLOCK_BOOTTIME) - start_secs)}"


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
        return f"{flags.name} {process_state}".strip()
    if flags.tls_certificate and not flags.tls_ca:
        raise ConfigurationError(
            f"process {pid} serves with TLS and has no --tls_ca; give this command --tls_ca"
        )
    security = Security.from_files(
        flags.tls_certificate, flags.tls_key, flags.tls_ca, flags.token_file, environment={}
    )
    return f"{flags.name} {check(address_of(flags.listen), security, timeout_secs)}".strip()
