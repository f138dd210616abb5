"""What a run has reserved of a Ray cluster: a placement group, all of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfdrl.errors import ConfigurationError
from tfdrl.launch.placement import Placement
from tfdrl.launch.ray.cluster import NODE_ID_LABEL, Cluster
from tfdrl.topology import Resources

_RESERVE_SECS = 30.0
_MB = 1 << 20


class Reservation:
    """Of each node, what the processes that were placed there want: one bundle.

    Args:
      cluster: whose nodes they are.
      wanted: what a replica of each role wants, by the role's name.
      placed: where each was put.

    Raises:
      ConfigurationError: others have taken it meanwhile.
    """

    def __init__(self, cluster: Cluster, wanted: Mapping[str, Resources], placed: Placement):
        from ray.util.placement_group import placement_group

        self._cluster, self._wanted, self._group = cluster, wanted, None
        bundles = bundles_of(wanted, placed)
        self._numbers = {node: number for number, node in enumerate(bundles)}
        if not bundles:
            return
        self._group = placement_group(
            list(bundles.values()),
            bundle_label_selector=[{NODE_ID_LABEL: cluster.id_of(node)} for node in bundles],
        )
        if not self._group.wait(_RESERVE_SECS):
            self.close()
            raise ConfigurationError(
                f"Ray has not reserved {_words(bundles)} within {_RESERVE_SECS:g} s: others have "
                "taken it, or its nodes have gone; see `ray status`, and start again"
            )

    def options(self, role: str, node: str, has_moved: bool = False) -> dict[str, Any]:
        """Of a Ray actor with what a replica of that role wants, on that node.

        For one that was placed elsewhere at first nothing is reserved there: Ray is asked anew.
        """
        from ray.util.scheduling_strategies import (
            NodeAffinitySchedulingStrategy,
            PlacementGroupSchedulingStrategy,
        )

        wants = amounts(self._wanted[role])
        found = {"num_cpus": wants.get("CPU", 0), "num_gpus": wants.get("GPU", 0)}
        if "memory" in wants:
            found["memory"] = wants["memory"]
        strategy = (
            NodeAffinitySchedulingStrategy(self._cluster.id_of(node), soft=False)
            if has_moved or not wants
            else PlacementGroupSchedulingStrategy(self._group, self._numbers[node])
        )
        return {**found, "scheduling_strategy": strategy}

    def close(self) -> None:
        """Gives it back."""
        from ray.util.placement_group import remove_placement_group

        if self._group is not None and self._cluster.answers():
            remove_placement_group(self._group)
        self._group = None


def amounts(wants: Resources) -> dict[str, float]:
    """In Ray's words; without what is not wanted."""
    found = {"CPU": wants.cpus, "GPU": wants.gpus, "memory": wants.memory_mb * _MB}
    return {name: float(amount) for name, amount in found.items() if amount}


def bundles_of(wanted: Mapping[str, Resources], placed: Placement) -> dict[str, dict[str, float]]:
    """What the processes on each node want together, by the node's name."""
    found: dict[str, dict[str, float]] = {}
    for role, nodes in placed.items():
        for node in nodes:
            for name, amount in amounts(wanted[role]).items():
                bundle = found.setdefault(node.name, {})
                bundle[name] = bundle.get(name, 0.0) + amount
    return found


def _words(bundles: Mapping[str, Mapping[str, float]]) -> str:
    return ", ".join(
        f"{amount:g} {name} of {node}"
        for node, bundle in bundles.items()
        for name, amount in bundle.items()
    )
