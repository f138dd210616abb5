"""What a test forks first: it dies with the tests, then is the module that was asked for.

Or what a pytest that is killed leaves behind would learn on, for as long as it likes.
"""

import importlib
import os
import signal
import sys

from tfdrl.launch import process

#: The process id of the tests.
PARENT_VARIABLE = "TFDRL_TEST_PARENT"


def console():
    """`module argument ...`: as `python -m module argument ...`, by its function `console`."""
    process.die_with_parent(signal.SIGKILL)
    if os.getppid() != int(os.environ.pop(PARENT_VARIABLE)):  # it died before
        os._exit(1)
    sys.argv = sys.argv[1:]
    importlib.import_module(sys.argv[0]).console()
