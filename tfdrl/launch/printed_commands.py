"""Commands that are printed for the user, such that they work in the shell that shows them.

What is installed beside this Python is often not on PATH: an environment that `make` has made is
not activated.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import sysconfig


def program(name: str) -> str:
    """What runs a program that is installed with tfdrl: its name where PATH leads to it."""
    return _shown(pathlib.Path(sysconfig.get_path("scripts")) / name)


def installed(name: str) -> str:
    """The path of a program that is installed beside this Python; its name if none is."""
    path = pathlib.Path(sysconfig.get_path("scripts")) / name
    return str(path) if path.is_file() else name


def is_found(name: str) -> bool:
    """Whether a program is installed beside this Python, or on PATH."""
    beside = pathlib.Path(sysconfig.get_path("scripts")) / name
    return beside.is_file() or shutil.which(name) is not None


def python() -> str:
    """What runs this Python."""
    return _shown(pathlib.Path(sys.executable))


def _shown(path: pathlib.Path) -> str:
    """The name, or the path, relative to the working directory where that is shorter."""
    found = shutil.which(path.name)
    if not path.is_file() or (found and _directory(found) == _directory(path)):
        return path.name
    # A name without a slash would be looked for on PATH.
    relative = os.path.relpath(path)
    relative = relative if os.sep in relative else os.path.join(os.curdir, relative)
    return min(str(path), relative, key=len)


def _directory(path: str | os.PathLike) -> str:
    """Where it lies; the file itself may be a link to another environment's."""
    return os.path.realpath(os.path.dirname(os.path.abspath(path)))
