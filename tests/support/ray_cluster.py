"""A real Ray cluster on this machine: a raylet for each node."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from paths import python_path

from tfdrl.launch.local.addresses import free_ports
from tfdrl.topology import Address

_STORE_BYTES = 80_000_000
_GIVEN = {
    "PYTHONPATH": python_path(),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_agent_register_timeout_ms": "120000",
    # Or all that the machine does beside the tests would go first.
    "RAY_worker_niceness": "0",
    # Of each run: as many workers on each node as it has cores.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}


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

    @contextlib.contextmanager
    def node_without(self, directory: pathlib.Path) -> Iterator[None]:
        """One node more, which does not see what is in a directory of the others; needs root."""
        start = _start_command(self._cpus, f"--address={self._cluster.address}")
        mount = f"mount --make-rprivate / && mount -t tmpfs none {shlex.quote(str(directory))}"
        apart = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$0" "$@"', *start]
        with _started(apart, self.environment):
            yield

    def fail(self, name: str) -> None:
        """Kills a node, by its name in the launcher's lines, and all that runs on it."""
        prefix = name.rpartition("-")[2]
        (node,) = [n for n in self._cluster.list_all_nodes() if n.node_id.startswith(prefix)]
        assert node is not self._cluster.head_node
        self._cluster.remove_node(node, allow_graceful=False)


@contextlib.contextmanager
def node_with_a_head(
    cpus: int = 6,
) -> Iterator[tuple[dict[str, str], Callable[[], None]]]:
    """A node whose head is another, on this machine: the environment, and what kills the head.

    Nothing of Ray is in the test's own process, which would end without a head, too.
    """
    head = Address("127.0.0.2", next(free_ports()))
    environment = {**os.environ, **_GIVEN, "RAY_ADDRESS": str(head)}
    flags = ("--head", f"--port={head.port}", "--include-dashboard=false")
    first = _start_command(0, f"--node-ip-address={head.host}", *flags)
    with _started(first, environment) as started:
        node = _start_command(cpus, f"--address={head}", "--node-ip-address=127.0.0.1")
        with _started(node, environment):
            yield environment, lambda: _kill_all(started.pid)


def _start_command(cpus: int, *flags: str) -> list[str]:
    """Starts a node, and stays."""
    ray = os.path.join(os.path.dirname(sys.executable), "ray")
    sizes = (f"--num-cpus={cpus}", f"--object-store-memory={_STORE_BYTES}")
    return [ray, "start", "--block", *flags, *sizes]


@contextlib.contextmanager
def _started(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen]:
    """A node, once it is there; it ends with the block."""
    node = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert any("Ray runtime started" in line for line in node.stdout)
        yield node
    finally:
        node.terminate()  # and it ends its own
        node.wait(60.0)


def _kill_all(pid: int) -> None:
    """A process and all that it has started."""
    import psutil  # Ray has it

    started = psutil.Process(pid)
    for process in [started, *started.children(recursive=True)]:
        process.kill()


def can_mount() -> bool:
    """Whether there can be a node without one of this machine's directories."""
    return os.geteuid() == 0 and all(map(shutil.which, ("mount", "unshare")))


@contextlib.contextmanager
def cluster(nodes: int = 3, cpus: int = 6, dashboard: bool = False) -> Iterator[Cluster]:
    """A cluster of so many nodes with so many cores each, all of them this machine.

    The head, which cannot be lost, has fewer, so that a learner is placed on another.
    """
    from ray.cluster_utils import Cluster as Raylets

    before = {name: os.environ.get(name) for name in _GIVEN}
    os.environ.update(_GIVEN)
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
