"""Which lines of a traceback are the user's own: not of Python, of a library, or of tfdrl."""

from __future__ import annotations

import pathlib
import site
import sysconfig
import traceback

_TFDRL = str(pathlib.Path(__file__).resolve().parents[1])
_GENERATED = "__autograph_generated_file"


def own_frame(error: BaseException) -> str:
    """The innermost frame of the user's own, as "file:line, in function: code"; "" if none is."""
    libraries = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    libraries |= {_TFDRL, site.getusersitepackages()}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        is_own = not frame.filename.startswith(("<", *libraries))
        if is_own and _GENERATED not in frame.filename:
            return f"{frame.filename}:{frame.lineno}, in {frame.name}: {frame.line}"
    return ""
