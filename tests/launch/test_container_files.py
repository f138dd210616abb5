"""What docker/ holds is what the programs say, and fits together. (Runs: test_containers.py.)"""

import importlib.util
import json
import pathlib
import shutil
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

from tfdrl.errors import ConfigurationError
from tfdrl.launch import command_line, role_addresses, role_flags
from tfdrl.launch.cluster import compose

_CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
_DOCKER = _CHECKOUT / "docker"
_KUBERNETES = "1.31"

needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl, which has kustomize, is not here"
)


def _generate():
    spec = importlib.util.spec_from_file_location("generate", _DOCKER / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _instructions(dockerfile):
    """(word, rest) of each instruction of the last stage, continued lines joined."""
    text = (_DOCKER / dockerfile).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
    first = max(i for i, line in enumerate(lines) if line.startswith("FROM "))
    return [line.split(None, 1) for line in lines[first:]], lines[:first]


def test_written_files_are_those_of_the_programs():
    written = _generate().files()
    there = {path.relative_to(_DOCKER) for path in (_DOCKER / "kubernetes/base").rglob("*.yaml")}
    assert there | {pathlib.Path("compose.yaml")} == set(written)
    for path, text in written.items():
        assert (_DOCKER / path).read_text() == text, f"docker/{path}: run `make manifests`"


@pytest.mark.parametrize("dockerfile", ["tfdrl.Dockerfile", "seed-actor.Dockerfile"])
def test_images_run_one_process_without_root_and_without_compilers(dockerfile):
    last, before = _instructions(dockerfile)
    words = dict(last)
    assert words["USER"] == "1000:1000"
    # Exec form: the role is process 1 and gets SIGTERM; no shell stands between.
    assert json.loads(words["ENTRYPOINT"])[:2] == ["python", "-m"]
    assert json.loads(words["HEALTHCHECK"].partition("CMD ")[2]) == ["tfdrl-health"]
    assert words["FROM"] == "${PYTHON_IMAGE}"
    assert "ARG PYTHON_IMAGE=python:3.11-slim" in before
    installs = [rest for word, rest in last if word == "RUN"]
    assert not any(word in rest for rest in installs for word in ("apt", "pip", "gcc"))
    assert any("--constraint constraints.txt" in line for line in before)
    assert not any("--mount" in line or "<<" in line for line in before)  # of BuildKit only


@pytest.mark.parametrize("dockerfile", ["tfdrl.Dockerfile", "seed-actor.Dockerfile"])
def test_what_images_copy_is_there_and_not_ignored(dockerfile):
    let_in = {
        line[1:]
        for line in (_CHECKOUT / ".dockerignore").read_text().splitlines()
        if line[:1] == "!"
    }
    _, before = _instructions(dockerfile)
    copied = [line.split()[1:-1] for line in before if line.startswith("COPY")]
    for name in (name for names in copied for name in names):
        path = pathlib.PurePath(name)
        assert (_CHECKOUT / path).exists() and let_in & {str(p) for p in (path, *path.parents)}


def _services(text):
    return yaml.safe_load(text)["services"]


def _check_services(services, program, profile):
    """All replicas are there, and each is told where the others are."""
    mine = {name: service for name, service in services.items() if service["profiles"] == [profile]}
    roles = [f"{r.name}-{task}" for r in program.roles for task in range(r.replicas)]
    names = {f"{profile}-{name}".replace("_", "-") for name in roles}
    assert set(mine) == names | {f"{profile}-tensorboard"}
    for name in names:
        module, *flags = mine[name]["entrypoint"][2:]
        assert module == "tfdrl.launch.role"
        values = role_flags.define("")
        rest = command_line.parse(values, ["role", *flags], "", allow_unknown=True)
        this = program.role(values.role)
        found = role_addresses.resolve_addresses(program, this, role_flags.addresses(rest, values))
        hosts = [
            a.host
            for value in found.values()
            for a in (value if isinstance(value, tuple) else [value])
        ]
        assert set(hosts) <= names
        assert (
            mine[name]["image"]
            == ("tfdrl" if this.needs_tensorflow else "tfdrl-seed-actor") + ":latest"
        )
        assert (
            mine[name]["read_only"] and mine[name]["volumes"][0] == f"{profile}:{values.root_dir}"
        )
        assert float(mine[name]["stop_grace_period"][:-1]) > 10 + this.flush_secs
        # Told to stop for another's sake, it is no role that has finished: "on-failure".
        assert values.stopped_exit_code == 143


@pytest.mark.parametrize("profile", ["apex", "impala", "seed", "gorila", "a3c"])
def test_compose_profiles(profile):
    document = yaml.safe_load((_DOCKER / "compose.yaml").read_text())
    generate = _generate()
    _check_services(document["services"], generate.load(generate.GIN_FILES[profile])[1], profile)
    assert document["networks"][profile] == {"internal": True}
    assert profile in document["volumes"]


def test_compose_file_of_ones_own_gin_file(tmp_path):
    mine = tmp_path / "mine.gin"
    mine.write_text("include 'impala/cartpole.gin'\nimpala.actors = 3\n")
    flags = [f"--gin_file={mine}", "--gin_bindings=experiment.seed = 5", "--name=mine"]
    flags.append("--gpus=1")
    command = [sys.executable, "-m", "binaries.manifests", "--format=compose", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    services = _services(done.stdout)
    assert sum("-actor-" in name for name in services) == 3
    learner = services["mine-learner-0"]
    assert [name for name, service in services.items() if "deploy" in service] == ["mine-learner-0"]
    (device,) = learner["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert learner["volumes"] == ["mine:/run/tfdrl", f"{tmp_path}:/etc/tfdrl:ro"]
    assert "--gin_file=/etc/tfdrl/mine.gin" in learner["entrypoint"]
    assert "--gin_bindings=experiment.seed = 5" in learner["entrypoint"]


def test_gin_files_of_several_directories_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.gin").write_text("")
    paths = [str(tmp_path / name / "x.gin") for name in ("a", "b")]
    with pytest.raises(ConfigurationError, match="put them into one"):
        compose.gin_flags(paths, [])


def test_learners_of_a_cluster_find_each_other_in_compose():
    bindings = ["impala.learners = 2", "strategy.kind = 'multi_worker'"]
    loaded, program = _generate().load("impala/cartpole.gin", bindings)
    assert loaded.digest
    services = compose.document([compose.Run("two", program, ["--gin_file=a$b"])], "a", "b")[
        "services"
    ]
    config = json.loads(services["two-learner-1"]["environment"]["TF_CONFIG"])
    assert config["cluster"] == {"worker": ["two-learner-0:9000", "two-learner-1:9000"]}
    assert config["task"] == {"type": "worker", "index": 1}
    assert "--gin_file=a$$b" in services["two-learner-0"]["entrypoint"]


_OVERLAYS = sorted(
    str(path.parent.relative_to(_DOCKER / "kubernetes"))
    for kind in ("base", "overlays")
    for path in (_DOCKER / "kubernetes" / kind).glob("*/kustomization.yaml")
)


@needs_kubectl
@pytest.mark.parametrize("directory", _OVERLAYS)
def test_what_kustomize_makes_is_valid(directory):
    command = ["kubectl", "kustomize", str(_DOCKER / "kubernetes" / directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    documents = list(yaml.safe_load_all(done.stdout))
    for document in documents:
        kubernetes_validate.validate(document, _KUBERNETES, strict=True)
    resources = {"gpu": "nvidia.com/gpu", "tpu": "google.com/tpu"}
    is_overlay = directory.startswith("overlays")
    accelerator = resources.get(directory.split("-")[-1]) if is_overlay else None
    for job in (d for d in documents if d["kind"] == "Job"):
        (container,) = job["spec"]["template"]["spec"]["containers"]
        is_learner = job["metadata"]["labels"]["tfdrl/role"] == "learner"
        limits = container["resources"].get("limits", {})
        assert (accelerator in limits) == (is_learner and accelerator is not None)
    if accelerator == "google.com/tpu":
        (config,) = (d["data"]["config.gin"] for d in documents if d["kind"] == "ConfigMap")
        assert "strategy.kind = 'tpu'" in config


@needs_kubectl
def test_registry_and_namespace_are_the_overlays():
    directory = _DOCKER / "kubernetes/overlays/registry"
    done = subprocess.run(["kubectl", "kustomize", str(directory)], capture_output=True, text=True)
    documents = list(yaml.safe_load_all(done.stdout))
    assert {d["metadata"]["namespace"] for d in documents} == {"reinforcement-learning"}
    images = {
        d["spec"]["template"]["spec"]["containers"][0]["image"]
        for d in documents
        if d["kind"] == "Job"
    }
    prefix = "registry.example.com/rl/"
    assert images == {f"{prefix}tfdrl:1", f"{prefix}tfdrl-seed-actor:1"}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not here")
def test_certificates_are_all_made_or_none(tmp_path):
    def made(name, *hosts):
        command = [_DOCKER / "make_certificates.sh", tmp_path / name, *hosts]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    done = made("a/tls", "seed-learner-0.seed", "10.0.0.7", "fd00::7")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "a" / "tls").iterdir()}
    assert names == {"ca.crt", "tls.crt", "tls.key", "token"}
    assert (tmp_path / "a/tls/tls.key").stat().st_mode & 0o077 == 0
    command = ["openssl", "x509", "-noout", "-text", "-in", tmp_path / "a/tls/tls.crt"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in ("DNS:seed-learner-0.seed", "IP Address:10.0.0.7", "IP Address:FD00:0:0:0:0:0:0:7"):
        assert name in text
    again = made("a/tls", "other")
    assert again.returncode == 2 and "is there already" in again.stderr
    failed = made("b", "not,a=host")
    assert failed.returncode and "subjectAltName" in failed.stderr
    assert not (tmp_path / "b").exists()
