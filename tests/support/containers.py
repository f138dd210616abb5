"""Images and containers without a Docker engine: built by buildah, run by runc.

Each container has a host of its own (hosts.py), a read-only root, no capabilities, and
process ids of its own.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from paths import CHECKOUT

_ENV = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot", **os.environ}
#: More flags of `buildah build`, such as --volume for the certificates of a proxy.
FLAGS_VARIABLE = "TFDRL_TEST_BUILD_FLAGS"


def require_tools() -> None:
    """Skips the test where there is no buildah, runc or root."""
    missing = [tool for tool in ("buildah", "runc", "ip") if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root, buildah, runc and ip; missing: {', '.join(missing) or 'root'}")


def buildah(*arguments: str, timeout_secs: float = 60.0) -> str:
    """What buildah says. Fails the test with its errors."""
    command = ["buildah", *arguments]
    done = subprocess.run(
        command, cwd=CHECKOUT, env=_ENV, capture_output=True, text=True, timeout=timeout_secs
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout.strip()


class Image:
    """An image of this checkout, built if it has to be, and its files."""

    def __init__(self, dockerfile: str, tag: str):
        # Docker's format: OCI's has no HEALTHCHECK.
        flags = ["--layers", "--format=docker", *os.environ.get(FLAGS_VARIABLE, "").split()]
        buildah("build", *flags, "-f", f"docker/{dockerfile}", "-t", tag, ".", timeout_secs=1500)
        inspected = json.loads(buildah("inspect", "--type=image", tag))
        self.config: dict[str, Any] = inspected["Docker"]["config"]
        self._container = buildah("from", "--pull-never", tag)
        self.root = pathlib.Path(buildah("mount", self._container))

    def close(self) -> None:
        """Gives the mounted files back; the image stays."""
        buildah("umount", self._container)
        buildah("rm", self._container)


class Container:
    """One running container.

    Args:
      image: whose files it sees.
      name: unique on this machine; its host name.
      directory: for what runc wants to know, and the log.
      network: name of a network namespace.
      arguments: its process; None: as the image says.
      volumes: directories of this machine by path in the container; ":ro" after it: read-only.
      environment: more of it than the image has.
    """

    def __init__(
        self,
        image: Image,
        name: str,
        directory: pathlib.Path,
        network: str,
        arguments: Sequence[str] | None = None,
        volumes: Mapping[str, pathlib.Path] = {},
        environment: Mapping[str, str] = {},
    ):
        self.name, self._log = name, directory / f"{name}.log"
        config = image.config
        if arguments is None:
            arguments = [*config["Entrypoint"], *(config.get("Cmd") or ())]
        user, group = map(int, config["User"].split(":"))
        nothing = {kind: [] for kind in ("bounding", "effective", "permitted", "inheritable")}
        process = {
            "terminal": False,
            "user": {"uid": user, "gid": group},
            "args": list(arguments),
            "env": [*config["Env"], *(f"{key}={value}" for key, value in environment.items())],
            "cwd": config["WorkingDir"],
            "capabilities": nothing,
            "noNewPrivileges": True,
        }
        namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
        namespaces.append({"type": "network", "path": f"/var/run/netns/{network}"})
        bundle = directory / f"{name}.bundle"
        bundle.mkdir()
        specification = {
            "ociVersion": "1.0.2",
            "process": process,
            "root": {"path": str(image.root), "readonly": True},
            "hostname": name,
            "mounts": [*_SYSTEM_MOUNTS, *_binds(network, volumes)],
            "linux": {"namespaces": namespaces},
        }
        (bundle / "config.json").write_text(json.dumps(specification))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["runc", "run", "--bundle", str(bundle), name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def returncode(self) -> int | None:
        return self._process.poll()

    def run(self, *command: str) -> subprocess.CompletedProcess:
        """Runs one command more in it, as `docker exec` does."""
        return subprocess.run(
            ["runc", "exec", self.name, *command], capture_output=True, text=True, timeout=60
        )

    def signal(self, number: int) -> None:
        """Sends a signal to its process 1."""
        subprocess.run(["runc", "kill", self.name, str(number)], capture_output=True)

    def exit_code(self, limit_secs: float) -> int:
        """Its exit code, within a limit."""
        try:
            return self._process.wait(limit_secs)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name} did not end within {limit_secs:g} s\n{self.log[-3000:]}")

    def remove(self) -> None:
        """Kills and forgets it."""
        subprocess.run(["runc", "delete", "--force", self.name], capture_output=True)
        self._process.kill()
        self._process.wait()


_SYSTEM_MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    },
    {
        "destination": "/tmp",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "noexec", "nodev", "mode=1777"],
    },
]


def _binds(network: str, volumes: Mapping[str, pathlib.Path]) -> list[dict[str, Any]]:
    sources = {"/etc/hosts": pathlib.Path("/etc/netns") / network / "hosts", **volumes}
    return [
        {
            "destination": path.partition(":")[0],
            "type": "bind",
            "source": str(source),
            "options": ["rbind", path.partition(":")[2] or "rw"],
        }
        for path, source in sources.items()
    ]
