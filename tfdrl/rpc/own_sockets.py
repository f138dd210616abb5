"""The sockets of this process, whoever made them: ours, Reverb's, TensorFlow's. On Linux."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator

_FILES = "/proc/self/fd"


def files() -> Iterator[tuple[int, int]]:
    """(inode, file) of each; the file is not ours, and may be closed, or another one, any time."""
    for name in os.listdir(_FILES):
        with contextlib.suppress(OSError):
            found = os.fstat(int(name))
            if stat.S_ISSOCK(found.st_mode):
                yield found.st_ino, int(name)


@contextlib.contextmanager
def opened(file: int) -> Iterator[socket.socket]:
    """The socket of a file, by a file of our own. Raises OSError if there is none any more."""
    own = os.dup(file)
    try:
        connection = socket.socket(fileno=own)
    except OSError:
        os.close(own)
        raise
    with connection:
        yield connection


def is_internet(connection: socket.socket) -> bool:
    """Whether it can have a peer on another machine."""
    return connection.family in (socket.AF_INET, socket.AF_INET6)
