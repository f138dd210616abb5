"""Where a process starts again that has died with its node."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from tfdrl.errors import ConfigurationError
from tfdrl.launch import placement
from tfdrl.launch.launcher import ProcessSpec
from tfdrl.launch.placement import Node
from tfdrl.topology import Resources


class Moves:
    """Keeps where each replica is, and moves those that serve nothing.

    The others know the address of one that serves: if its node is gone, all start again.

    Args:
      wanted: what a replica of each role wants, by the role's name.
      placed: where each was put.
      are_gone: says which of these nodes nothing runs on any more; may raise ConfigurationError.
      notify: receives one line for the user.
    """

    def __init__(
        self,
        wanted: Mapping[str, Resources],
        placed: placement.Placement,
        are_gone: Callable[[Sequence[str]], set[str]],
        notify: Callable[[str], None],
    ):
        self._wanted, self._are_gone, self._notify = wanted, are_gone, notify
        self._placed = {name: list(nodes) for name, nodes in placed.items()}
        self._nodes = {node.name: node for there in placed.values() for node in there}
        self._started: set[str] = set()

    def node(self, spec: ProcessSpec) -> str:
        """Where a replica starts now."""
        role = spec.role
        is_again = spec.name in self._started
        self._started.add(spec.name)
        if role.serves or not is_again:
            return spec.node
        before = self._placed[role.name][spec.task]
        try:
            gone = self._are_gone(list(self._nodes))
            if before.name not in gone:
                return before.name
            alive: Sequence[Node] = [n for n in self._nodes.values() if n.name not in gone]
            after = placement.replace(role, spec.task, self._wanted, self._placed, alive)
        except ConfigurationError as error:
            self._notify(f"{spec.name}: {error}")
            return before.name
        self._placed[role.name][spec.task] = after
        self._notify(f"{spec.name} moves from {before.name}, which is down, to {after.name}")
        return after.name

    def gone(self, nodes: Collection[str]) -> set[str]:
        """Those of the nodes that nothing runs on any more."""
        try:
            return self._are_gone(list(nodes))
        except ConfigurationError as error:
            self._notify(f"WARNING: {error}")
            return set()
