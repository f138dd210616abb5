"""A real Ray cluster on this machine: a raylet for each node."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import time
from collections.abc import Iterator

from paths import python_path

_STORE_BYTES = 80_000_000
_LIMIT_SECS = 60.0


def missing(dashboard: bool = False) -> str:
    """Why there can be no cluster here, or none that takes jobs; "" if there can."""
    wanted = ["ray"] + ["aiohttp_cors", "opencensus"] * dashboard
    lacking = [name for name in wanted if importlib.util.find_spec(name) is None]
    return f"no {', '.join(lacking)} (pip install 'ray[default]')" if lacking else ""


class Cluster:
    """A cluster that runs; every command is told of it by its environment."""

    def __init__(self, cluster, cpus: int):
        self._cluster, self._cpus = cluster, cpus
        self.environment = {**os.environ, "RAY_ADDRESS": cluster.address}
        self.dashboard = f"http://{cluster.head_node.webui_url}"

    def add(self) -> None:
        """One node more."""
        self._cluster.add_node(num_cpus=self._cpus, object_store_memory=_STORE_BYTES)
        self._cluster.wait_for_nodes()

    def fail(self, name: str) -> None:
        """Kills a node, by its name in the launcher's lines, and all that runs on it."""
        prefix = name.rpartition("-")[2]
        (node,) = [n for n in self._cluster.list_all_nodes() if n.node_id.startswith(prefix)]
        assert node is not self._cluster.head_node
        self._cluster.remove_node(node, allow_graceful=False)


@contextlib.contextmanager
def cluster(nodes: int = 3, cpus: int = 6, dashboard: bool = False) -> Iterator[Cluster]:
    """A cluster of so many nodes with so many cores each, all of them this machine.

    The head, which cannot be lost, has fewer, so that a learner is placed on another.
    """
    from ray.cluster_utils import Cluster as Raylets

    given = {
        "PYTHONPATH": python_path(),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_agent_register_timeout_ms": "120000",
        # Of each run: as many workers on each node as it has cores.
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
    }
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    head = {
        "num_cpus": cpus - 2,
        "object_store_memory": _STORE_BYTES,
        "include_dashboard": dashboard,
        "dashboard_port": 0,
    }
    raylets = Raylets(initialize_head=True, head_node_args=head)
    try:
        found = Cluster(raylets, cpus)
        for _ in range(nodes - 1):
            found.add()
        yield found
    finally:
        raylets.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def until(condition, said, limit_secs: float = _LIMIT_SECS) -> None:
    """Waits until condition(), at most so long; said() is what a failure shows."""
    deadline_secs = time.monotonic() + limit_secs
    while not condition():
        assert time.monotonic() < deadline_secs, said()
        time.sleep(0.2)
