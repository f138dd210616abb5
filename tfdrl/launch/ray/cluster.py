"""The Ray cluster that a run is in: how it is reached, its nodes, and what of them is free."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tfdrl.errors import ConfigurationError
from tfdrl.launch.placement import Node
from tfdrl.launch.ray.head import Head

ADDRESS_VARIABLE = "RAY_ADDRESS"
#: Of a connection to a port.
_REACH_SECS = 5.0
#: Of ray.init, which tries for minutes.
_CONNECT_SECS = 60.0
#: Between two looks at the nodes: many may ask at the same time.
_LOOK_SECS = 1.0
_MB = 1 << 20
#: A node's label that Ray gives it.
NODE_ID_LABEL = "ray.io/node-id"


def the_library() -> Any:
    """Ray. Raises ConfigurationError if it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise ConfigurationError(
            f"--launcher=ray: Ray cannot be imported here ({error}); install it on all nodes, as "
            "with `pip install -c constraints.txt 'tfdrl[ray]'`"
        ) from None
    return ray


class Cluster:
    """A cluster that this process is connected to.

    Args:
      address: "host:port" of it, or "auto", which is the one that runs on this machine.

    Raises:
      ConfigurationError: Ray is not installed, or there is no cluster.
    """

    def __init__(self, address: str = ""):
        self._ray = the_library()
        self.address = address or os.environ.get(ADDRESS_VARIABLE) or "auto"
        _check(self.address)
        self._connect()
        self._head = Head(self._ray.get_runtime_context().gcs_address)
        self._ids: dict[str, str] = {}
        self._alive: set[str] = set()
        self._looked_secs = -math.inf

    def _connect(self) -> None:
        failed: list[BaseException] = []

        def connect() -> None:
            try:
                self._ray.init(
                    address=self.address,
                    log_to_driver=False,
                    logging_level="ERROR",
                    configure_logging=False,
                )
            except BaseException as error:
                failed.append(error)

        logging.getLogger("ray").setLevel(logging.ERROR)
        # It may not come back, and then cannot be interrupted.
        connecting = threading.Thread(target=connect, daemon=True, name="connect")
        connecting.start()
        connecting.join(_CONNECT_SECS)
        if connecting.is_alive():
            raise _no_cluster(self.address, f"no answer within {_CONNECT_SECS:g} s")
        if failed and "Version mismatch" in str(failed[0]):
            raise ConfigurationError(
                f"--launcher=ray: the cluster at {self.address} has another Ray or Python than "
                f"this machine; install the same on all nodes ({words_of(failed[0])})"
            )
        if failed:
            # Its first sentence: the next ones tell of flags that are not ours.
            raise _no_cluster(
                self.address, str(failed[0]).strip().partition("\n")[0].partition(". ")[0]
            )

    def nodes(self) -> list[Node]:
        """Those that are alive, with what of them nobody has taken.

        Raises ConfigurationError if the head does not answer: Ray would wait for it.
        """
        from ray._private.state import available_resources_per_node  # there is no public one

        if not self.answers():
            raise ConfigurationError(
                f"the head of the Ray cluster, {self._head.address}, is silent"
            )
        alive = [node for node in self._ray.nodes() if node["Alive"]]
        found = parse_nodes(alive, available_resources_per_node())
        self._ids = {node.name: there["NodeID"] for node, there in zip(found, alive)}
        self._alive = set(self._ids.values())
        return found

    @property
    def has_working_directory(self) -> bool:
        """Whether Ray brings the files of this run to the nodes: a job with --working-dir."""
        return bool(self._ray.get_runtime_context().runtime_env.get("working_dir"))

    def remote(self, actor: type, **options: Any) -> Any:
        """An actor's class as Ray has it, which starts one where the options say."""
        return self._ray.remote(max_restarts=0, **options)(actor)

    @property
    def lost(self) -> str:
        """The loss of the head in words; "" as long as it is there."""
        if not self._head.is_lost:
            return ""
        return f"the head of the Ray cluster, {self._head.address}, is gone"

    def answers(self) -> bool:
        """Whether the head does. Ray waits for it without a limit: nothing is asked before."""
        return self._head.answers()

    def kill(self, actor: Any) -> None:
        """Ends an actor, now; without a head its node does, soon."""
        if not self.lost:
            self._ray.kill(actor)

    def on_nodes(
        self, function: Callable, calls: Mapping[str, Sequence], limit_secs: float
    ) -> tuple[dict[str, Any], list[str]]:
        """Calls a function on nodes, all at once.

        Args:
          function: of a module that can be imported there.
          calls: its arguments, by the node's name.
          limit_secs: for all of them.

        Returns its results by the node's name, and a line for each node that has none.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        remote = self._ray.remote(num_cpus=0, max_retries=0)(function)
        asked = {}
        for node, arguments in calls.items():
            there = NodeAffinitySchedulingStrategy(self.id_of(node), soft=False)
            asked[node] = remote.options(scheduling_strategy=there).remote(*arguments)
        self._ray.wait(list(asked.values()), num_returns=len(asked), timeout=limit_secs)
        results, failures = {}, []
        for node, reference in asked.items():
            try:
                results[node] = self._ray.get(reference, timeout=0)
            except self._ray.exceptions.GetTimeoutError:
                failures.append(f"{node}: no answer within {limit_secs:g} s")
            except Exception as error:
                failures.append(f"{node}: {words_of(error)}")
        return results, failures

    def id_of(self, node: str) -> str:
        """Ray's own name of a node of `nodes`."""
        return self._ids[node]

    def are_gone(self, names: Iterable[str]) -> set[str]:
        """Those of its nodes that nothing runs on any more, as far as the head has told."""
        if time.monotonic() - self._looked_secs > _LOOK_SECS and self.answers():
            self._alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
            self._looked_secs = time.monotonic()
        return {name for name in names if self._ids[name] not in self._alive}


def parse_nodes(
    alive: Sequence[Mapping[str, Any]], available: Mapping[str, Mapping[str, float]]
) -> list[Node]:
    """Reads `ray.nodes()`, and what is free of each, by its id."""
    hosts = Counter(node["NodeManagerHostname"] for node in alive)
    found = []
    for node in alive:
        host, free = node["NodeManagerHostname"], available.get(node["NodeID"], {})
        found.append(
            Node(
                host if hosts[host] == 1 else f"{host}-{node['NodeID'][:6]}",
                node["NodeManagerAddress"],
                int(free.get("CPU", 0)),
                int(free.get("GPU", 0)),
                int(free.get("memory", 0)) // _MB,
            )
        )
    return found


def words_of(error: BaseException) -> str:
    """What Ray says of something that has failed elsewhere, on a line."""
    text = str(error).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if "ray::" in text:  # a traceback of there
        lines = lines[-1:]
    return " ".join(lines)[:500] or type(error).__name__


def _check(address: str) -> None:
    """Raises ConfigurationError if nothing listens there."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if "/" in address or not (host and colon and port.isdigit()):
        raise ConfigurationError(
            f"--ray_address={address!r}: give host:port of the cluster (6379, as a rule), and run "
            "this on one of its nodes, or submit it with `ray job submit`"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_SECS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, why: str) -> ConfigurationError:
    where = "on this machine" if address == "auto" else f"at {address}"
    return ConfigurationError(
        f"--launcher=ray: there is no Ray cluster {where} ({why}); give --ray_address=host:port or "
        f"set {ADDRESS_VARIABLE}, or start one with `ray start --head`"
    )
