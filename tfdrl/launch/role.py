"""Runs one role in this process: `python -m tfdrl.launch.role --role=actor --task=3 ...`.

The local launcher starts its processes with this module, and the single-role binaries are this
module with the role's name fixed.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pathlib
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tfdrl.errors import EXIT_FAILED, EXIT_OK, ConfigurationError, TfdrlError
from tfdrl.launch import (
    command_line,
    gpus,
    open_files,
    priority,
    process,
    role_flags,
    run_directory,
)
from tfdrl.launch.cluster import membership as clusters
from tfdrl.launch.role_addresses import (
    address_to_listen_at,
    check_listen,
    chief_to_watch,
    resolve_addresses,
)
from tfdrl.launch.thread_names import show_thread_names
from tfdrl.rpc import channels, run_end, security, usage_log
from tfdrl.runtime import locks
from tfdrl.runtime.free_memory import give_back_free_memory
from tfdrl.runtime.user_frames import own_frame
from tfdrl.topology import Addresses, Context, Program, Role, each_of

_LOG = logging.getLogger(__name__)

_USAGE = """Runs one role of a program; start one process for each replica of each role.

  python -m tfdrl.launch.role --role=actor --task=3 --gin_file=apex/cartpole.gin \\
      --replay=host:8000 --learner=host:8001 --root_dir=/runs/a

Every role of one run needs the same --gin_file and --gin_bindings. The address of each role
that this one talks to is a flag with that role's name: --learner=host:port,
--replay=host:port, --parameter_server=host:port,host:port (one for each replica)."""


def run_role(
    role_name: str,
    *,
    gin_files: Sequence[str],
    gin_bindings: Sequence[str] = (),
    root_dir: str = "",
    task: int | None = None,
    listen: str = "",
    cluster: str = "",
    addresses: Mapping[str, str] | None = None,
    chief: str = "",
    insecure_network: bool = False,
    protection: security.Security = security.Security(),  # noqa: B008  (immutable)
    stopped_exit_code: int = EXIT_OK,
    allow_config_change: bool = False,
    verbose: bool = False,
) -> int:
    """Configures this process as one role and runs it to its end.

    Args:
      role_name: a role of the configured architecture.
      gin_files: names or paths.
      gin_bindings: settings that override the files'.
      root_dir: where the run leaves its files.
      task: number among the role's replicas; None for 0, or as TF_CONFIG says.
      listen: "host:port" of a serving role; loopback and a fixed port if empty.
      cluster: "host:port,host:port", one for each replica of a role that clusters.
      addresses: "host:port" by name of the role there; comma-separated for several replicas.
      chief: "host:port" of the learner, or coordinator, after which a serving role ends; empty:
        it serves until a signal stops it.
      insecure_network: allows `listen` and `cluster` to be reachable from other machines,
        without TLS.
      protection: TLS and token of this process's own services and channels.
      stopped_exit_code: in place of 0 where a signal ended the role, not the run.
      allow_config_change: continues a root_dir with settings that differ from its config.gin.
      verbose: keeps TensorFlow's and other libraries' messages.

    Returns the exit code (tfdrl.errors). Failures are printed on stderr.
    """
    try:
        process.leave_on_signals(stopped_exit_code)
        process.die_with_launcher()
        show_thread_names()
        give_back_free_memory()
        if not verbose:
            process.silence()
        _start_log()
        place = functools.partial(
            clusters.membership,
            task=task,
            flag=cluster,
            environment=os.environ,
            insecure_network=insecure_network,
        )
        configured = _configure(
            role_name, gin_files, gin_bindings, root_dir, place, listen, dict(addresses or {})
        )
        role, context = configured.role, configured.context
        context.security = protection
        ends_after = chief_to_watch(configured.program, role, chief)
        check_listen(role, context, insecure_network, speaks_tls=ends_after is not None)
        peers = [ends_after] * (ends_after is not None)
        for name, there in configured.addresses.items():
            if configured.program.role(name).encrypts:
                peers += each_of(there)
        for address in peers:
            protection.check_peer(address)
        channels.reach_directly([*_hosts(configured.addresses), *(peer.host for peer in peers)])
        _make_directory(context.root_dir)
        _keep_configuration(configured, allow_config_change)
        process.stop_on_signals(context.told, context.stop)  # who sees the second sees the first
        begins = "%s %d begins, after %.2f CPU seconds of its process"
        _LOG.info(begins, role.name, context.task, time.process_time())
        with usage_log.kept(context, configured.addresses), run_end.stops(context, ends_after):
            code = call(role, configured.experiment, context, configured.addresses)
        return stopped_exit_code if code == EXIT_OK and context.told.is_set() else code
    except TfdrlError as error:
        print(f"tfdrl {role_name}: {error}", file=sys.stderr)
        return error.exit_code


def call(
    role: Role, experiment: object, context: Context, addresses: Mapping[str, Addresses]
) -> int:
    """Calls the role's function; returns the exit code. Raises TfdrlError as the role did."""
    try:
        code = role.load()(experiment, context, **addresses)
    except TfdrlError:
        raise
    except SystemExit as error:
        if error.code in (None, EXIT_OK) and context.stop.is_set():
            return EXIT_OK
        called = (
            f"sys.exit({error.code!r}) was called (at {own_frame(error) or 'no line of yours'})"
        )
        raise TfdrlError(called) from error
    except BaseException as error:
        frame, advice = own_frame(error), gpus.words_of_full_memory(error)
        text = str(error).strip().partition("\n")[0]
        words = f"{type(error).__name__}: {text} (at {frame})"
        if frame:  # the traceback has many others
            print(words, file=sys.stderr)
        traceback.print_exc()
        if frame or advice:
            print(f"tfdrl {role.name}: {advice or words}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK if code is None else int(code)


class _Configured(NamedTuple):
    program: Program
    role: Role
    experiment: object
    context: Context
    addresses: dict[str, Addresses]
    text: str  # of the configuration


def _configure(
    role_name: str,
    gin_files: Sequence[str],
    gin_bindings: Sequence[str],
    root_dir: str,
    place: Callable[[Role], clusters.Membership],
    listen: str,
    addresses: dict[str, str],
) -> _Configured:
    from tfdrl import configuration
    from tfdrl.experiment import Experiment

    if not gin_files:
        raise ConfigurationError("--gin_file is missing; every role needs the run's gin file")
    gin_files, gin_bindings = list(gin_files), list(gin_bindings)
    # Twice: settings and flags are checked, in a second, before TensorFlow is loaded, in ten.
    loaded = configuration.load(gin_files, gin_bindings, tensorflow=False)
    program = Experiment.from_gin().architecture.program()
    role = program.role(role_name)
    context = _context(program, role, place(role), root_dir, listen, loaded.digest)
    resolved = resolve_addresses(program, role, addresses)
    open_files.raise_limit()
    open_files.check_connections(program, role)
    process.limit_threads(role.threads)
    gpus.see(role.devices)
    priority.lower(role.niceness)
    if role.needs_tensorflow:
        run_directory.check_temporary_directory()
        configuration.load(gin_files, gin_bindings, tensorflow=True)
    return _Configured(program, role, Experiment.from_gin(), context, resolved, loaded.text)


def _context(
    program: Program,
    role: Role,
    place: clusters.Membership,
    root_dir: str,
    listen: str,
    experiment: str,
) -> Context:
    task = place.task
    if not root_dir:
        raise ConfigurationError(
            f"--root_dir is missing; {role.name} leaves its logs and events there"
        )
    if not 0 <= task < role.replicas:
        raise ConfigurationError(
            f"--task={task}; the gin file asks for {role.replicas} {role.name} processes, "
            f"so it must be between 0 and {role.replicas - 1}"
        )
    return Context(
        role=role.name,
        task=task,
        replicas=role.replicas,
        root_dir=pathlib.Path(root_dir),
        listen=address_to_listen_at(program, role, task, listen),
        cluster=place.addresses,
        experiment=experiment,
    )


def _keep_configuration(configured: _Configured, allow_change: bool) -> None:
    """Where the role's root_dir has what tfdrl-evaluate reads; never that of a run under way."""
    role, context = configured.role, configured.context
    is_chief = role.name == configured.program.chief
    with contextlib.ExitStack() as held:
        if is_chief and context.task == 0:
            held.enter_context(locks.lock(context.root_dir, "learner"))
        if is_chief or role.exports:
            run_directory.keep_configuration(context.root_dir, configured.text, allow_change)


def _hosts(addresses: Mapping[str, Addresses]) -> list[str]:
    return [address.host for there in addresses.values() for address in each_of(there)]


def _make_directory(root_dir: pathlib.Path) -> None:
    run_directory.check_name(root_dir)
    try:
        root_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"--root_dir={root_dir} cannot be made: {error.strerror}; choose a directory that can"
        ) from None


