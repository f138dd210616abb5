"""JobSets, and where a run's pods run: valid by Kubernetes' schemas, and ended by their chief."""

import os
import pathlib
import shutil
import subprocess
import sys

import gin
import jsonschema
import kubernetes_validate
import pytest
import yaml
from paths import CHECKOUT

from tfdrl import configuration
from tfdrl.experiment import Experiment
from tfdrl.launch.cluster import packages
from tfdrl.launch.cluster.jobset import with_jobset
from tfdrl.launch.cluster.manifest_settings import ManifestSettings
from tfdrl.launch.cluster.manifests import objects

_KUBERNETES = "1.31"
_GIN_FILES = [f"{name}/cartpole.gin" for name in ("apex", "impala", "a3c", "gorila")]
_GIN_FILES.append("seed/cartpole_vtrace.gin")


def _written(*flags):
    command = [sys.executable, "-m", "binaries.manifests", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


_EVERYWHERE = ["--namespace=team", "--pull_secret=ours", "--pull_secret=theirs"]
_NODES = ["--node_selector=pool=cpu", "--node_selector=learner:example.com/pool=gpu"]


@pytest.mark.parametrize("kind", ["kubernetes", "jobset"])
def test_where_pods_run_and_whence_their_images_come(kind):
    flags = [f"--format={kind}", "--gin_file=apex/cartpole.gin", "--tensorboard"]
    documents = list(yaml.safe_load_all(_written(*flags, *_EVERYWHERE, *_NODES).stdout))
    assert {d["metadata"]["namespace"] for d in documents} == {"team"}
    for job in _jobs(documents):
        pod = job["spec"]["template"]["spec"]
        role = job["metadata"]["labels"]["tfdrl/role"]
        of_learners = {"example.com/pool": "gpu"} if role == "learner" else {}
        assert pod["nodeSelector"] == {"pool": "cpu", **of_learners}
        assert pod["imagePullSecrets"] == [{"name": "ours"}, {"name": "theirs"}]
        board = pod.get("initContainers", [])
        assert len(board) == (role == "learner")
        if board:
            assert (
                board[0]["restartPolicy"] == "Always" and "--host=127.0.0.1" in board[0]["command"]
            )


def _jobs(documents):
    """The Jobs, also those of a JobSet, each valid."""
    found = [d for d in documents if d["kind"] == "Job"]
    for jobset in (d for d in documents if d["kind"] == "JobSet"):
        for replicated in jobset["spec"]["replicatedJobs"]:
            metadata = {"name": replicated["name"], **replicated["template"]["metadata"]}
            spec = replicated["template"]["spec"]
            own = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}
            found.append(own)
    for job in found:
        kubernetes_validate.validate(job, _KUBERNETES, strict=True)
    return found


@pytest.mark.parametrize("gin_file", _GIN_FILES)
def test_a_jobset_ends_with_its_chief_and_with_those_who_write_results(gin_file):
    loaded = configuration.load([gin_file], [], tensorflow=False)
    program = Experiment.from_gin().architecture.program()
    gin.clear_config()
    settings = ManifestSettings("run", queue="team-a")
    found = with_jobset(objects(program, loaded, settings), program, settings)
    jobset = found[-1]
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    jsonschema.validate(jobset["spec"], _JOBSET)
    assert jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    jobs = {job["metadata"]["name"]: job for job in _jobs([jobset])}
    policy = jobset["spec"]["successPolicy"]
    ends = {
        jobs[name]["metadata"]["labels"]["tfdrl/role"] for name in policy["targetReplicatedJobs"]
    }
    assert policy["operator"] == "All"
    assert ends == {program.chief, *(role.name for role in program.roles if role.exports)}
    alone = [d for d in objects(program, loaded, settings) if d["kind"] == "Job"]
    for job in alone:
        own = jobs[job["metadata"]["name"].removeprefix("run-")]
        assert own["spec"] == {"completionMode": "NonIndexed", **job["spec"]}


def _fields(required, **properties):
    more = {"additionalProperties": False, "required": required}
    return {"type": "object", "properties": properties, **more}


