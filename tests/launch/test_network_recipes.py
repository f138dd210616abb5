"""What docs/network.md recommends around Reverb and TensorFlow's servers, as it stands there."""

import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from paths import CHECKOUT, python_path

from tfdrl.launch.process import arguments_of
from tfdrl.topology import Address

_PAGE = (CHECKOUT / "docs" / "network.md").read_text()
_NAMESPACE = ["unshare", "-rn"]


def _can_unshare():
    names = ("unshare", "ip")
    if not all(map(shutil.which, names)):
        return False
    return subprocess.run([*_NAMESPACE, "true"], capture_output=True).returncode == 0


needs_namespaces = pytest.mark.skipif(not _can_unshare(), reason="no user namespaces here")


def _roles(directory):
    """Arguments of the roles that run there, by process id."""
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = arguments_of(int(path.name))
        except OSError:
            continue
        if f"--root_dir={directory}" in words and any(w.startswith("--role=") for w in words):
            found[int(path.name)] = words
    return found


def _wait(condition, limit_secs=30.0):
    deadline_secs = time.monotonic() + limit_secs
    while not (found := condition()):
        assert time.monotonic() < deadline_secs, "waited in vain"
        time.sleep(0.05)
    return found


@needs_namespaces
def test_a_run_in_a_network_namespace_is_reached_by_nobody_outside(tmp_path):
    (recipe,) = re.findall(r"^ *(unshare .*) tfdrl-train .*$", _PAGE, re.MULTILINE)
    gin = tmp_path / "tiny.gin"
    gin.write_text("import tiny_program\nexperiment.architecture = @tiny()\n")
    root_dir = tmp_path / "run"
    command = [*shlex.split(recipe), sys.executable, "-m", "binaries.train", f"--gin_file={gin}"]
    command += [f"--root_dir={root_dir}", "--gin_bindings=tiny.learner = 'serve'"]
    command += ["--gin_bindings=tiny.learner_serves = True"]
    process = subprocess.Popen(
        command,
        env={"PYTHONPATH": python_path(), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        _wait(lambda: (root_dir / "ready-learner-0").exists())
        (pid, words), *_ = (i for i in _roles(root_dir).items() if "--role=learner" in i[1])
        listen = next(w.partition("=")[2] for w in words if w.startswith("--listen="))
        address = Address.parse(listen)
        inside = ["nsenter", "-t", str(pid), "-U", "-n", "--preserve-credentials"]
        inside += [sys.executable, "-c"]
        inside.append(f"import socket; socket.create_connection({(address.host, address.port)})")
        _wait(lambda: subprocess.run(inside, capture_output=True).returncode == 0)
        with pytest.raises(OSError):
            socket.create_connection((address.host, address.port), timeout=2)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0, output
    finally:
        process.kill()
        process.wait()


@needs_namespaces
@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not here")
def test_the_rules_of_the_kernel_s_filter():
    """A table for each recipe; connections from one address end at the number that is said."""
    rules = re.findall(r"^ *(nft add .*)$", _PAGE, re.MULTILINE)
    ours = [rule for rule in rules if "10.0.0.0/24" in rule or "iifname lo" in rule]
    limits = [rule for rule in rules if rule not in ours and " drop" not in rule]
    drops = [rule for rule in rules if rule.endswith(" drop")]
    assert len(ours) == 2 and len(limits) == 4 and len(drops) == 1
    count = """
import socket
server, opened = socket.create_server(("127.0.0.1", 8000), backlog=200), []
for _ in range(100):
    try:
        opened.append(socket.create_connection(("127.0.0.1", 8000), timeout=1))
    except OSError:
        pass
print(len(opened))
"""
    script = "\n".join(["set -e", "ip link set lo up", *limits, 'exec "$@"'])
    command = [*_NAMESPACE, "sh", "-c", script, "sh", sys.executable, "-c", count]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "64", done.stderr
    script = "\n".join(["set -e", "ip link set lo up", *limits[:2], *ours, *drops, 'exec "$@"'])
    command = [*_NAMESPACE, "sh", "-c", script, "sh", sys.executable, "-c", count]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "100", done.stderr  # lo is open
