"""Hosts on this machine: network namespaces on one bridge, whose cables can be pulled."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Sequence

import pytest


def _why_not() -> str | None:
    """What this machine lacks for it; None if hosts can be made."""
    if shutil.which("ip") is None:
        return "needs the command ip (iproute2)"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    probe = f"tfdrl{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if done.returncode:
        return f"network namespaces are not permitted: {done.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return None


class Hosts:
    """`number` hosts; each has an address that it, the others and this process reach.

    To be entered as a context; skips the test where hosts cannot be made. `names[i]` are names
    of host i that all of the hosts know. Interfaces and namespaces have this process's id in
    their names.
    """

    def __init__(self, number: int, names: Sequence[Sequence[str]] = ()):
        self._names = names
        self._number, self._id = number, os.getpid() % 100000
        self._subnet = f"10.213.{self._id % 254 + 1}"
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Hosts:
        reason = _why_not()
        if reason:
            pytest.skip(reason)
        with contextlib.ExitStack() as undo:
            bridge = f"tf{self._id}br"
            _ip("link", "add", bridge, "type", "bridge")
            undo.callback(_ip, "link", "del", bridge)
            _ip("addr", "add", f"{self._subnet}.254/24", "dev", bridge)
            _ip("link", "set", bridge, "up")
            lines = [f"{self.address(i)} {' '.join(names)}" for i, names in enumerate(self._names)]
            for host in range(self._number):
                if lines:  # "ip netns exec" shows it as /etc/hosts
                    directory = pathlib.Path("/etc/netns") / self.name(host)
                    directory.mkdir(parents=True)
                    undo.callback(shutil.rmtree, directory)
                    (directory / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
                name, cable = self.name(host), self._cable(host)
                _ip("netns", "add", name)
                undo.callback(_ip, "netns", "del", name)
                _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
                undo.callback(_ip, "link", "del", cable)  # or it lives a little longer than netns
                _ip("link", "set", cable, "master", bridge)
                _ip("link", "set", cable, "up")
                _ip("-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
                for interface in ("eth0", "lo"):
                    _ip("-n", name, "link", "set", interface, "up")
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exception) -> None:
        self._undo.close()

    def address(self, host: int) -> str:
        """Its IPv4 address."""
        return f"{self._subnet}.{host + 1}"

    def on(self, host: int) -> tuple[str, ...]:
        """What to put before a command so that it runs there."""
        return ("ip", "netns", "exec", self.name(host))

    def name(self, host: int) -> str:
        """Of its network namespace."""
        return f"tf{self._id}h{host}"

    def cut(self, host: int) -> None:
        """Pulls its cable: nothing goes to it or comes from it, and nobody is told."""
        _ip("link", "set", self._cable(host), "down")

    def heal(self, host: int) -> None:
        _ip("link", "set", self._cable(host), "up")

    def lose(self, host: int, incoming: float = 0.0, outgoing: float = 0.0) -> None:
        """From now on this share of its packets is lost, at random; without arguments: none.

        Skips the test where there is no iptables, or the kernel cannot.
        """
        if shutil.which("iptables") is None:
            pytest.skip("needs the command iptables, to lose packets")
        tables = [*self.on(host), "iptables", "-w"]
        subprocess.run([*tables, "-F"], check=True, capture_output=True)
        for chain, share in (("INPUT", incoming), ("OUTPUT", outgoing)):
            if share:
                chance = ["-m", "statistic", "--mode", "random", "--probability", str(share)]
                command = [*tables, "-A", chain, *(chance if share < 1 else []), "-j", "DROP"]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    pytest.skip(f"packets cannot be lost here: {done.stderr.strip()}")

    def _cable(self, host: int) -> str:
        return f"tf{self._id}v{host}"


#: (incoming, outgoing) for `Hosts.lose`: nothing gets in, nothing gets out, a fifth is lost.
LOSSES = [(1.0, 0.0), (0.0, 1.0), (0.2, 0.2)]


@contextlib.contextmanager
def back_within(limit_secs: float):
    """What is inside waits for those who come back after the network; it must take less."""
    healed_secs = time.monotonic()
    yield
    print(f"\nback {time.monotonic() - healed_secs:.1f} s after the network")
    assert time.monotonic() - healed_secs < limit_secs


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
