"""Processors, memory, disk and nodes of roles, as flags give them to Kubernetes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tfdrl.errors import ConfigurationError
from tfdrl.topology import Program, Role


def amounts(flag: str, text: str, program: Program) -> dict[str, str]:
    """Reads "2Gi" or "2Gi,replay=64Gi": for every role, and for some of them.

    Raises ConfigurationError, which names `flag`, for another form or for an unknown role.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, amount = part.strip().rpartition("=")
        if not amount or (equals and not name) or name in found:
            raise ConfigurationError(
                f"--{flag}={text!r}: write an amount for every role, and then, where others are "
                "wanted, role=amount, such as 2Gi,replay=64Gi"
            )
        if name:
            require_role(program, name, flag)
        found[name] = amount
    if "" not in found:
        raise ConfigurationError(f"--{flag}={text!r}: begin with the amount for all other roles")
    return found


#: A label of Kubernetes: an optional domain, a name, and a value that may be empty.
_PART = r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_LABEL = re.compile(rf"((?P<role>[a-z_]+):)?(?P<key>([-.a-z0-9]+/)?{_PART})=(?P<value>({_PART})?)")


def node_labels(texts: Sequence[str], program: Program) -> dict[str, dict[str, str]]:
    """Reads "pool=cpu" and "learner:pool=gpu": labels of the nodes, by role; "" for all of them.

    Raises ConfigurationError for what is no label, or of an unknown role.
    """
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        label = _LABEL.fullmatch(text)
        if not label:
            raise ConfigurationError(
                f"--node_selector={text!r} is no label; write key=value for the nodes of all "
                "roles, or role:key=value, such as learner:example.com/accelerator=h100"
            )
        role = label["role"] or ""
        if role:
            require_role(program, role, "node_selector")
        found.setdefault(role, {})[label["key"]] = label["value"]
    return found


def require_role(program: Program, name: str, flag: str) -> None:
    """Raises ConfigurationError, with the roles there are, if the program has none of that name."""
    try:
        program.role(name)
    except ConfigurationError as error:
        raise ConfigurationError(f"--{flag}: {error}") from None


def doubled(amount: str) -> str:
    """Twice the amount: "4Gi" of "2Gi". Of what is no amount, Kubernetes says so."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", amount)
    return f"{2 * float(found[1]):.15g}{found[2]}" if found else amount


def amount_of(by_role: Mapping[str, str], role: Role) -> str:
    """The amount of a role, or the one of all roles."""
    return by_role.get(role.name, by_role[""])
