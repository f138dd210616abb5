"""Futures that coroutines wait for: settled once, also if nobody waits any more."""

from __future__ import annotations

import asyncio
from typing import Any


def settle(future: asyncio.Future, result: Any = None, error: BaseException | None = None) -> None:
    """Ends the wait, with the error if there is one. From the future's own event loop."""
    if future.done():  # whoever waited has gone
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
