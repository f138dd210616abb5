"""How far a run has been sent to a tracker: a file in the run's directory."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

from tfdrl.errors import ConfigurationError

DIRECTORY = "tracking"


class State(NamedTuple):
    """How far a run has been sent.

    place      of the tracker
    run_id     of the run there; "" before it is known
    points     how many it has
    positions  up to where event files have been sent
    pending    up to where a batch reaches that was being sent; None between batches
    """

    place: str
    run_id: str = ""
    points: int = 0
    positions: Mapping[str, int] = {}
    pending: Mapping[str, int] | None = None


def path_of(root_dir: pathlib.Path, kind: str, place: str) -> pathlib.Path:
    """The file for one tracker; others have others."""
    return root_dir / DIRECTORY / f"{kind}-{hashlib.sha256(place.encode()).hexdigest()[:8]}.json"


def read(path: pathlib.Path, place: str) -> State:
    """The state that is kept there, or that of a run which has not been sent at all.

    Raises ConfigurationError if the file cannot be read as one.
    """
    try:
        return State(**json.loads(path.read_text()))
    except FileNotFoundError:
        return State(place)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"{path}, which says how far the run was sent, cannot be read ({error}); without it "
            "the run is sent anew, as another one"
        ) from None


def write(path: pathlib.Path, state: State) -> None:
    """Keeps a state, whole or not at all.

    Raises ConfigurationError if it cannot be: without it points would be sent twice.
    """
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(json.dumps(state._asdict(), indent=1))
        partial.replace(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}; it says what has been sent, so that "
            "nothing is sent twice"
        ) from None
