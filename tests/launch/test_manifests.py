"""Kubernetes manifests: valid by Kubernetes' own schemas, and at one with the program."""

import re
import subprocess
import sys

import gin
import kubernetes_validate
import pytest
import yaml

from tfdrl import configuration
from tfdrl.errors import ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.launch.cluster import plain_yaml
from tfdrl.launch.cluster.amounts import amounts
from tfdrl.launch.cluster.manifest_settings import ManifestSettings
from tfdrl.launch.cluster.manifests import objects
from tfdrl.launch.cluster.membership import membership
from tfdrl.topology import Program, Role

_KUBERNETES = "1.31"
_PROGRAMS = [name for name in configuration.gin_programs() if not name.startswith("dqn/")]


def _written(*flags):
    command = [sys.executable, "-m", "binaries.manifests", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def _loaded(gin_file, *bindings):
    """The configuration and its program."""
    loaded = configuration.load([gin_file], list(bindings), tensorflow=False)
    program = Experiment.from_gin().architecture.program()
    gin.clear_config()
    return loaded, program


def _pods(documents):
    """(names that its own host has, pod spec) of each pod."""
    for job in (d for d in documents if d["kind"] == "Job"):
        spec = job["spec"]["template"]["spec"]
        for _ in range(job["spec"].get("completions", 1)):
            yield f"{spec.get('hostname')}.{spec.get('subdomain')}", spec


@pytest.mark.parametrize("gin_file", _PROGRAMS)
def test_every_program_is_valid_and_its_addresses_are_pods(gin_file):
    loaded, program = _loaded(gin_file)
    found = objects(program, loaded, ManifestSettings("run-1"))
    documents = list(yaml.safe_load_all(plain_yaml.text(found)))
    for document in documents:
        kubernetes_validate.validate(document, _KUBERNETES, strict=True)
        assert document["metadata"]["labels"]["tfdrl/run"] == "run-1"
    names = {name for name, spec in _pods(documents)}
    claims = {d["metadata"]["name"] for d in documents if d["kind"] == "PersistentVolumeClaim"}
    (config,) = (d for d in documents if d["kind"] == "ConfigMap")
    assert config["data"]["config.gin"] == loaded.text
    pods = list(_pods(documents))
    for _, spec in pods:
        (container,) = spec["containers"]
        flags = dict(flag[2:].split("=", 1) for flag in container["command"][3:] if "=" in flag)
        for role in ("replay", "learner", "parameter_server", "coordinator", "chief"):
            for address in flags.get(role, "").split(","):
                assert not address or address.rpartition(":")[0] in names
        for volume in spec["volumes"]:
            claim = volume.get("persistentVolumeClaim")
            assert claim is None or claim["claimName"] in claims
    keeps = [role for role in program.roles if role.serves or role.exports]
    assert len(claims) == sum(role.replicas for role in keeps)
    assert any(role.exports for role in keeps)


def test_numbers_images_and_requests_are_those_asked_for():
    flags = ["--image=here/tfdrl:2", "--light_image=here/light:2", "--cpu=250m"]
    flags += ["--storage=3Gi", "--memory=1Gi, learner=9Gi", "--gpus=2"]
    bindings = ["--gin_bindings=seed.actors = 7"]
    done = _written("--gin_file=seed/cartpole_vtrace.gin", *flags, *bindings)
    documents = {(d["kind"], d["metadata"]["name"]): d for d in yaml.safe_load_all(done.stdout)}
    actors = documents["Job", "seed-actor"]["spec"]
    assert (actors["completions"], actors["parallelism"]) == (7, 7)
    assert actors["template"]["spec"]["containers"][0]["image"] == "here/light:2"
    learner = documents["Job", "seed-learner-0"]["spec"]["template"]["spec"]["containers"][0]
    assert learner["image"] == "here/tfdrl:2"
    assert learner["resources"]["requests"] == {"cpu": "250m", "memory": "9Gi"}
    evaluator = documents["Job", "seed-evaluator-0"]["spec"]["template"]["spec"]["containers"][0]
    assert evaluator["resources"]["requests"] == {"cpu": "250m", "memory": "1Gi"}
    assert learner["resources"]["limits"] == {"memory": "18Gi", "nvidia.com/gpu": 2}
    assert evaluator["resources"]["limits"] == {"memory": "2Gi"}
    pods = {n: d["spec"]["template"]["spec"] for (k, n), d in documents.items() if k == "Job"}
    assert [name for name, pod in pods.items() if "tolerations" in pod] == ["seed-learner-0"]
    claim = documents["PersistentVolumeClaim", "seed-learner-0"]["spec"]["resources"]
    assert claim["requests"]["storage"] == "3Gi"
    (config,) = (d for (kind, _), d in documents.items() if kind == "ConfigMap")
    assert "seed.actors = 7" in config["data"]["config.gin"]


def test_nobody_else_is_reached_and_nothing_grows_without_end():
    done = _written("--gin_file=apex/cartpole.gin", "--memory=512Mi,replay=1.5Gi")
    documents = list(yaml.safe_load_all(done.stdout))
    (policy,) = (d["spec"] for d in documents if d["kind"] == "NetworkPolicy")
    own = {"podSelector": policy["podSelector"]}
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [{"from": [own]}]
    inside, names = policy["egress"]
    assert inside == {"to": [own]}
    assert names == {"ports": [{"protocol": p, "port": 53} for p in ("UDP", "TCP")]}
    pods = {
        d["metadata"]["name"]: d["spec"]["template"]["spec"]
        for d in documents
        if d["kind"] == "Job"
    }
    memory = {
        name: pod["containers"][0]["resources"]["limits"]["memory"] for name, pod in pods.items()
    }
    assert memory.pop("apex-replay-0") == "3Gi" and set(memory.values()) == {"1024Mi"}
    scratch = [v["emptyDir"] for pod in pods.values() for v in pod["volumes"] if "emptyDir" in v]
    assert len(scratch) == len(pods) + 1 and all(v == {"sizeLimit": "1Gi"} for v in scratch)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2Gi,lerner=4Gi", "--memory: seed has no role 'lerner'; its roles are: learner"),
        ("learner=4Gi", "begin with the amount for all other roles"),
        ("2Gi,3Gi", "write an amount for every role, and then"),
        ("2Gi,=3Gi", "write an amount for every role, and then"),
        ("", "write an amount for every role, and then"),
    ],
)
def test_amounts_that_are_none_are_refused(text, words):
    _, program = _loaded("seed/cartpole_vtrace.gin")
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        amounts("memory", text, program)


