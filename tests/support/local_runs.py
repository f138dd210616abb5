"""Whole local runs as their user starts them, watched through the learner's status."""

import contextlib
import os
import pathlib
import signal
import tempfile
import time

import preloaded
from paths import CHECKOUT

from tfdrl.errors import TfdrlError
from tfdrl.launch.process import arguments_of
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.topology import Address


class Run:
    """One `tfdrl-train`; its roles are found by the root_dir in their command lines."""

    def __init__(self, gin_file, root_dir, *flags):
        self.root_dir = root_dir
        arguments = [f"--gin_file={gin_file}", f"--root_dir={root_dir}", *flags]
        self._log = pathlib.Path(tempfile.mkdtemp()) / "launcher.log"
        self.popen = preloaded.Process(
            "binaries.train", arguments, self._log, {**os.environ}, CHECKOUT
        )

    @property
    def output(self):
        """What it has printed."""
        return self._log.read_text()

    def processes(self, *arguments):
        """Process ids whose command lines have `arguments` and the root_dir."""
        found = []
        wanted = {f"--root_dir={self.root_dir}", *arguments}
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted <= set(arguments_of(int(path.name))):
                    found.append(int(path.name))
        return found

    def statuses(self):
        """Yields the learner's status about twice a second, until the run has ended."""
        client = None
        while self.popen.poll() is None:
            time.sleep(0.5)
            if client is None:
                client = self._client()
                continue
            with contextlib.suppress(TfdrlError):
                yield client.status(timeout_secs=2.0)

    def to_its_end(self):
        """Waits for exit code 0 and for every process; returns all statuses and the output."""
        try:
            statuses = list(self.statuses())
            output = self.output
            assert self.popen.returncode == 0, output
            assert not self.processes()
        finally:
            self.kill()
        return statuses, output

    def _client(self):
        chiefs = [*self.processes("--role=coordinator"), *self.processes("--role=learner")]
        for pid in chiefs:
            arguments = arguments_of(pid)
            listen = next(a.partition("=")[2] for a in arguments if a.startswith("--listen="))
            address = Address.parse(listen)
            return TrainingClient(address, experiment="", role="test", task=0, run_id=1)
        return None

    def kill(self):
        self.popen.kill()
        self.popen.wait()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def finish(gin_file, root_dir):
    """Runs to the end in `root_dir`, unless a test before did that (`-m slow` leaves it out)."""
    if (root_dir / "result.json").exists():
        return
    run = Run(gin_file, root_dir)
    try:
        assert run.popen.wait(timeout=240) == 0, run.output
    finally:
        run.kill()
