"""Where gin files are: as given, in the checkout's gin/, or in the installed package."""

from __future__ import annotations

import difflib
import itertools
import os
import pathlib
import re

from tfdrl.errors import ConfigurationError

_PACKAGE_DIR = pathlib.Path(__file__).resolve().parents[1]

#: The checkout's directory, then the copy that a wheel installs.
GIN_DIRS = (_PACKAGE_DIR.parent / "gin", _PACKAGE_DIR / "gin_files")

_EXAMPLE = "write one such as apex/cartpole.gin; tfdrl-train --list has all that come with tfdrl"
_OTHER_COMMAND = re.compile(r"\btfdrl-(benchmark|compare)")


def find_gin_file(name: str | pathlib.Path) -> pathlib.Path:
    """The file that `name` means, such as "apex/cartpole.gin".

    Looked for as given (absolute, or relative to the working directory), then in the
    checkout's gin/, then among the files installed with tfdrl. A leading "gin/" and a
    missing ".gin" are forgiven.

    Raises:
      ConfigurationError: no such file; says where it was looked for and what there is.
    """
    given = pathlib.Path(name)
    if not given.name:
        raise ConfigurationError(f"{os.fspath(name)!r} names no gin file; {_EXAMPLE}")
    # A path that ends in / would name a directory; is_file() below refuses it.
    spellings = [given] if given.suffix == ".gin" else [given, given.with_name(given.name + ".gin")]
    for path in spellings:
        if path.is_file():
            return path.resolve()
    if not given.is_absolute():
        for path in spellings:
            relative = path.relative_to("gin") if path.parts[0] == "gin" else path
            for directory in _existing_dirs():
                if (directory / relative).is_file():
                    return directory / relative
    raise ConfigurationError(_not_found(str(name)))


def read_utf8(path: pathlib.Path) -> str:
    """The text of a file.

    Raises ConfigurationError if it cannot be read, or, with the line, if it is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            f"{path}:{line}: byte {content[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        ) from None


def gin_file_names() -> list[str]:
    """The gin files that ship with tfdrl, as `find_gin_file` takes them, sorted."""
    names = set()
    for directory in _existing_dirs():
        names.update(path.relative_to(directory).as_posix() for path in directory.rglob("*.gin"))
    return sorted(names)


def gin_programs() -> dict[str, str]:
    """Those that train something, with what their first sentence says; others are included."""
    names = [name for name in gin_file_names() if not name.startswith("environments/")]
    return {name: _first_sentence(read_utf8(find_gin_file(name))) for name in names}


def is_measured(name: str) -> bool:
    """Whether a gin file says of itself that another command than tfdrl-train is for it."""
    return _OTHER_COMMAND.search(_comment(read_utf8(find_gin_file(name)))) is not None


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.])\s+(?=[A-Z])", _comment(text))[0].rstrip(".")


def _comment(text: str) -> str:
    """The comment that a file begins with, on one line."""
    lines = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in lines)


def _existing_dirs() -> list[pathlib.Path]:
    # Beside an installed package, "gin" is the gin library, which must not be searched.
    return [path for path in GIN_DIRS if path.is_dir() and not (path / "__init__.py").exists()]


def _not_found(name: str) -> str:
    known = gin_file_names()
    plain = name[4:] if name.startswith("gin/") else name
    nearest = difflib.get_close_matches(plain, known, n=3, cutoff=0.5)
    # The same file name in another directory is the other likely slip.
    stem = pathlib.PurePath(plain).stem
    nearest += [other for other in known if stem and pathlib.PurePath(other).stem == stem]
    nearest = list(dict.fromkeys(nearest))[:5]
    searched = ", ".join(str(path) for path in [pathlib.Path.cwd(), *_existing_dirs()])
    hint = f"the nearest are: {', '.join(nearest)}" if nearest else f"there are: {', '.join(known)}"
    return f"no gin file {name!r} (searched {searched}); {hint}"