def test_settings_are_part_of_their_names_and_cannot_be_changed():
    names = set()
    for actors in (1, 2, 1):
        loaded, program = _loaded("a3c/cartpole.gin", f"a3c.workers = {actors}")
        found = objects(program, loaded, ManifestSettings("run"))
        (config,) = (o for o in found if o["kind"] == "ConfigMap")
        name, used = config["metadata"]["name"], set()
        for job in (o for o in found if o["kind"] == "Job"):
            volumes = job["spec"]["template"]["spec"]["volumes"]
            used |= {v["configMap"]["name"] for v in volumes if "configMap" in v}
        assert used == {name} and config["immutable"] is True
        names.add(name)
    assert len(names) == 2


def test_how_a_role_ends_decides_what_its_job_does():
    """As Kubernetes reads podFailurePolicy: the first rule that matches."""

    def action(job, code):
        for rule in job["spec"]["podFailurePolicy"]["rules"]:
            if code in rule.get("onExitCodes", {}).get("values", []):
                return rule["action"]
        return "Count"

    loaded, program = _loaded("apex/cartpole.gin")
    found = objects(program, loaded, ManifestSettings("run"))
    for job in (o for o in found if o["kind"] == "Job"):
        assert [action(job, code) for code in (1, 2, 3, 143)] == [
            "Count",
            "FailJob",
            "FailJob",
            "Ignore",
        ]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert "--stopped_exit_code=143" in container["command"]
        # Each task has restarts of its own: one that fails again and again slows down no other.
        is_indexed = job["spec"].get("completionMode") == "Indexed"
        assert ("backoffLimitPerIndex" in job["spec"]) == is_indexed
        assert ("backoffLimit" in job["spec"]) != is_indexed


