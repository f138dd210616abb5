"""What a test forks first: it dies with the tests, then is the module that was asked for.

Or what a pytest that is killed leaves behind would learn on, for as long as it likes.
"""

import ctypes
import importlib
import os
import signal
import sys

from tfdrl.launch import process

#: The process id of the tests.
PARENT_VARIABLE = "TFDRL_TEST_PARENT"
#: Set for what is to be the first process of a PID namespace, as in a container.
PID_1_VARIABLE = "TFDRL_TEST_PID_1"
_CLONE_NEWPID = 0x20000000


def console():
    """`module argument ...`: as `python -m module argument ...`, by its function `console`."""
    process.die_with_parent(signal.SIGKILL)
    if os.getppid() != int(os.environ.pop(PARENT_VARIABLE)):  # it died before
        os._exit(1)
    if os.environ.pop(PID_1_VARIABLE, ""):
        _become_pid_1()
    sys.argv = sys.argv[1:]
    importlib.import_module(sys.argv[0]).console()


def _become_pid_1():
    """As `unshare --pid --fork --kill-child`; the process outside ends as the one inside does."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWPID):
        raise OSError(ctypes.get_errno(), "no PID namespace can be made")
    inside = os.fork()
    if inside == 0:
        process.die_with_parent(signal.SIGKILL)
        return
    exit_code = os.waitstatus_to_exitcode(os.waitpid(inside, 0)[1])
    if exit_code < 0:
        os.kill(os.getpid(), -exit_code)
    os._exit(exit_code)
