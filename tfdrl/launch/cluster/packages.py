"""The user's own packages in the pods of a run, beside the image: on a volume of theirs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tfdrl.errors import ConfigurationError

#: Where Python finds them.
PACKAGES_DIR = "/opt/packages"
_NAME = r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?"
_CONFIG_MAP = re.compile(rf"configmap:({_NAME})(?:/([A-Za-z_]\w*))?")
_CLAIM = re.compile(rf"pvc:({_NAME})")


class Packages(NamedTuple):
    """A volume with Python's modules.

    Attributes:
      source: of the volume, as Kubernetes writes it.
      package: whose modules the volume holds; empty: it holds packages, and modules outside any.
    """

    source: Mapping[str, Any]
    package: str = ""

    @property
    def path(self) -> str:
        """Where it is mounted."""
        return f"{PACKAGES_DIR}/{self.package}" if self.package else PACKAGES_DIR

    def add_to(self, spec: dict[str, Any]) -> None:
        """Mounts it in the containers of a pod, whose Python looks for packages there."""
        spec["volumes"].append({"name": "packages", **self.source})
        for container in spec["containers"]:
            mount = {"name": "packages", "mountPath": self.path, "readOnly": True}
            container["volumeMounts"].append(mount)
            variable = {"name": "PYTHONPATH", "value": PACKAGES_DIR}
            container.setdefault("env", []).append(variable)


def parse(text: str) -> Packages | None:
    """What --packages says: configmap:NAME, configmap:NAME/my_package, pvc:NAME; None for "".

    Raises ConfigurationError for anything else.
    """
    if not text:
        return None
    if found := _CONFIG_MAP.fullmatch(text):
        return Packages({"configMap": {"name": found[1]}}, found[2] or "")
    if found := _CLAIM.fullmatch(text):
        return Packages({"persistentVolumeClaim": {"claimName": found[1], "readOnly": True}})
    raise ConfigurationError(
        f"--packages={text}: write configmap:NAME/my_package of a ConfigMap with the files of "
        "my_package, configmap:NAME of one with modules outside any package, or pvc:NAME of a "
        "claim whose volume has packages"
    )
