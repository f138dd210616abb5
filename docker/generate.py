"""Writes docker/compose.yaml and docker/kubernetes/base/ anew: `make manifests`.

Both follow from the architectures' programs, as what tfdrl-manifests prints does; a test compares.
"""

from __future__ import annotations

import pathlib

import gin

from tfdrl import configuration
from tfdrl.experiment import Experiment
from tfdrl.launch.cluster import compose, manifests, plain_yaml
from tfdrl.launch.cluster.manifest_settings import ManifestSettings

_HERE = pathlib.Path(__file__).resolve().parent
_NOTE = "# Written by docker/generate.py (make manifests). For your gin file: tfdrl-manifests.\n"

#: What each profile, and each base, runs.
GIN_FILES = {
    "apex": "apex/cartpole.gin",
    "impala": "impala/cartpole.gin",
    "seed": "seed/cartpole_vtrace.gin",
    "gorila": "gorila/cartpole_global.gin",
    "a3c": "a3c/cartpole.gin",
}
#: Bases beside those of the profiles: gin file and bindings.
_MORE_BASES = {
    "impala-learners": (
        "impala/cartpole.gin",
        ("impala.learners = 2", "strategy.kind = 'multi_worker'"),
    ),
    "seed-tpu": ("seed/cartpole_vtrace.gin", ("strategy.kind = 'tpu'",)),
}
#: Secrets with certificates and a token, by base.
_TLS_SECRETS = {"seed": "seed-tls", "seed-tpu": "seed-tpu-tls"}


def files() -> dict[pathlib.Path, str]:
    """Texts by path, relative to docker/."""
    runs, found = [], {}
    for name, gin_file in GIN_FILES.items():
        loaded, program = load(gin_file)
        runs.append(compose.Run(name, program, [f"--gin_file={gin_file}"]))
        found.update(_base(name, loaded, program))
    for name, (gin_file, bindings) in _MORE_BASES.items():
        found.update(_base(name, *load(gin_file, bindings)))
    settings = ManifestSettings("images")
    document = compose.document(runs, settings.image, settings.light_image)
    found[pathlib.Path("compose.yaml")] = _NOTE + plain_yaml.text([document], compact=True)
    return found


def load(gin_file: str, bindings=()):
    """The checked configuration, and its program; leaves gin as it was: empty."""
    loaded = configuration.load([gin_file], list(bindings), tensorflow=False)
    try:
        return loaded, Experiment.from_gin().architecture.program()
    finally:
        gin.clear_config()


def _base(name: str, loaded, program) -> dict[pathlib.Path, str]:
    settings = ManifestSettings(name, tls_secret=_TLS_SECRETS.get(name, ""))
    objects = manifests.objects(program, loaded, settings)
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": ["run.yaml"],
    }
    directory = pathlib.Path("kubernetes", "base", name)
    return {
        directory / "run.yaml": _NOTE + plain_yaml.text(objects),
        directory / "kustomization.yaml": plain_yaml.text([kustomization]),
    }


def main() -> None:
    """Writes the files."""
    for path, text in files().items():
        (_HERE / path).parent.mkdir(parents=True, exist_ok=True)
        (_HERE / path).write_text(text)
        print(f"docker/{path}")


if __name__ == "__main__":
    main()
