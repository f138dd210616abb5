"""Says whether a role is well; the exit code is 0 if it is, else 1."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

from tfdrl.errors import EXIT_OK
from tfdrl.launch import command_line, process
from tfdrl.launch.tools import health
from tfdrl.rpc.security import Security

_USAGE = """Says whether a role is well; exits 0 if it is, 1 if it is not.

  tfdrl-health                            the role that is process 1 of this container
  tfdrl-health --address=learner:8000     a role somewhere else

A role that serves is asked, by gRPC's health check, and a learner or coordinator how far it is; of
one that serves nothing the process is looked at. In a container, address, TLS and token are what
the role's own command line says."""


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("address", "", "host:port of the role to ask.", flag_values=values)
    flags.DEFINE_integer("pid", 1, "Process to look at, without --address.", flag_values=values)
    command_line.float_flag(values, "timeout_secs", 3.0, "Time for the answer.", lowest=0.1)
    for name, about in (
        ("tls_certificate", "PEM file: a certificate of ours, where the role asks for one."),
        ("tls_key", "PEM file: its private key."),
        ("tls_ca", "PEM file: who signed the role's certificate."),
        ("token_file", "File with the run's token: a learner then says how far it is, too."),
    ):
        flags.DEFINE_string(name, "", about, flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first), asks and prints the answer; returns the exit code."""
    process.silence()
    values = _flags()
    command_line.parse(values, argv, _USAGE)
    if values.address:
        files = (values.tls_certificate, values.tls_key, values.tls_ca, values.token_file)
        security = Security.from_files(*files)
        address = health.address_of(values.address, "address")
        print(health.check(address, security, values.timeout_secs))
    else:
        print(health.check_role(values.pid, values.timeout_secs))
    return EXIT_OK


def console() -> None:
    """Entry point of the console script."""
    sys.exit(command_line.run("tfdrl health", main, sys.argv))


if __name__ == "__main__":
    console()
