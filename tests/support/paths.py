"""Where tests, and the processes that they start, find things."""

import os
import pathlib

SUPPORT = pathlib.Path(__file__).resolve().parent
TESTS = SUPPORT.parent
CHECKOUT = TESTS.parent
#: Small runs by gin file, and the test vectors.
DATA = TESTS / "data"


def python_path(*more) -> str:
    """PYTHONPATH of a process: the checkout, these helpers, and more directories."""
    return os.pathsep.join(map(str, [CHECKOUT, SUPPORT, *more]))