def test_a_replay_has_as_much_time_to_read_what_it_holds_as_to_write_it():
    for role, container, _ in _containers("apex/cartpole.gin"):
        if role.serves:
            probe = container["startupProbe"]
            start_secs = probe["periodSeconds"] * probe["failureThreshold"]
            assert start_secs >= 300 + role.flush_secs
    assert max(role.flush_secs for role, *_ in _containers("apex/cartpole.gin")) > 0


def test_learners_that_cluster_know_each_other():
    role = Role("learner", "a:b", replicas=2, serves=True, clusters=True, essential=True)
    loaded = configuration.load(["impala/cartpole.gin"], [], tensorflow=False)
    found = objects(Program("impala", (role,)), loaded, ManifestSettings("two"))
    jobs = [o for o in found if o["kind"] == "Job"]
    for task, job in enumerate(jobs):
        container = job["spec"]["template"]["spec"]["containers"][0]
        (variable,) = container["env"]
        found = membership(
            role, task, "", {variable["name"]: variable["value"]}, insecure_network=True
        )
        assert f"--task={task}" in container["command"] and found.task == task
        assert [str(address) for address in found.addresses] == [
            "two-learner-0.two:9000",
            "two-learner-1.two:9000",
        ]


def _containers(gin_file, **settings):
    """(role, container, volumes) of each Job."""
    loaded, program = _loaded(gin_file)
    found = objects(program, loaded, ManifestSettings("run", **settings))
    for document in found:
        kubernetes_validate.validate(document, _KUBERNETES, strict=True)
        if document["kind"] == "Job":
            pod = document["spec"]["template"]
            role = program.role(pod["metadata"]["labels"]["tfdrl/role"])
            yield role, pod["spec"]["containers"][0], pod["spec"]["volumes"]


@pytest.mark.parametrize("gin_file", ["seed/cartpole_vtrace.gin", "a3c/cartpole.gin"])
def test_tls_is_for_those_who_can_and_for_those_who_talk_to_them(gin_file):
    for role, container, volumes in _containers(gin_file, tls_secret="ours"):
        flags = dict(flag[2:].split("=", 1) for flag in container["command"][3:] if "=" in flag)
        secrets = [v["secret"]["secretName"] for v in volumes if "secret" in v]
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        is_open = "--insecure_network" in container["command"]
        # What a parameter server serves has no TLS; the coordinator, whom it asks, has.
        assert is_open == (role.name == "parameter_server")
        assert secrets == ["ours"] and "/etc/tfdrl-tls" in mounts
        for flag in ("tls_certificate", "tls_key", "tls_ca", "token_file"):
            assert flags[flag].startswith("/etc/tfdrl-tls/")


def test_probes_ask_what_a_role_can_answer():
    def kinds(**settings):
        return {
            role.name: next(iter(container["livenessProbe"]))
            for role, container, _ in _containers("a3c/cartpole.gin", **settings)
            if role.serves
        }

    assert kinds() == {"coordinator": "grpc", "parameter_server": "tcpSocket"}
    assert kinds(tls_secret="ours") == {"coordinator": "exec", "parameter_server": "tcpSocket"}


@pytest.mark.parametrize("gin_file", ["apex/cartpole.gin", "a3c/cartpole.gin"])
def test_who_serves_ends_after_the_chief(gin_file):
    chief = {"apex": "run-learner-0.run:8000", "a3c": "run-coordinator-0.run:8000"}
    for role, container, _ in _containers(gin_file):
        flags = [flag for flag in container["command"] if flag.startswith("--chief=")]
        asks = role.name in ("replay", "parameter_server")
        assert flags == [f"--chief={chief[gin_file.partition('/')[0]]}"] * asks


def test_a_preempted_pod_does_not_complete_its_job():
    for role, container, _ in _containers("apex/cartpole.gin"):
        assert "--stopped_exit_code=143" in container["command"], role.name


@pytest.mark.parametrize("name", ["", "Pong", "1st", "a_b", "-a", "a-", "a" * 33])
def test_names_that_are_no_part_of_a_host_name(name):
    loaded = configuration.load(["impala/cartpole.gin"], [], tensorflow=False)
    with pytest.raises(ConfigurationError, match="lower-case"):
        objects(Program("a", ()), loaded, ManifestSettings(name))


def test_without_a_gin_file():
    done = _written("--name=a")
    assert done.returncode == 2 and "--gin_file is missing" in done.stderr
