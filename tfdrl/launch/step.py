"""The first process of a step on its node: it starts the role, and does what the launcher says.

    python -m tfdrl.launch.step NAME COMMAND...

The launcher's word comes on standard input, which srun forwards: `STOP` and `KILL`, a byte each.
The end of the input is the launcher's own: the role is then told to stop, and killed if it does not
in time. SIGTERM, which Slurm sends to all of a job that is cancelled, preempted or over time, is
passed on; a role that ends with 0 because of that, and not of the launcher, has not finished: its
step says 143, as a shell would. A role that has finished is said in a line of the output: srun ends
with 0, too, when the node of its step has gone down.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Sequence

from tfdrl.errors import EXIT_OK
from tfdrl.launch.local.fork_client import start_afresh
from tfdrl.launch.local.processes import LocalProcess
from tfdrl.launch.process import LAUNCHER_VARIABLE, reap_children

STOP, KILL = b"t", b"k"
#: How long a role whose launcher is gone may take to end.
_ORPHAN_SECS = 60.0
_POLL_SECS = 1.0
#: What shells, and srun, add to the number of the signal that ended a process.
SIGNAL_OFFSET = 128


def end_line(name: str) -> str:
    """What is printed at the end of a role that ended with 0."""
    return f"==== step {name} is over ===="


def main(name: str, command: Sequence[str]) -> int:
    """Runs the command to its end; returns its exit code, as a shell would."""
    reap_children()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *unused: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    environment = {**os.environ, LAUNCHER_VARIABLE: str(os.getpid())}
    role = LocalProcess(start_afresh(command, sys.stdout.buffer, environment))
    kill_at_secs, inputs = float("inf"), [read_end, sys.stdin.fileno()]
    is_cancelled = is_told = False
    while (code := role.poll()) is None:
        ready = select.select(inputs, [], [], _POLL_SECS)[0]
        if read_end in ready and signal.SIGTERM in os.read(read_end, 64):
            is_cancelled = True
            role.stop()
        if sys.stdin.fileno() in ready:
            said = os.read(sys.stdin.fileno(), 64)
            if KILL in said:
                role.kill()
            elif STOP in said or not said:
                is_told = True
                role.stop()
            if not said:
                inputs = [read_end]
                kill_at_secs = time.monotonic() + _ORPHAN_SECS
        if time.monotonic() > kill_at_secs:
            role.kill()
    if code == EXIT_OK and is_cancelled and not is_told:
        code = -signal.SIGTERM
    if code == EXIT_OK:
        print(end_line(name), flush=True)
    return code if code >= 0 else SIGNAL_OFFSET - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
