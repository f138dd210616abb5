"""Which node each process of a program belongs on: what roles want, and what nodes have. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tfdrl.errors import ConfigurationError
from tfdrl.topology import Program, Resources, Role

_UNITS = {"": 1, "M": 1, "G": 1 << 10, "T": 1 << 20}
_EXAMPLE = "write it as learner=gpu:1,cpu:8,memory:16G or parameter_server=apart:1"
_MOST_NODES_NAMED = 8


class Node(NamedTuple):
    """A machine, and what of it processes may have.

    Attributes:
      name: by which the launcher knows it.
      host: by which other nodes reach it.
      cpus, gpus, memory_mb: None: they are shared by all, and not counted.
    """

    name: str
    host: str
    cpus: int | None = None
    gpus: int | None = None
    memory_mb: int | None = None


#: Of each replica of each role, by the role's name.
Placement = Mapping[str, Sequence[Node]]


def parse(
    texts: Iterable[str], program: Program, nodes: Sequence[Node] = ()
) -> dict[str, Resources]:
    """Reads "learner=gpu:1,cpu:8", for any role of the program; the other roles have their own.

    Where nodes have GPUs to give, each process that sees GPUs gets one if nothing else is said.

    Raises ConfigurationError for another form, an unknown role or resource, or GPUs for a role that
    sees none.
    """
    there_are_gpus = any(node.gpus for node in nodes)
    found = {role.name: role.resources(there_are_gpus) for role in program.roles}
    for text in texts:
        name, equals, amounts = text.partition("=")
        if not equals:
            raise ConfigurationError(f"--resources={text!r}: {_EXAMPLE}")
        try:
            role = program.role(name)
        except ConfigurationError as error:
            raise ConfigurationError(f"--resources={text!r}: {error}") from None
        for amount in amounts.split(","):
            found[name] = found[name]._replace(**_amount(amount, text))
        if found[name].gpus and role.devices != "GPU":
            raise ConfigurationError(
                f"--resources={text!r}: {name} sees no GPUs (the architecture's gpu_roles says "
                "which roles do)"
            )
    return found


def _amount(amount: str, text: str) -> dict[str, int | bool]:
    kind, _, value = amount.partition(":")
    matched = re.fullmatch(r"(\d+)([MGT]?)", value)
    if kind == "memory" and matched:
        return {"memory_mb": int(matched[1]) * _UNITS[matched[2]]}
    if kind in ("cpu", "gpu") and value.isdigit():
        return {f"{kind}s": int(value)}
    if kind == "apart" and value in ("0", "1"):
        return {"apart": value == "1"}
    raise ConfigurationError(f"--resources={text!r}: {amount!r} is no amount; {_EXAMPLE}")


def place(program: Program, wanted: Mapping[str, Resources], nodes: Sequence[Node]) -> Placement:
    """A node for every process.

    Who wants GPUs has the first choice, then the chief and the other essential roles: these go
    where the chief's replica of their number is, since most of the traffic is between them. All
    others are spread over the cores that are left.

    Args:
      program: whose processes they are.
      wanted: what a replica of each role wants, by the role's name.
      nodes: what there is, at least one.

    Raises:
      ConfigurationError: something does not fit; says what is wanted and what there is.
    """
    _check_sums(program, wanted, nodes)
    left = {node.name: node for node in nodes}
    placed: dict[str, list[Node]] = {}
    for role in sorted(program.roles, key=lambda role: _rank(program, role, wanted[role.name])):
        placed[role.name] = []
        for task in range(role.replicas):
            near = placed.get(program.chief, []) if role.essential else []
            wish = near[task % len(near)].name if near else ""
            taken = {node.name for node in placed[role.name]}
            name = _choose(role, task, wanted[role.name], left, taken, wish)
            left[name] = _without(left[name], wanted[role.name])
            placed[role.name].append(next(node for node in nodes if node.name == name))
    return placed


def by_node(program: Program, placed: Placement) -> list[str]:
    """A line for each node: who is there."""
    found: dict[str, list[str]] = {}
    for role in program.roles:
        for name, count in Counter(node.name for node in placed[role.name]).items():
            found.setdefault(name, []).append(role.name if count == 1 else f"{count} {role.name}")
    return [f"  node {name}: {', '.join(words)}" for name, words in found.items()]


def replace(
    role: Role, task: int, wanted: Mapping[str, Resources], placed: Placement, alive: Sequence[Node]
) -> Node:
    """A node for a replica whose own is gone, among those that are left.

    Raises ConfigurationError if it fits on none of them.
    """
    left = {node.name: node for node in alive}
    for name, there in placed.items():
        for number, node in enumerate(there):
            if node.name in left and (name, number) != (role.name, task):
                left[node.name] = _without(left[node.name], wanted[name])
    taken = {node.name for number, node in enumerate(placed[role.name]) if number != task}
    chosen = _choose(role, task, wanted[role.name], left, taken, "")
    return next(node for node in alive if node.name == chosen)


def _rank(program: Program, role: Role, wants: Resources) -> tuple:
    return -wants.gpus, role.name != program.chief, not role.essential


def _choose(
    role: Role,
    task: int,
    wants: Resources,
    left: Mapping[str, Node],
    taken: Iterable[str],
    wish: str,
) -> str:
    fitting = [
        node
        for node in left.values()
        if _fits(node, wants) and not (wants.apart and node.name in taken)
    ]
    if not fitting:
        has = ", ".join(f"{n.name} {_words(n.cpus, n.gpus, n.memory_mb)}" for n in left.values())
        on = "a node of its own with " if wants.apart else ""
        words = on + _words(wants.cpus, wants.gpus, wants.memory_mb)
        raise ConfigurationError(
            f"{role.name} {task} wants {words}, and no node has that left ({has}); ask for larger "
            f"nodes, or give it less with --resources={role.name}=cpu:..."
        )
    if wish in [node.name for node in fitting]:
        return wish
    return max(fitting, key=lambda node: node.cpus or 0).name  # the first of equals


def _fits(node: Node, wants: Resources) -> bool:
    pairs = ((wants.cpus, node.cpus), (wants.gpus, node.gpus), (wants.memory_mb, node.memory_mb))
    return all(there is None or amount <= there for amount, there in pairs)


def _without(node: Node, wants: Resources) -> Node:
    def less(there: int | None, amount: int) -> int | None:
        return None if there is None else there - amount

    return node._replace(
        cpus=less(node.cpus, wants.cpus),
        gpus=less(node.gpus, wants.gpus),
        memory_mb=less(node.memory_mb, wants.memory_mb),
    )


def _check_sums(program: Program, wanted: Mapping[str, Resources], nodes: Sequence[Node]) -> None:
    for field, unit, flag in (
        ("cpus", "core", "cpu"),
        ("gpus", "GPU", "gpu"),
        ("memory_mb", "MB", "memory"),
    ):
        there = [getattr(node, field) for node in nodes]
        if None in there:
            continue
        each = {role: getattr(wanted[role.name], field) for role in program.roles}
        amounts = {role: role.replicas * amount for role, amount in each.items() if amount}
        if sum(amounts.values()) <= sum(there):
            continue
        words = ", ".join(
            f"{role.replicas} {role.name}{'s' * (role.replicas > 1)} "
            f"want{'s' * (role.replicas == 1)} {_count(amount, unit)}"
            for role, amount in amounts.items()
        )
        raise ConfigurationError(
            f"{words}, in all {_count(sum(amounts.values()), unit)}; the allocation has "
            f"{sum(there)} ({_nodes(nodes, there)}): ask for more, start fewer, or give some less, "
            f"as with --resources={next(iter(amounts)).name}={flag}:0"
        )


def _nodes(nodes: Sequence[Node], amounts: Sequence[int]) -> str:
    named = [f"{node.name}: {n}" for node, n in zip(nodes[:_MOST_NODES_NAMED], amounts)]
    return ", ".join(named + ["..."] * (len(nodes) > _MOST_NODES_NAMED))


def _count(amount: int, unit: str) -> str:
    return f"{amount} {unit}{'s' * (amount != 1 and unit != 'MB')}"


def _words(cpus: int | None, gpus: int | None, memory_mb: int | None) -> str:
    parts = [_count(cpus, "core")] if cpus is not None else []
    parts += [_count(gpus, "GPU")] if gpus else []
    parts += [_count(memory_mb, "MB")] if memory_mb else []
    return " and ".join(parts)
