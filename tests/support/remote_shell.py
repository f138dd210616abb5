"""A launcher of machines that a remote shell reaches, such as `ssh HOST`."""

import contextlib
import pathlib
import shlex
import subprocess
import sys

from tfdrl.launch import step
from tfdrl.launch.local.addresses import free_ports
from tfdrl.launch.process import LAUNCHER_VARIABLE


class RemoteShellLauncher:
    """Machines as nodes: `shell` and a node's name begin what runs a command there.

    Python, tfdrl and the run's directory are at the same place on all of them.
    """

    is_local, patient_signals = False, ()

    def __init__(self, shell, nodes):
        self._shell, self._nodes = shell, nodes

    def nodes(self, program):
        return self._nodes

    def ports(self, start, counts):
        return {name: free_ports() for name in counts}  # of this machine: as good as any other

    def environment(self, role, task):
        return {}

    def remarks(self, program, placed):
        return [f"  {role}: {', '.join(n.name for n in there)}" for role, there in placed.items()]

    def starter(self, start, notify):
        return _Shells(self._shell)

    def stopped_by(self, number):
        return ""


class _Shells:
    doing = lost = ""

    def __init__(self, shell):
        self._shell = shell

    def is_ready(self, role):
        return True

    def start(self, spec):
        here = str(pathlib.Path.cwd())
        environment = {n: v for n, v in spec.environment.items() if n != LAUNCHER_VARIABLE}
        remote = [sys.executable, "-m", step.__name__, spec.name, *spec.command]
        return _Shell(
            subprocess.Popen(
                [*self._shell, spec.node, f"cd {shlex.quote(here)} && exec {shlex.join(remote)}"],
                stdin=subprocess.PIPE,
                stdout=spec.log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                bufsize=0,
            )
        )

    def is_ending(self):
        return False

    def gone(self, nodes):
        return set()

    def close(self):
        pass


class _Shell:
    """A remote shell whose standard input is the role's first process's, which heeds it."""

    def __init__(self, shell):
        self._shell = shell

    def poll(self):
        code = self._shell.poll()
        return code if code is None or code <= 128 else 128 - code

    def stop(self):
        self._say(step.STOP)

    def kill(self):
        self._say(step.KILL)

    def wait(self):
        self._shell.wait(10.0)
        return self.poll()

    def _say(self, word):
        with contextlib.suppress(OSError):  # it has ended
            self._shell.stdin.write(word)
