"""Where a run's chief is reached while it runs: a file of its directory, for its user alone."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator

from tfdrl.errors import ConfigurationError
from tfdrl.launch.addresses import Addresses
from tfdrl.launch.credentials import Credentials

FILE = "services.json"


@contextlib.contextmanager
def written(
    root_dir: pathlib.Path, chief: str, places: Addresses, credentials: Credentials
) -> Iterator[None]:
    """Writes the file, which goes with the run. Raises ConfigurationError if it cannot be."""
    path = root_dir / FILE
    found = {
        "chief": chief,
        "addresses": [str(address) for address in places.listeners.get(chief, ())],
        "credentials": credentials._asdict(),
    }
    partial = path.with_suffix(".partial")
    try:
        partial.write_text(json.dumps(found))
        partial.chmod(0o600)
        partial.rename(path)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}; choose another --root_dir"
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def read(root_dir: str | os.PathLike) -> tuple[list[str], Credentials]:
    """The addresses of the chief's replicas, and what its channels need.

    Raises ConfigurationError if no run is under way there.
    """
    path = pathlib.Path(root_dir) / FILE
    try:
        found = json.loads(path.read_text())
        return found["addresses"], Credentials(**found["credentials"])
    except FileNotFoundError:
        raise ConfigurationError(
            f"no launcher runs in {root_dir} ({FILE} is not there); of roles started by hand, give "
            "--learner=host:port"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
