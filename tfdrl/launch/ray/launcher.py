"""The launcher of a Ray cluster: roles are started by its actors, on nodes reserved for them."""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence

from tfdrl.errors import ConfigurationError
from tfdrl.launch import node_check
from tfdrl.launch.launcher import Start, Starter
from tfdrl.launch.moves import Moves
from tfdrl.launch.placement import Node, Placement, by_node
from tfdrl.launch.ray.agent import Surroundings, ask
from tfdrl.launch.ray.agents import Agents
from tfdrl.launch.ray.cluster import Cluster
from tfdrl.launch.ray.reservation import Reservation
from tfdrl.topology import Program, Role

#: Of the check of all nodes: Python starts there, perhaps from a slow disk.
_CHECK_SECS = 180.0


class RayLauncher:
    """A `tfdrl.launch.launcher.Launcher`.

    Args:
      cluster: that this process is connected to.
    """

    is_local = False
    patient_signals: Sequence[int] = (signal.SIGTERM,)

    def __init__(self, cluster: Cluster):
        self._cluster = cluster
        # Where Ray has brought the files itself, each node has them in a directory of its own.
        self._directory = "" if cluster.has_working_directory else os.getcwd()
        self._reservation: Reservation | None = None

    def nodes(self, program: Program) -> Sequence[Node]:
        """Those of the cluster, with what others have left of them."""
        return self._cluster.nodes()

    def ports(self, start: Start, counts: Mapping[str, int]) -> Mapping[str, Iterator[int]]:
        """Free ones of each node, which answers for itself that it can run this.

        Reserves what the roles want. Raises ConfigurationError if others took it, or a node cannot
        run this.
        """
        if self._cluster.has_working_directory:
            check_root_dir(start.root_dir, pathlib.Path.cwd())
        self._reservation = Reservation(self._cluster, start.wanted, start.placed)
        return node_check.ports(
            start.root_dir,
            start.configuration.digest,
            start.gin_flags,
            counts,
            lambda arguments: self._ask(list(counts), arguments),
        )

    def environment(self, role: Role, task: int) -> Mapping[str, str]:
        """Ray says itself which GPUs an actor has."""
        return {}

    def remarks(self, program: Program, placed: Placement) -> Sequence[str]:
        """Who is on which node."""
        return by_node(program, placed)

    def starter(self, start: Start, notify: Callable[[str], None]) -> Starter:
        """Actors, one for each process."""
        moves = Moves(start.wanted, start.placed, self._cluster.are_gone, notify)
        return Agents(self._cluster, self._reservation, self._directory, moves)

    def stopped_by(self, number: int) -> str:
        """Nobody but its user starts a run again."""
        return ""

    def _ask(self, nodes: Sequence[str], arguments: Sequence[str]) -> tuple[str, str]:
        """What all nodes print, and what goes wrong."""
        surroundings = Surroundings(self._directory, dict(os.environ))
        calls = {
            node: ([*arguments, f"--node={node}"], surroundings, _CHECK_SECS) for node in nodes
        }
        answers, failures = self._cluster.on_nodes(ask, calls, _CHECK_SECS)
        said = [*(error for _, error in answers.values() if error), *failures]
        return "\n".join(printed for printed, _ in answers.values()), "\n".join(said)


def check_root_dir(root_dir: pathlib.Path, working_directory: pathlib.Path) -> None:
    """Raises ConfigurationError for a root_dir that goes with the job."""
    if working_directory in root_dir.parents:
        raise ConfigurationError(
            f"--root_dir={root_dir} is among the files that Ray has brought for this job, and "
            "removes after it; give a directory on a file system that all nodes share"
        )
