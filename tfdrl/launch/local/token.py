"""The token of a local run: whoever may not read its file may not talk to its services."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
from collections.abc import Iterator

from tfdrl.errors import ConfigurationError

FILE = "token"
_BYTES = 32


@contextlib.contextmanager
def token_file(root_dir: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file that only this user can read, with a new secret; it goes with the run.

    Raises ConfigurationError if it cannot be written.
    """
    path = root_dir / FILE
    try:
        path.unlink(missing_ok=True)  # of a launcher that was killed
        # O_EXCL follows no link that somebody else has put there.
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(file, "w") as opened:
            opened.write(secrets.token_hex(_BYTES))
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}; choose another --root_dir"
        ) from None
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
