"""Environments that raise, hang or return NaN: rebuilt some times, then given up."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from tfdrl.environments import returned
from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.environments.closing import close_bounded
from tfdrl.errors import EXIT_FAILED, ConfigurationError, TfdrlError
from tfdrl.types import Episodes, Nest, TimeSteps

_LOG = logging.getLogger(__name__)
_TICK_SECS = 0.25
#: From the signal that breaks off a step in Python to the end of a process whose step is not.
_GRACE_SECS = 5.0
#: So many steps without a fault, and the next one is the first again.
_GOOD_STEPS = 1000


class RebuiltError(TfdrlError):
    """The environments were lost in mid-episode and are new now: reset them, begin a new run."""


class GivenUpError(TfdrlError):
    """Rebuilding did not help."""


class GuardedEnvironment:
    """Steps a `BatchedEnvironment` and replaces it by a new one when a step fails.

    A step fails if it raises, hangs, or returns what is no finite number. What does not fit its
    space would not after a rebuild either, and raises MisfitError.

    A step that hangs in Python is broken off; one that hangs elsewhere cannot be, and ends the
    process with exit code 1. For the main thread, where signals arrive; elsewhere every step that
    hangs ends the process.

    Args:
      make: `make() -> BatchedEnvironment`.
      rebuilds: how often, without 1,000 good steps between them, before it is given up.
      step_timeout_secs: of one step, or one reset, of all its environments.

    Attributes:
      environment: the present one.
    """

    def __init__(
        self, make: Callable[[], BatchedEnvironment], *, rebuilds: int, step_timeout_secs: float
    ):
        self._make, self._rebuilds, self._limit_secs = make, rebuilds, step_timeout_secs
        self._rebuilt = self._good_steps = 0
        self._since_secs: float | None = None  # while a step is under way
        self._is_closed = threading.Event()
        self._has_signal = threading.current_thread() is threading.main_thread()
        if self._has_signal:
            signal.signal(signal.SIGALRM, self._break_off)
        threading.Thread(target=self._watch, name="environment-watch", daemon=True).start()
        self.environment = make()

    def reset(self) -> TimeSteps:
        """Starts a new episode in every environment. Raises GivenUpError."""
        while True:
            with contextlib.suppress(RebuiltError):
                return self._guarded(self.environment.reset)

    def step(self, action: Nest) -> TimeSteps:
        """As BatchedEnvironment. Raises RebuiltError, or GivenUpError."""
        return self._guarded(self.environment.step, action)

    def take_episodes(self) -> Episodes:
        """As BatchedEnvironment."""
        return self.environment.take_episodes()

    def close(self) -> None:
        """Frees the environments."""
        self._is_closed.set()
        self.environment.close()

    def __enter__(self) -> GuardedEnvironment:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _guarded(self, call: Callable[..., TimeSteps], *arguments: Nest) -> TimeSteps:
        self._since_secs = time.monotonic()
        try:
            steps = returned.checked(self.environment, call(*arguments))
        except ConfigurationError:
            self._since_secs = None
            raise  # new ones would be as wrong
        except Exception as error:  # whatever an environment raises
            self._since_secs = None
            self._replace(error)
            raise RebuiltError(f"{type(error).__name__}: {error}") from error
        self._since_secs = None
        self._good_steps += 1
        return steps

    def _replace(self, error: Exception) -> None:
        if self._good_steps >= _GOOD_STEPS:
            self._rebuilt = 0
        self._good_steps = 0
        if self._rebuilt >= self._rebuilds:
            raise GivenUpError(
                f"the environment failed again after it was rebuilt {self._rebuilt} times: "
                f"{type(error).__name__}: {error}"
            ) from error
        self._rebuilt += 1
        _LOG.warning(
            "the environment failed and is rebuilt (%d of %d times): %s: %s",
            self._rebuilt,
            self._rebuilds,
            type(error).__name__,
            error,
            exc_info=error,
        )
        close_bounded(self.environment.close)
        self.environment = self._make()

    def _overdue_secs(self) -> float:
        since_secs = self._since_secs
        return 0.0 if since_secs is None else time.monotonic() - since_secs - self._limit_secs

    def _break_off(self, *unused: object) -> None:
        if self._overdue_secs() > 0:
            raise TimeoutError(f"a step took longer than {self._limit_secs:g} s")

    def _watch(self) -> None:
        while not self._is_closed.wait(min(_TICK_SECS, self._limit_secs / 4)):
            overdue_secs = self._overdue_secs()
            if overdue_secs > (_GRACE_SECS if self._has_signal else 0.0):
                text = f"a step of the environment takes longer than {self._limit_secs:g} s"
                print(f"tfdrl: {text} and cannot be broken off", file=sys.stderr, flush=True)
                os._exit(EXIT_FAILED)
            elif overdue_secs > 0:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
