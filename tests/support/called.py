"""What `preloaded.call` runs in a process of its own, and scripts that tests start so."""

import importlib
import runpy
import sys


def console():
    """`module:function argument ...`, or `script.py argument ...`."""
    sys.argv = sys.argv[1:]
    if sys.argv[0].endswith(".py"):
        runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit(0)
    module, _, function = sys.argv[0].partition(":")
    getattr(importlib.import_module(module), function)(*sys.argv[1:])
    sys.exit(0)
