"""What a gin file does not say of a run on Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tfdrl.launch.cluster.packages import Packages


class ManifestSettings(NamedTuple):
    """What the gin file does not say.

    Attributes:
      name: of the run: a lower-case DNS label of at most 32 characters.
      image: of roles with TensorFlow.
      light_image: of roles without.
      storage: of a volume, such as "10Gi", by role; "" for the others (as `amounts` reads them).
      cpu, memory: that a pod requests; the same. One that takes twice the memory is ended.
      gpus: NVIDIA GPUs of a pod whose role sees GPUs.
      tls_secret: name of a Secret with tls.crt, tls.key, ca.crt and token, for tfdrl's own
        services (mutual TLS); empty: they are as open as the network policy lets them be.
      allow_config_change: volumes may be of an earlier run with other settings.
      namespace: of all objects; empty: the one that kubectl is told, or has by itself.
      node_selector: labels that a role's nodes have, by role; "" for all (see `node_labels`).
      pull_secret: names of Secrets that open the images' registry.
      packages: volume with the user's own, of all pods; None: what is not tfdrl's is in the images.
      queue: of Kueue, which starts the run once all of its pods have room; for a JobSet.
      tensorboard: the chief's pod also serves TensorBoard, to its own loopback.
    """

    name: str
    image: str = "tfdrl:latest"
    light_image: str = "tfdrl-seed-actor:latest"
    storage: Mapping[str, str] = {"": "10Gi"}
    cpu: Mapping[str, str] = {"": "1"}
    memory: Mapping[str, str] = {"": "2Gi"}
    gpus: int = 0
    tls_secret: str = ""
    allow_config_change: bool = False
    namespace: str = ""
    node_selector: Mapping[str, Mapping[str, str]] = {}
    pull_secret: Sequence[str] = ()
    packages: Packages | None = None
    queue: str = ""
    tensorboard: bool = False
