"""Closing environments that may be broken, and may never answer: within seconds, in any case."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from gymnasium.vector import AsyncVectorEnv, VectorEnv

_LIMIT_SECS = 5.0


def close_vector_env(vector_env: VectorEnv) -> None:
    """Closes it; of environments in processes of their own, those that do not answer are killed.

    Whatever state an exception has left them in: Gymnasium would wait for their answer for ever.
    """
    if isinstance(vector_env.unwrapped, AsyncVectorEnv):
        processes = vector_env.unwrapped.processes
        closing = _begin(lambda: vector_env.close(timeout=1.0))
        for process in processes:
            process.kill()  # nothing to one that has ended
        closing.join(_LIMIT_SECS)
    elif vector_env.render_mode is None:
        close_bounded(vector_env.close)
    else:
        vector_env.close()  # what it draws on may belong to this thread


def close_bounded(close: Callable[[], None]) -> None:
    """Calls `close`, and leaves it alone after some seconds; what it raises is logged."""
    _begin(close)


def _begin(close: Callable[[], None]) -> threading.Thread:
    closing = threading.Thread(target=_close, args=(close,), name="closing", daemon=True)
    closing.start()
    closing.join(_LIMIT_SECS)
    if closing.is_alive():
        logging.warning("environments did not close within %g s and are given up", _LIMIT_SECS)
    return closing


def _close(close: Callable[[], None]) -> None:
    try:
        close()
    except Exception as error:  # they are broken
        logging.warning("environments could not be closed: %s", error)
