"""Where a role listens, and where those are that it talks to: from its command line."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from tfdrl.errors import ConfigurationError
from tfdrl.launch import command_line, role_flags
from tfdrl.rpc import security
from tfdrl.topology import Address, Addresses, Context, Program, Role

_LOG = logging.getLogger(__name__)


def check_listen(
    role: Role, context: Context, insecure_network: bool, speaks_tls: bool = False
) -> None:
    """Raises ConfigurationError if others could reach what is not encrypted and may not be.

    Args:
      role: that listens, if it serves.
      context: of the role.
      insecure_network: others may reach it all the same.
      speaks_tls: certificates and token are also for somebody whom it asks.
    """
    if role.serves and not (role.encrypts or speaks_tls) and security.of(context).is_given:
        raise ConfigurationError(
            f"--tls_certificate, --tls_ca: what {role.name} serves cannot be encrypted; leave them "
            "out, and let nobody but the other roles reach its port"
        )
    if context.listen is None or context.listen.is_loopback:
        return
    security.of(context).check_listener(context.listen)
    if role.encrypts and security.of(context).can_serve_encrypted:
        return
    if not insecure_network:
        cure = "give --tls_certificate and --tls_key, or, " if role.encrypts else ""
        raise ConfigurationError(
            f"--listen={context.listen} can be reached from other machines, without encryption or "
            f"authentication; {cure}if the network is trusted, add --insecure_network"
        )
    if role.encrypts:  # the others, which cannot, warn by themselves
        _LOG.warning(
            "%s listens on %s without encryption or authentication (--insecure_network): who "
            "reaches that port can read the parameters and report false results; let only this "
            "run's hosts, or give it --tls_certificate, --tls_key, --tls_ca and --token_file",
            role.name,
            context.listen,
        )


def address_to_listen_at(program: Program, role: Role, task: int, listen: str) -> Address | None:
    """The address of --listen, or a free-standing default that the role prints; None: no server."""
    if not role.serves:
        if listen:
            raise ConfigurationError(f"--listen={listen}: {role.name} serves nothing; leave it out")
        return None
    if listen:
        return Address.parse(listen, "listen")
    port = role_flags.DEFAULT_PORT + task
    for other in program.roles[: program.roles.index(role)]:
        port += other.replicas if other.serves else 0
    address = Address("127.0.0.1", port)
    print(f"{role.name} {task} listens on {address} (--listen changes it)", flush=True)
    return address


def chief_to_watch(program: Program, role: Role, chief: str) -> Address | None:
    """The address of --chief. Raises ConfigurationError for a role that ends by itself."""
    if not chief:
        return None
    if not ends_after_chief(program, role):
        raise ConfigurationError(
            f"--chief={chief}: {role.name} ends with the run by itself; leave it out"
        )
    return Address.parse(chief, "chief")


def ends_after_chief(program: Program, role: Role) -> bool:
    """Whether the role serves, and would not know by itself that the run is over."""
    return role.serves and role.name != program.chief


def resolve_addresses(
    program: Program, role: Role, addresses: Mapping[str, str]
) -> dict[str, Addresses]:
    """Parses the address of every role that `role` talks to.

    Returns one Address by name, or a tuple of them where that role has several replicas.

    Raises:
      ConfigurationError: a flag is missing, is not a list of as many addresses as there are
        replicas, or names a role that `role` does not talk to.
    """
    for name in addresses:
        if name not in role.talks_to:
            talks_to = ", ".join(role.talks_to) or "nobody"
            explanation = f" for {role.name}, which talks to: {talks_to}"
            raise command_line.unknown_argument(f"--{name}", role.talks_to, explanation)
    resolved: dict[str, Addresses] = {}
    for name in role.talks_to:
        replicas = program.role(name).replicas
        if not addresses.get(name):
            raise ConfigurationError(
                f"--{name} is missing; {role.name} talks to {name}: give its host:port"
            )
        found = tuple(Address.parse(text.strip(), name) for text in addresses[name].split(","))
        if len(found) != replicas:
            raise ConfigurationError(
                f"--{name}={addresses[name]} has {len(found)} addresses; the gin file asks for "
                f"{replicas} {name} processes: give one for each, separated by commas"
            )
        resolved[name] = found[0] if replicas == 1 else found
    return resolved
