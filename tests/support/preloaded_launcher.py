"""`tfdrl-train` in a process that has imported all: it forks its fork server instead of importing.

What differs from a launcher that a user starts is how the fork server comes to be, nothing else;
tests/launch/test_fork_server.py and test_printed_commands.py start real ones.
"""

import os
import pathlib
import signal
import sys

import setproctitle

from tfdrl.launch import process
from tfdrl.launch.local import fork_client, fork_server

_start_afresh = fork_client.start_fork_server


def console():
    """As the console script, with the same arguments."""
    from binaries import train

    fork_client.start_fork_server = _start
    # They may be a pipe, and were made for the fork server's log.
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
    sys.argv[0] = train.__file__
    train.console()


def _start(channel, preload, log, environment, quiet):
    if ("tensorflow" in preload) != ("tensorflow" in sys.modules):
        return _start_afresh(channel, preload, log, environment, quiet)
    assert fork_server.threads() == 1
    root_dir = pathlib.Path(log.name).parents[1]
    pid = os.fork()
    if pid:
        return fork_client.ForkedProcess(pid)
    try:
        os.setsid()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        for file in set(map(int, os.listdir("/proc/self/fd"))) - {0, 1, 2, channel.fileno()}:
            try:
                os.close(file)
            except OSError:  # that of the directory
                continue
        os.environ.clear()
        os.environ.update(environment)
        process.tell_end()  # what this process says is said to others
        process.leave_on_signals()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        process.die_with_launcher()
        setproctitle.setproctitle(f"-m tfdrl.launch.local.fork_server --root_dir={root_dir}")
        fork_server.serve(channel)
    finally:
        os._exit(1)
