"""The manifests' pods, each on a host of its own with the names that Kubernetes would give it."""

import os
import subprocess
import sys

import pytest
import yaml
from hosts import Hosts
from paths import CHECKOUT, DATA
from running_roles import Process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def _pods(documents):
    """(host name, command, environment) of each pod."""
    for job in (d for d in documents if d["kind"] == "Job"):
        spec = job["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        for index in range(job["spec"].get("completions", 1)):
            name = spec.get("hostname") or f"{job['metadata']['name']}-{index}"
            fields = {"$(JOB_COMPLETION_INDEX)": str(index)}
            yield name, spec.get("subdomain"), container["command"], fields


@pytest.mark.parametrize(
    ("gin_file", "chief", "flags"),
    [
        ("apex_catch.gin", "apex-learner-0", []),
        ("seed_catch.gin", "seed-learner-0", ["--tls_secret=seed-tls"]),
        ("a3c_catch.gin", "a3c-coordinator-0", []),
    ],
)
def test_a_run_of_the_pods_is_solved(gin_file, chief, flags, tmp_path):
    command = [sys.executable, "-m", "binaries.manifests", f"--gin_file={DATA / gin_file}", *flags]
    written = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    documents = list(yaml.safe_load_all(written.stdout))
    (config,) = (d["data"]["config.gin"] for d in documents if d["kind"] == "ConfigMap")
    (tmp_path / "config.gin").write_text(config)
    pods = list(_pods(documents))
    if flags:  # the secret
        script = CHECKOUT / "docker" / "make_certificates.sh"
        subprocess.run([script, tmp_path / "tls", f"{chief}.seed"], check=True)
    processes = {}
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with Hosts(len(pods), [[f"{name}.{domain}"] for name, domain, *_ in pods]) as hosts:
        try:
            for host, (name, _, parts, fields) in enumerate(pods):
                volume = tmp_path / name
                volume.mkdir()
                # What kubelet does: mounts, and the fields of the command.
                fields |= {"/etc/tfdrl-tls": str(tmp_path / "tls")}
                fields |= {"/etc/tfdrl/": f"{tmp_path}/", "/run/tfdrl": str(volume)}
                parts = [sys.executable, *parts[1:]]
                for text, value in fields.items():
                    parts = [part.replace(text, value) for part in parts]
                log = tmp_path / f"{name}.log"
                processes[name] = Process([*hosts.on(host), *parts], log, environment, False)
            logs = "\n".join(f"--- {n}\n{p.log[-1500:]}" for n, p in processes.items())
            assert processes[chief].exit_code(200.0) == 0, logs
            result = next((tmp_path / chief).glob("result.json")).read_text()
            assert "solved" in result
            for name, process in processes.items():  # nobody stops them
                assert process.exit_code(60.0) == 0, f"{name}\n{process.log[-1500:]}"
        finally:
            for process in processes.values():
                process.kill()