def _start_log() -> None:
    form = "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stderr)


def main(argv: Sequence[str], role_name: str = "") -> int:
    """Parses `argv` (program name first) and runs the role; returns the exit code."""
    values = role_flags.define(role_name)
    usage = _USAGE if not role_name else f"Runs the {role_name} of a program, alone.\n\n{_USAGE}"
    rest = command_line.parse(values, argv, usage, allow_unknown=True)
    name = role_name or values.role
    if not name:
        raise ConfigurationError("--role is missing; give the name of the role to run")
    return run_role(
        name,
        gin_files=values.gin_file,
        gin_bindings=values.gin_bindings,
        root_dir=values.root_dir,
        task=values.task,
        listen=values.listen,
        cluster=values.cluster,
        addresses=role_flags.addresses(rest, values),
        chief=values.chief,
        insecure_network=values.insecure_network,
        protection=security.Security.from_files(
            values.tls_certificate, values.tls_key, values.tls_ca, values.token_file
        ),
        stopped_exit_code=values.stopped_exit_code,
        allow_config_change=values.allow_config_change,
        verbose=values.verbose,
    )


def console(role_name: str = "") -> None:
    """Entry point of a process: runs the role and ends the process with its exit code."""
    program = f"tfdrl {role_name}".strip()
    process.fail_on_exit(program)
    try:
        code = command_line.run(program, lambda argv: main(argv, role_name), sys.argv)
    except SystemExit as error:  # --help
        code = process.exit_code_of(error)
    process.leave(code)


if __name__ == "__main__":
    console()
