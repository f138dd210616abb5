"""The machines of a plan: "1 x learner: 16 cores, H200; 40 x actor: 32 cores; network 10 Gbit/s".

Each group is `COUNT x ROLE`, then what one of its machines has: cores, processes of the role (else
one for each of its threads' cores), a device (any other word: H200, "8 TPU v3"), a price per
hour. A role without machines of its own is on the first group's, which may be called `all`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tfdrl.errors import ConfigurationError
from tfdrl.planning import amounts
from tfdrl.topology import Program, Role

ALL = "all"
_EXAMPLE = "write it as '1 x learner: 16 cores, H200; 40 x actor: 32 cores; network 10 Gbit/s'"


class Group(NamedTuple):
    """Machines that are alike.

    Attributes:
      role: whose processes they have, or "all".
      count: how many.
      cores: of each.
      device: an accelerator of each, in words; None: none.
      devices: how many of it each has.
      processes: of the role on each; None: as many as fit.
      dollars_per_hour: price of each.
    """

    role: str
    count: int
    cores: int
    device: str | None = None
    devices: int = 1
    processes: int | None = None
    dollars_per_hour: float | None = None

    def holds(self, role: Role) -> int:
        """Processes of the role on each machine, where the machines decide how many there are."""
        return self.processes or max(self.cores // max(role.threads, 1), 1)


class Machines(NamedTuple):
    """All groups, and the link of each machine, of each direction; None: it limits nobody."""

    groups: tuple[Group, ...]
    bytes_per_second: float | None = None

    def of(self, role: str) -> Group:
        """Where a role is."""
        return next((group for group in self.groups if group.role == role), self.groups[0])

    def with_count(self, role: str, count: int) -> Machines:
        """The same with another number of one kind."""
        changed = (g._replace(count=count) if g.role == role else g for g in self.groups)
        return self._replace(groups=tuple(changed))

    @property
    def dollars_per_hour(self) -> float | None:
        """Of all; None unless all have a price."""
        prices = [group.dollars_per_hour for group in self.groups]
        if None in prices:
            return None
        return sum(group.count * group.dollars_per_hour for group in self.groups)


def parse(text: str, program: Program) -> Machines:
    """Reads machines for a program.

    Raises:
      ConfigurationError: another form, an unknown role or unit, a role that does not fit.
    """
    groups, speed = [], None
    for part in filter(None, (part.strip() for part in text.split(";"))):
        where = f"--machines: {part!r}"
        if part.startswith("network"):
            speed = amounts.read(part[len("network") :], amounts.BYTES_PER_SECOND, where)
            if not speed > 0:
                raise ConfigurationError(f"{where}: nothing would ever arrive")
            continue
        groups.append(_group(part, program, where))
        if groups[-1].role in [group.role for group in groups[:-1]]:
            raise ConfigurationError(f"{where}: {groups[-1].role} already has machines")
    if not groups:
        raise ConfigurationError(f"--machines={text!r} names no machine; {_EXAMPLE}")
    return Machines(tuple(groups), speed)


def _group(part: str, program: Program, where: str) -> Group:
    matched = re.fullmatch(r"(\d+)\s*x\s*(\w+)\s*:\s*(.+)", part)
    if not matched:
        raise ConfigurationError(f"{where}: {_EXAMPLE}")
    count, name = int(matched[1]), matched[2]
    if not count:
        raise ConfigurationError(f"{where}: no machine at all; leave it out, or give at least 1")
    group = Group(name, count, 0)
    for item in matched[3].split(","):
        group = _with_item(group, item.strip(), where)
    if not group.cores:
        raise ConfigurationError(f"{where} does not say how many cores each has, as in 32 cores")
    if name != ALL:
        _check_fits(group, _role(program, name, where), where)
    return group


def _role(program: Program, name: str, where: str) -> Role:
    try:
        return program.role(name)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}, or {ALL}") from None


def _with_item(group: Group, item: str, where: str) -> Group:
    if matched := re.fullmatch(r"(\d+) cores?", item):
        return group._replace(cores=int(matched[1]))
    if matched := re.fullmatch(rf"(\d+) ({group.role}s?|process(es)?)", item):
        return group._replace(processes=int(matched[1]))
    if matched := re.fullmatch(r"\$(\d+(?:\.\d+)?)(?:/h)?", item):
        return group._replace(dollars_per_hour=float(matched[1]))
    matched = re.fullmatch(r"(?:(\d+) )?([A-Za-z][\w ]*)", item)
    if not matched or group.device:
        raise ConfigurationError(
            f"{where}: {item!r} is neither cores (16 cores), a device (H200, 8 TPU v3), processes "
            f"(20 {group.role}s) nor a price ($3.50/h)"
        )
    return group._replace(device=matched[2], devices=int(matched[1] or 1))


def _check_fits(group: Group, role: Role, where: str) -> None:
    wants = role.resources(there_are_gpus=False)
    needed = wants.cpus * (group.processes or 1)
    if needed > group.cores and not group.processes:
        raise ConfigurationError(
            f"{where}: a {role.name} wants {wants.cpus} cores (its threads in the gin file), and a "
            f"machine has {group.cores}; take larger machines or fewer threads"
        )
    if group.device and role.devices != "GPU":
        raise ConfigurationError(
            f"{where}: {role.name} sees no devices (the architecture's gpu_roles says which roles "
            f"do); leave out {group.device}"
        )
    if role.essential and group.count > role.replicas:
        raise ConfigurationError(
            f"{where}: the program has {role.replicas} {role.name}; the gin file says how many"
        )
