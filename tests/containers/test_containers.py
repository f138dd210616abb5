"""The images, and the Compose file's services as containers. Slow: it builds both images."""

import contextlib
import json
import os
import pathlib
import subprocess
import time
import urllib.request

import pytest
import yaml
from containers import Container, Image, require_tools
from hosts import Hosts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

_COMPOSE = pathlib.Path(__file__).resolve().parents[2] / "docker" / "compose.yaml"
_USER = 1000
_MOST_MEGABYTES = 400  # of SEED's actor, with ALE


@pytest.fixture(scope="module")
def images():
    require_tools()
    found = {
        "tfdrl-seed-actor:latest": Image("seed-actor.Dockerfile", "tfdrl-seed-actor"),
        "tfdrl:latest": Image("tfdrl.Dockerfile", "tfdrl"),
    }
    yield found
    for image in found.values():
        image.close()


def _megabytes(directory):
    done = subprocess.run(
        ["du", "-sx", "--apparent-size", "-B1", str(directory)], capture_output=True, text=True
    )
    return int(done.stdout.split()[0]) / 1e6


def test_sizes_and_contents(images):
    sizes = {name: _megabytes(image.root) for name, image in images.items()}
    print(f"\nMB: {sizes}")
    assert sizes["tfdrl-seed-actor:latest"] < _MOST_MEGABYTES
    for name, image in images.items():
        assert image.config["User"] == f"{_USER}:{_USER}" and image.config["Labels"]
        assert image.config["Healthcheck"]["Test"] == ["CMD", "tfdrl-health"]
        tools = {"gcc", "g++", "cc", "c++", "ld", "make", "clang"}
        places = [image.root / place for place in ("usr/bin", "usr/local/bin", "opt/tfdrl/bin")]
        assert not tools & {path.name for place in places for path in place.iterdir()}, name
    packages = "opt/tfdrl/lib/python3.11/site-packages"
    assert (images["tfdrl:latest"].root / packages / "tensorflow").is_dir()
    light = images["tfdrl-seed-actor:latest"].root / packages
    assert not list(light.glob("tensorflow*")) and (light / "ale_py").is_dir()


@pytest.mark.parametrize("name", ["tfdrl:latest", "tfdrl-seed-actor:latest"])
def test_image_without_arguments_shows_its_help(images, tmp_path, name):
    with Hosts(1, [["here"]]) as hosts:
        container = Container(images[name], "help", tmp_path, hosts.name(0))
        try:
            assert container.exit_code(60) == 0
            assert "--gin_file" in container.log
        finally:
            container.remove()


@pytest.mark.parametrize("profile", ["seed", "apex", "a3c", "impala", "gorila"])
def test_a_profile_trains_to_the_end(images, tmp_path, profile):
    document = yaml.safe_load(_COMPOSE.read_text())
    services = {
        name: service
        for name, service in document["services"].items()
        if service["profiles"] == [profile]
    }
    tensorboard = f"{profile}-tensorboard"
    volume = tmp_path / "volume"
    volume.mkdir()
    os.chown(volume, _USER, _USER)
    chief = next(name for name in services if name.endswith(("coordinator-0", "learner-0")))
    running = {}
    with Hosts(len(services), [[name] for name in services]) as hosts:
        try:
            for host, (name, service) in enumerate(services.items()):
                running[name] = Container(
                    images[service["image"]],
                    *(name, tmp_path, hosts.name(host), service["entrypoint"]),
                    volumes={service["volumes"][0].partition(":")[2]: volume},
                )
            roles = {name: c for name, c in running.items() if name != tensorboard}
            _wait_for_health(roles)
            _check_confinement(running[chief])
            assert running[chief].exit_code(600) == 0, _logs(running)
            assert "solved" in (volume / "result.json").read_text()
            for left in ("config.gin", "evaluations.csv", "policy/saved_model.pb"):
                assert (volume / left).is_file()
            address = hosts.address(list(services).index(tensorboard))
            _wait_for_curves(address, running[tensorboard])
            _check_ends(roles, services)
        finally:
            for container in running.values():
                container.remove()


def _logs(running):
    return "\n".join(f"--- {name}\n{c.log[-1500:]}" for name, c in running.items())


def _wait_for_health(running):
    """All say that they are well, as HEALTHCHECK asks them."""
    deadline_secs = time.monotonic() + 180
    for name, container in running.items():
        while (done := container.run("tfdrl-health")).returncode:
            assert container.returncode is None and time.monotonic() < deadline_secs, (
                f"{name}: {done.stdout}{done.stderr}\n{_logs(running)}"
            )
            time.sleep(1)


def _wait_for_curves(address, container):
    """TensorBoard shows the returns of the run in the volume."""
    deadline_secs, found = time.monotonic() + 90, {}
    while not any("evaluation/return" in tags for tags in found.values()):
        assert container.returncode is None and time.monotonic() < deadline_secs, (
            f"{found}\n{container.log[-2000:]}"
        )
        with contextlib.suppress(OSError):
            url = f"http://{address}:6006/data/plugin/scalars/tags"
            found = json.load(urllib.request.urlopen(url, timeout=10))
        time.sleep(1)


def _check_confinement(container):
    assert container.run("id", "-u").stdout == f"{_USER}\n"
    assert "Read-only" in container.run("touch", "/opt/tfdrl/x").stderr
    first = container.run("cat", "/proc/1/cmdline").stdout.split("\0")
    assert first[1:3] == ["-m", "tfdrl.launch.role"]


def _check_ends(running, services):
    """Who acts was told that the run is over; who serves ends when it is told to stop."""
    for name, container in running.items():
        if "--listen" not in str(services[name]):
            assert container.exit_code(30) == 0, container.log
    serving = [c for c in running.values() if c.returncode is None]
    for container in serving:
        container.signal(15)
    for container in serving:
        assert container.exit_code(10) == 143, container.log
