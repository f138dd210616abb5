"""A Reverb server whose contents survive: at least two checkpoints, and never a silent fresh start.

Reverb itself keeps one checkpoint, writes beside the last one, and dies on a truncated one. Here
each start of the server writes into a directory of its own, `<root>/<start>/`, and the last
complete checkpoint before the newest is kept in `<root>/previous/`, by its number. Reverb names
them by the clock, which somebody may set: what is newer is told by the numbers.
"""

from __future__ import annotations

import logging
import pathlib
import shutil
from collections.abc import Callable, Sequence

import reverb
import tensorflow as tf

from tfdrl.errors import ConfigurationError, TfdrlError
from tfdrl.rpc import channels
from tfdrl.runtime.locks import lock
from tfdrl.topology import Address

_DONE = "DONE"  # Reverb writes it last: without it a checkpoint is incomplete
_PREVIOUS = "previous"
_DIGITS = 6  # of the number before the name of one that was moved there


class ReplayServer:
    """Serves tables on an address and checkpoints them under a directory.

    Reverb listens on every interface, without authentication: there is no option to bind it.

    Args:
      tables: `tables()` makes the Reverb tables anew (a failed restore spoils them).
      address: where to serve; the port must be free.
      directory: for the checkpoints.

    Raises:
      ConfigurationError: the port or the directory is in use, or the checkpoints hold items of
        another form, of an older version of tfdrl for example.
      TfdrlError: there are checkpoints, and none can be read.
    """

    def __init__(
        self,
        tables: Callable[[], Sequence[reverb.Table]],
        address: Address,
        directory: pathlib.Path,
    ):
        self._root = pathlib.Path(directory)
        self._root.mkdir(parents=True, exist_ok=True)
        self._lock = lock(self._root, "replay server")
        channels.require_free_port_everywhere(address, "the replay server")
        _remove_incomplete(self._root)
        _remove_empty_starts(self._root)
        self._directory = self._root / _next_start(self._root)
        try:
            self._server = self._restore(tables, address)
        except Exception:
            self._lock.release()
            raise
        self._client = self._server.localhost_client()
        self._known = {_reverbs_name(path) for path in complete_checkpoints(self._root)}

    def _restore(self, tables, address):
        candidates = complete_checkpoints(self._root)
        for number, candidate in enumerate(reversed(candidates)):
            made = tables()
            expected = {table.info.name: table.info.signature for table in made}
            try:
                server = _serve(made, address, self._directory, candidate)
            except Exception as error:
                logging.warning("the replay checkpoint %s cannot be read: %s", candidate, error)
                shutil.rmtree(self._directory, ignore_errors=True)
                continue
            try:
                self._require_signatures(server.localhost_client(), expected)
            except ConfigurationError:
                server.stop()
                shutil.rmtree(self._directory, ignore_errors=True)
                raise
            if number:
                logging.warning("restored the replay from an older checkpoint, %s", candidate)
            return server
        if candidates:
            raise TfdrlError(
                f"none of the {len(candidates)} replay checkpoints under {self._root} can be read; "
                "to start with an empty replay, move that directory away"
            )
        return _serve(tables(), address, self._directory, None)

    def _require_signatures(self, client: reverb.Client, expected: dict) -> None:
        """Of what was restored: Reverb takes over those of the checkpoint in silence."""
        for name, info in client.server_info().items():
            found, wanted = (
                [f"{spec.dtype.name}{spec.shape.as_list()}" for spec in tf.nest.flatten(signature)]
                for signature in (info.signature, expected.get(name))
            )
            if found != wanted:
                raise ConfigurationError(
                    f"the replay checkpoints under {self._root} hold items of {found}, but this "
                    f"replay's table {name!r} is of {wanted}: they are of another environment, or "
                    "of another version of tfdrl; to start with an empty replay, move that "
                    "directory away"
                )

    def checkpoint(self) -> pathlib.Path | None:
        """Writes a checkpoint now; None, with a warning, where it cannot be written."""
        try:
            _keep_previous(self._root)
            path = pathlib.Path(self._client.checkpoint())
        except Exception as error:
            logging.warning(
                "the replay checkpoint could not be written (%s); the one before is kept, "
                "and it will be tried again",
                str(error).splitlines()[0] if str(error) else type(error).__name__,
            )
            _remove_incomplete(self._root)
            return None
        self._known.add(path.name)
        _remove_all_but(complete_checkpoints(self._root)[-2:], self._root)
        return path

    def unknown_checkpoints(self) -> list[str]:
        """A sentence for each checkpoint that came since the last call, and is none of ours."""
        found = complete_checkpoints(self._root)
        unknown = [path for path in found if _reverbs_name(path) not in self._known]
        self._known |= {_reverbs_name(path) for path in unknown}
        return [f"somebody has had the CHECKPOINT {path} written" for path in unknown]

    def info(self, timeout_secs: float = 5.0) -> dict:
        """Reverb's TableInfo by table; empty, with a warning, if it does not come in time."""
        try:
            return self._client.server_info(timeout=int(timeout_secs))
        except reverb.errors.DeadlineExceededError:
            logging.warning("the replay did not say how it is within %g s", timeout_secs)
            return {}

    def stop(self) -> None:
        """Stops serving, without a checkpoint."""
        self._server.stop()
        self._lock.release()