#: What a JobSet of v1alpha2 says beside its Jobs, as far as it is used here.
_JOBSET = _fields(
    ["replicatedJobs"],
    network=_fields([], enableDNSHostnames={"type": "boolean"}),
    successPolicy=_fields(
        ["operator"],
        operator={"enum": ["All", "Any"]},
        targetReplicatedJobs={"type": "array", "items": {"type": "string"}, "minItems": 1},
    ),
    failurePolicy=_fields([], maxRestarts={"type": "integer", "minimum": 0}),
    replicatedJobs={
        "type": "array",
        "items": _fields(
            ["name", "template"],
            name={"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
            replicas={"type": "integer", "minimum": 1},
            template=_fields(["spec"], metadata={"type": "object"}, spec={"type": "object"}),
        ),
    },
)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--queue=team-a"], "--queue needs --format=jobset"),
        (["--node_selector=gpu"], "--node_selector='gpu' is no label; write key=value"),
        (["--node_selector=lerner:pool=gpu"], "apex has no role 'lerner'; its roles are"),
        (["--packages=my-code"], "--packages=my-code: write configmap:NAME/my_package of a"),
        (["--packages=pvc:My_Code"], "--packages=pvc:My_Code: write configmap:NAME/"),
    ],
)
def test_what_kubernetes_would_not_take(flags, words):
    done = _written("--gin_file=apex/cartpole.gin", *flags)
    assert done.returncode == 2 and words in done.stderr and not done.stdout


@pytest.mark.parametrize("kind", ["kubernetes", "jobset"])
@pytest.mark.parametrize(
    "flag, volume, path",
    [
        ("configmap:c", {"configMap": {"name": "c"}}, "/opt/packages"),
        ("configmap:c/my_code", {"configMap": {"name": "c"}}, "/opt/packages/my_code"),
        (
            "pvc:c",
            {"persistentVolumeClaim": {"claimName": "c", "readOnly": True}},
            "/opt/packages",
        ),
    ],
)
def test_packages_beside_the_image_are_mounted_in_every_role(kind, flag, volume, path):
    gin = ["--gin_file=impala/cartpole.gin", "--gin_bindings=impala.learners = 2"]
    gin.append("--gin_bindings=impala.strategy = @strategy()")
    gin.append("--gin_bindings=strategy.kind = 'multi_worker'")
    text = _written(f"--format={kind}", *gin, f"--packages={flag}").stdout
    jobs = _jobs(list(yaml.safe_load_all(text)))
    assert len(jobs) == 6
    for job in jobs:
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert {"name": "packages", **volume} in pod["volumes"]
        mount = {"name": "packages", "mountPath": path, "readOnly": True}
        assert mount in container["volumeMounts"]
        variables = {variable["name"]: variable["value"] for variable in container["env"]}
        assert variables["PYTHONPATH"] == "/opt/packages"
        is_learner = job["metadata"]["labels"]["tfdrl/role"] == "learner"
        assert ("TF_CONFIG" in variables) is is_learner


@pytest.mark.parametrize("flag", ["configmap:my-code/my_package", "pvc:code"])
def test_python_finds_a_package_on_such_a_volume(flag, tmp_path):
    found = packages.parse(flag)
    there = pathlib.Path(found.path.replace(packages.PACKAGES_DIR, str(tmp_path)))
    plugins = CHECKOUT / "tests" / "plugins"
    if found.package:
        _mount_config_map(there, (plugins / found.package).glob("*.py"))
    else:
        shutil.copytree(plugins / "my_package", there / "my_package")
    spec = {"volumes": [], "containers": [{"volumeMounts": []}]}
    found.add_to(spec)
    (variable,) = spec["containers"][0]["env"]
    gin_file = tmp_path / "mine.gin"
    gin_file.write_text(
        "import my_package.models\ninclude 'impala/cartpole.gin'\nmy_model.units = 32\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "binaries.manifests", f"--gin_file={gin_file}"],
        env={**os.environ, variable["name"]: str(tmp_path)},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "my_model.units = 32" in done.stdout


def _mount_config_map(directory, files):
    """As a kubelet does: links to files of a directory that can be replaced at once."""
    (directory / "..1").mkdir(parents=True)
    (directory / "..data").symlink_to("..1")
    for path in files:
        shutil.copy(path, directory / "..1")
        (directory / path.name).symlink_to(f"..data/{path.name}")
