"""A run in Weights & Biases: history, config, summary, and the report."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import TypeVar

from tfdrl.errors import ConfigurationError, TfdrlError, UnavailableError
from tfdrl.launch import process
from tfdrl.tracking.destinations import End, RunToTrack
from tfdrl.tracking.points import Point

_T = TypeVar("_T")
#: Beyond what W&B itself may take, before its own process counts as hanging.
_MARGIN_SECS = 10.0


class WandbProject:
    """A project of W&B; `Destination` says what the methods do.

    Args:
      project: W&B's.
      directory: where W&B keeps its files; without a network they are all there is.
      offline: sends nothing; `wandb sync` does later.
      timeout_secs: for the first answer, and at the end for what has not left yet; W&B's own
        process is ended if it does not answer for ten seconds longer.
    """

    kind = "wandb"

    def __init__(self, project: str, directory: pathlib.Path, offline: bool, timeout_secs: float):
        import wandb

        self.place = f"W&B's project {project!r}" + " (offline)" * offline
        self._project, self._directory, self._mode = project, directory, offline
        self._timeout_secs, self._wandb = timeout_secs, wandb

    def open(self, run_id: str, run: RunToTrack, points: int) -> str:
        wandb = self._wandb
        settings = wandb.Settings(
            console="off",  # this process is not the run: neither what it prints,
            x_disable_stats=True,  # nor what it uses,
            x_disable_machine_info=True,  # nor where it is
            save_code=False,
            quiet=True,
            init_timeout=self._timeout_secs,
            finish_timeout=self._timeout_secs,
            finish_timeout_raises=True,
        )

        def begin():
            begun = wandb.init(
                project=self._project,
                name=run.name,
                id=run_id or secrets.token_hex(4),
                resume="allow",
                mode="offline" if self._mode else "online",
                dir=str(self._directory),
                settings=settings,
            )
            begun.config.update(dict(run.settings), allow_val_change=True)
            return begun

        with _translated_errors(wandb, UnavailableError):
            self._run = self._in_time(begin)
        self._row = points  # rows are numbered on, by no more than there were points
        self._processes: set[str] = set()
        return self._run.id

    def add(self, points: Sequence[Point]) -> None:
        """One row of history for all points of a process and step.

        W&B puts them into its files, and sends from there. Raises TfdrlError if it cannot: the
        same again would leave points out.
        """
        rows: dict[tuple[str, int], dict[str, float]] = {}
        for point in points:
            row = rows.setdefault(
                (point.process, point.step), {f"{point.process}/step": point.step}
            )
            row.setdefault(f"{point.process}/secs", point.secs)
            row[point.name] = point.value
        with _translated_errors(self._wandb, TfdrlError):
            self._in_time(lambda: self._log(rows))

    def _log(self, rows: Mapping[tuple[str, int], dict[str, float]]) -> None:
        for (name, _), row in rows.items():
            if name not in self._processes:
                self._processes.add(name)
                self._run.define_metric(f"{name}/*", step_metric=f"{name}/step")
            self._run.log(row, step=self._row)
            self._row += 1

    def missing(self, points: Sequence[Point]) -> list[Point]:
        """None: W&B cannot be asked, and a point too few is better than one twice."""
        return []

    def close(self, end: End | None) -> None:
        """Raises TfdrlError if not everything has left in time; it stays in W&B's files."""
        with _translated_errors(self._wandb, TfdrlError):
            self._in_time(lambda: self._finish(end))

    def _finish(self, end: End | None) -> None:
        if end is not None:
            result = {f"result/{name}": value for name, value in end.result.items()}
            self._run.summary.update({**result, "ended": end.reason})
            if end.report is not None:
                report = self._wandb.Artifact(f"report-{self._run.id}", "report")
                report.add_file(str(end.report))
                self._run.log_artifact(report)
        try:
            self._run.finish(int(end is not None and end.failed))
        except TimeoutError:
            files = self._run.settings.sync_dir
            raise TfdrlError(
                f"{self.place} has not taken everything within {self._timeout_secs:g} s; the rest "
                f"is in W&B's files: wandb sync {files}"
            ) from None

    def _in_time(self, call: Callable[[], _T]) -> _T:
        """What `call` returns. W&B waits without a limit for its own process, which may hang.

        Raises TfdrlError if it does; that process is killed then, as W&B's end would wait, too.
        """
        done, limit_secs = _begun(call), self._timeout_secs + _MARGIN_SECS
        if not futures.wait([done], limit_secs).done:
            for pid in _own_processes():
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(pid, signal.SIGKILL)
            # Now, and without its errors: at the exit W&B prints them, or takes them for ours.
            futures.wait([_begun(self._wandb.teardown)], _MARGIN_SECS)
            raise TfdrlError(
                f"W&B's own process has not answered for {limit_secs:g} s, and was ended; what it "
                "had written is in its files, and the newest points may be missing there"
            )
        return done.result()


def _begun(call: Callable[[], _T]) -> futures.Future[_T]:
    done: futures.Future[_T] = futures.Future()
    threading.Thread(target=_settle, args=(done, call), daemon=True).start()
    return done


def _settle(done: futures.Future[_T], call: Callable[[], _T]) -> None:
    try:
        done.set_result(call())
    except BaseException as error:  # for who waits
        done.set_exception(error)


def _own_processes() -> list[int]:
    """The children of this process that are W&B's."""
    paths = pathlib.Path("/proc/self/task").glob("*/children")  # of whichever thread began them
    children = [int(pid) for path in paths for pid in path.read_text().split()]
    return [pid for pid in children if "wandb-core" in _program(pid)]


def _program(pid: int) -> str:
    try:
        return process.arguments_of(pid)[0]
    except OSError:  # it has just ended
        return ""


@contextlib.contextmanager
def _translated_errors(wandb, kind: type[TfdrlError]) -> Iterator[None]:
    """W&B's errors as ours: of `kind`, if it is not for the user to mend."""
    try:
        yield
    except (wandb.errors.UsageError, wandb.errors.AuthenticationError) as error:
        raise ConfigurationError(f"W&B says: {error}; `wandb login`, or --offline") from None
    except (wandb.errors.Error, OSError) as error:  # OSError: its own process is gone
        raise kind(f"W&B says: {error}") from None