def complete_checkpoints(root: pathlib.Path) -> list[pathlib.Path]:
    """The complete checkpoints under a replay directory, oldest first."""
    return sorted((path.parent for path in pathlib.Path(root).glob(f"*/*/{_DONE}")), key=_age_key)


def _age_key(checkpoint: pathlib.Path) -> tuple[int, int, str]:
    """What was moved aside is older than what is where a start of the server has written it."""
    start = checkpoint.parent.name
    if start == _PREVIOUS:
        return 0, _number(checkpoint), checkpoint.name
    return 1, int(start) if start.isdigit() else 0, checkpoint.name


def _number(previous: pathlib.Path) -> int:
    """Of 000012-2025-01-31T...; 0 of one that has none."""
    digits, _, rest = previous.name.partition("-")
    return int(digits) if len(digits) == _DIGITS and rest else 0


def _reverbs_name(checkpoint: pathlib.Path) -> str:
    return checkpoint.name[_DIGITS + 1 :] if _number(checkpoint) else checkpoint.name


def _serve(tables, address, directory, checkpoint):
    directory.mkdir(parents=True, exist_ok=True)
    checkpointer = reverb.checkpointers.DefaultCheckpointer(
        str(directory), fallback_checkpoint_path=str(checkpoint) if checkpoint else None
    )
    return reverb.Server(tables, port=address.port, checkpointer=checkpointer)


def _next_start(root: pathlib.Path) -> str:
    starts = [int(path.name) for path in root.iterdir() if path.name.isdigit()]
    return f"{max(starts, default=0) + 1:06d}"


def _keep_previous(root: pathlib.Path) -> None:
    """Moves checkpoints aside: Reverb removes what, by the clock, is older than its newest."""
    previous = root / _PREVIOUS
    for path in complete_checkpoints(root):
        if path.parent != previous:
            previous.mkdir(exist_ok=True)
            number = 1 + max(map(_number, previous.iterdir()), default=0)
            path.rename(previous / f"{number:0{_DIGITS}d}-{path.name}")


def _remove_incomplete(root: pathlib.Path) -> None:
    for path in root.glob("*/*"):
        if path.is_dir() and not (path / _DONE).exists():
            shutil.rmtree(path, ignore_errors=True)


def _remove_empty_starts(root: pathlib.Path) -> None:
    for path in root.glob("[0-9]*"):
        if not any(path.iterdir()):
            path.rmdir()


def _remove_all_but(kept: list[pathlib.Path], root: pathlib.Path) -> None:
    for path in complete_checkpoints(root):
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)
