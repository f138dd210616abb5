"""What a launcher prints ends no run: a closed terminal, a pipe that nobody reads, a full disk."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


@contextlib.contextmanager
def unfailing() -> Iterator[None]:
    """Meanwhile standard output may be written to whatever becomes of it.

    What it cannot encode is replaced; once it cannot be written to, the rest goes nowhere.
    """
    before = sys.stdout
    sys.stdout = _Unfailing(before)
    try:
        yield
    finally:
        sys.stdout = before


def discard(stream: TextIO) -> None:
    """What is written to a stream, or waits in its buffer, goes nowhere from here on."""
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), stream.fileno())


class _Unfailing:
    """A text stream whose `write` and `flush` do not raise; in all else the stream itself."""

    def __init__(self, stream: TextIO | None):
        if stream is None:  # started with standard output closed
            stream = open(os.devnull, "w")  # noqa: SIM115  (as long as the process)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
        self._stream = stream

    def write(self, text: str) -> int:
        with self._giving_up():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._giving_up():
            self._stream.flush()

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError):  # ValueError: it was closed
            # Not only here: what is left in its buffer would fail again at exit.
            with contextlib.suppress(OSError, ValueError, AttributeError):
                discard(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
