"""The command line of one role's process: fixed flags, and an address for each role it talks to."""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from tfdrl.launch import command_line
from tfdrl.rpc.security import TOKEN_VARIABLE

#: Where serving roles listen without --listen: this port, the next one, ... in program order.
DEFAULT_PORT = 8000


def define(role_name: str) -> flags.FlagValues:
    """The flags of a role's binary; with --role if `role_name` is empty."""
    values = flags.FlagValues()
    if not role_name:
        flags.DEFINE_string("role", "", "Name of the role to run.", flag_values=values)
    command_line.gin_flags(values)
    flags.DEFINE_string(
        "root_dir", "", "Directory of the run: logs, events, checkpoints.", flag_values=values
    )
    flags.DEFINE_integer(
        "task",
        None,
        "Number among the role's replicas (default: 0, or what TF_CONFIG says for --cluster).",
        flag_values=values,
    )
    flags.DEFINE_string(
        "listen",
        "",
        f"host:port to serve on, for a role that serves (default: 127.0.0.1, ports from "
        f"{DEFAULT_PORT} in the program's order).",
        flag_values=values,
    )
    flags.DEFINE_string(
        "cluster",
        "",
        "host:port of each replica, separated by commas, for a role whose replicas talk to each "
        "other: several synchronous learners (default: the platform's TF_CONFIG).",
        flag_values=values,
    )
    flags.DEFINE_string(
        "chief",
        "",
        "host:port of the learner, or coordinator: a replay or a parameter server then ends when "
        "the run is over (default: it serves until it is stopped).",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "insecure_network",
        False,
        "Allow --listen and --cluster beyond this machine without encryption or authentication: "
        "only in a network that you trust.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "tls_certificate",
        "",
        "PEM file: this process's certificate. A role that serves then speaks TLS only.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "tls_key", "", "PEM file: the private key of --tls_certificate.", flag_values=values
    )
    flags.DEFINE_string(
        "tls_ca",
        "",
        "PEM file: who signed the other side's certificate. Roles that connect speak TLS then; a "
        "role that serves asks every client for a certificate (mutual TLS).",
        flag_values=values,
    )
    flags.DEFINE_string(
        "token_file",
        "",
        "File with a secret that both sides share, over TLS or within this machine (default: with "
        f"TLS, {TOKEN_VARIABLE} in the environment; else none).",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "stopped_exit_code",
        0,
        "Exit code where a signal ended the role before the run was over. A Kubernetes Job needs "
        "one other than 0, or it would take a preempted pod for a finished one.",
        lower_bound=0,
        upper_bound=255,
        flag_values=values,
    )
    flags.DEFINE_bool(
        "allow_config_change",
        False,
        "Continue --root_dir with settings that differ from its config.gin: for the learner, or "
        "coordinator, and the evaluator.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "verbose", False, "Show the messages of TensorFlow and other libraries.", flag_values=values
    )
    return values


def addresses(rest: Sequence[str], values: flags.FlagValues) -> dict[str, str]:
    """Reads --learner=host:port, or --learner host:port, for any name of a role.

    Args:
      rest: the arguments that are no flag of `values`.
      values: to find the nearest flag by.

    Raises ConfigurationError for an argument that is no address.
    """
    # Which addresses there are depends on the architecture, so absl cannot know their flags.
    found: dict[str, str] = {}
    position = 0
    while position < len(rest):
        argument = rest[position]
        name, equals, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-"):
            raise command_line.unknown_argument(argument, values)
        if not equals:  # --learner host:port
            position += 1
            value = rest[position] if position < len(rest) else ""
        if ":" not in value:
            raise command_line.unknown_argument(argument, values)
        found[name] = value
        position += 1
    return found
