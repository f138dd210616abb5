"""Follows a run, and sends a tracker what is new: each point once, whatever is killed meanwhile."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tfdrl import configuration
from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.launch import run_directory
from tfdrl.runtime import locks
from tfdrl.tracking import state as states
from tfdrl.tracking.destinations import Destination, End, RunToTrack
from tfdrl.tracking.points import EventFiles, Point
from tfdrl.tracking.state import State

_LOOK_SECS = 2.0
_RETRY_SECS = 1.0
#: How often a long sending says how far it is.
_SAY_SECS = 10.0
_REPORT = "report.html"
#: Rows of summary.txt: why the run ended, and the exit code, which older pages have not.
_ENDED = re.compile(r"^ended +(.*)$", re.MULTILINE)
_EXIT_CODE = re.compile(r"^exit code +(\d+)$", re.MULTILINE)


class Tracker:
    """Sends one run to one tracker.

    Args:
      root_dir: of the run.
      destination: the tracker.
      roles: whose events are sent; none: everybody's.
      timeout_secs: how long the tracker may not answer, before and meanwhile.
      stopped: whether to leave.
      say: is told what the user should know.

    Raises ConfigurationError if the directory is no run, or another process sends it there.
    """

    def __init__(
        self,
        root_dir: pathlib.Path,
        destination: Destination,
        *,
        roles: Sequence[str] = (),
        timeout_secs: float = 60.0,
        stopped: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = print,
    ):
        self._root, self._destination = root_dir, destination
        self._timeout_secs, self._stopped, self._say = timeout_secs, stopped, say
        self._config = root_dir / run_directory.CONFIG
        if not self._config.is_file():
            raise ConfigurationError(
                f"{root_dir} is no run: it has no {run_directory.CONFIG}; give the --root_dir of a "
                "training that was started by tfdrl-train"
            )
        self._events = EventFiles(root_dir / run_directory.TENSORBOARD, roles)
        self._whose = f" of {', '.join(roles)}" if roles else ""
        self._path = states.path_of(root_dir, destination.kind, destination.place)
        self._state, self._said_secs = State(destination.place), time.monotonic()

    def follow(self, wait: bool = False) -> int:
        """Sends what there is, and what comes until the run ends; returns the number of points.

        The run goes on while its launcher, or its learner, holds the directory on this machine.

        Args:
          wait: goes on until it is stopped, for runs whose processes are on other machines.

        Raises:
          ConfigurationError: the run has no events and does not go on.
          UnavailableError: the tracker did not answer for timeout_secs.
        """
        with self._taken():
            if wait or _is_held(self._root):
                self._say(f"following {self._root} until it ends, or Ctrl-C")
            elif not self._events.left({}):
                raise ConfigurationError(
                    f"{self._root} has no events{self._whose}, and nothing on this machine goes on "
                    "with it; --wait waits for a run on other machines"
                )
            self._open()
            before = self._state.points
            self._send_pending()
            self._close(has_ended=self._send_all(wait))
            return self._state.points - before

    def _send_all(self, wait: bool) -> bool:
        """Whether the run has ended and all of it is sent; else there was a stop before that."""
        while not self._stopped():
            goes_on = wait or _is_held(self._root)  # as it was before the look
            points, reached = self._events.take(self._state.positions)
            if reached != self._state.positions:
                self._send(points, reached)
            elif goes_on:
                self._sleep(_LOOK_SECS)
            else:
                return True
        self._say("stopped; the same command goes on from here")
        return False

    @contextlib.contextmanager
    def _taken(self) -> Iterator[None]:
        directory = self._path.parent
        try:
            directory.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"{directory} cannot be made: {error.strerror}") from None
        with locks.lock(directory, self._path.stem):
            self._state = states.read(self._path, self._destination.place)
            yield

    def _open(self) -> None:
        text = configuration.read_utf8(self._config)
        run = RunToTrack(self._root.resolve().name, configuration.settings(text), self._config)
        state = self._state
        run_id = self._retry(lambda: self._destination.open(state.run_id, run, state.points))
        self._keep(state._replace(run_id=run_id))

    def _send_pending(self) -> None:
        """A batch of an earlier process, of which nobody knows what arrived."""
        state = self._state
        if state.pending is not None:
            points = self._events.between(state.positions, state.pending)
            self._retry(lambda: self._destination.add(self._destination.missing(points)))
            self._sent(points, state.pending)

    def _send(self, points: Sequence[Point], reached: Mapping[str, int]) -> None:
        if points:
            self._keep(self._state._replace(pending=reached))
            left = [points]

            def send() -> None:
                batch, left[0] = left[0], None
                if batch is None:  # again: some have arrived
                    batch = self._destination.missing(points)
                self._destination.add(batch)

            self._retry(send)
        self._sent(points, reached)

    def _sent(self, points: Sequence[Point], reached: Mapping[str, int]) -> None:
        count = self._state.points + len(points)
        self._keep(self._state._replace(points=count, positions=reached, pending=None))
        if time.monotonic() - self._said_secs > _SAY_SECS:
            self._said_secs = time.monotonic()
            self._say(f"{count:,} points so far")

    def _keep(self, state: State) -> None:
        states.write(self._path, state)
        self._state = state

    def _close(self, has_ended: bool) -> None:
        end = None
        if has_ended:
            for name, size in self._events.left(self._state.positions).items():
                self._say(f"{name} ends in the middle of a record: {size:,} bytes are left out")
            end = end_of(self._root)
        self._retry(lambda: self._destination.close(end))

    def _retry(self, call: Callable[[], Any]) -> Any:
        """What `call` returns, as soon as the tracker answers."""
        since_secs, was_told = time.monotonic(), False
        while True:
            try:
                return call()
            except UnavailableError as error:
                waited_secs = time.monotonic() - since_secs
                if waited_secs >= self._timeout_secs or self._stopped():
                    raise UnavailableError(
                        f"{self._destination.place} did not answer for {waited_secs:.0f} s "
                        f"({error}); is it started, and is this its address? The same command "
                        "goes on where this one was"
                    ) from None
                if not was_told:
                    was_told = True
                    place, secs = self._destination.place, self._timeout_secs
                    self._say(f"{place} does not answer ({error}); trying for {secs:g} s")
            self._sleep(_RETRY_SECS)

    def _sleep(self, secs: float) -> None:
        until_secs = time.monotonic() + secs
        while time.monotonic() < until_secs and not self._stopped():
            time.sleep(0.1)


def _is_held(root_dir: pathlib.Path) -> bool:
    return any(locks.is_held(root_dir, name) for name in ("launcher", "learner"))


def end_of(root_dir: pathlib.Path) -> End:
    """How a run that does not go on has ended, by what it left."""
    result_path, page = root_dir / run_directory.RESULT, ""
    with contextlib.suppress(OSError):
        page = (root_dir / run_directory.SUMMARY).read_text(errors="replace")
    ended, exit_code = _ENDED.search(page), _EXIT_CODE.search(page)
    reason = ended[1] if ended else ""
    if exit_code:
        failed = int(exit_code[1]) != 0
    else:  # the words may have the code of a role
        failed = "exit code" in reason and "exit code 0" not in reason
    result: Mapping[str, float | str] = {}
    secs = 0.0
    with contextlib.suppress(OSError, ValueError):
        secs = result_path.stat().st_mtime
        result = dict(_flat(json.loads(result_path.read_text())))
    report = root_dir / _REPORT
    return End(reason, failed, result, secs, report if report.is_file() else None)


def _flat(found: Any, name: str = "") -> Iterator[tuple[str, float | str]]:
    if isinstance(found, dict):
        for key, value in found.items():
            yield from _flat(value, f"{name}/{key}" if name else key)
    elif isinstance(found, (int, float, str)) and name:
        yield name, found
