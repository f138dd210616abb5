"""The trained policies that come with tfdrl: of small tasks, each with its model card.

Each is a directory as a run leaves it, of which little is kept: config.gin, which tells the
environment, the exported policy, its learning curve, and README.md, the card.
"""

from __future__ import annotations

import difflib
import pathlib

from tfdrl.errors import ConfigurationError
from tfdrl.launch import run_directory

_PACKAGE_DIR = pathlib.Path(__file__).resolve().parents[1]

#: The checkout's directory, then the copy that a wheel installs.
_DIRECTORIES = (_PACKAGE_DIR.parent / "policies", _PACKAGE_DIR / "policies")
CARD = "README.md"


def names() -> list[str]:
    """What there is, such as "cartpole-impala", sorted."""
    found = {
        path.parent.name
        for directory in _DIRECTORIES
        for path in directory.glob(f"*/{run_directory.CONFIG}")
    }
    return sorted(found)


def find(name: str) -> pathlib.Path | None:
    """The directory of the trained policy of this name; None if there is none."""
    places = (directory / name for directory in _DIRECTORIES) if name in names() else ()
    return next((path for path in places if path.is_dir()), None)


def listing() -> list[str]:
    """A line for each: its name, and what its card is called."""
    return [f"{name:20}{(find(name) / CARD).read_text().splitlines()[0][2:]}" for name in names()]


def not_found(name: str) -> ConfigurationError:
    """That a name is neither a directory nor one of these."""
    near = difflib.get_close_matches(name, names(), n=3, cutoff=0.6)
    hint = f"the nearest of those are: {', '.join(near)}" if near else "--policy=list lists those"
    return ConfigurationError(
        f"--policy={name} is no directory, and no trained policy that comes with tfdrl; {hint}"
    )
