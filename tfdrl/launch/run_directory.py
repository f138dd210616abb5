"""root_dir: where a run leaves its files, and how a later start finds its own run there."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
import tempfile
import time

from tfdrl import __version__, configuration
from tfdrl.errors import ConfigurationError
from tfdrl.runtime import earlier_files, locks

CONFIG = "config.gin"
VERSION = "version.txt"
LOGS = "logs"
TENSORBOARD = "tensorboard"
CHECKPOINTS = "checkpoints"
POLICY = "policy"
SUMMARY, RESULT = earlier_files.END
EVALUATIONS = "evaluations.csv"
#: How long the roles of a launcher that was killed may take to end (they are told at once).
PREDECESSOR_SECS = 20.0
_LOOK_SECS = 2.0
#: Free space below which a disk is full; none of what a run writes fits into less.
_FULL_BYTES = 1 << 20
_FULL = "is full"


def fresh(gin_files: list[str], parent: str | os.PathLike = "runs") -> pathlib.Path:
    """A directory that does not exist yet: runs/apex-cartpole/20250131-235959."""
    parts = pathlib.PurePath(gin_files[0]).with_suffix("").parts[-2:] if gin_files else ("run",)
    stem = "-".join(part for part in parts if part.strip("/."))
    path = pathlib.Path(parent) / stem / time.strftime("%Y%m%d-%H%M%S")
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
    return candidate


def claim(root_dir: str | os.PathLike) -> locks.Lock:
    """Creates `root_dir` if need be and takes it for this launcher.

    Also waits for the learner of a launcher that was killed a moment ago.

    Raises:
      ConfigurationError: it cannot be written to, or another launcher or learner holds it.
    """
    root_dir = pathlib.Path(root_dir)
    check_name(root_dir)
    try:
        (root_dir / LOGS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(
            f"--root_dir={root_dir} cannot be written: {error.strerror}; choose another directory"
        ) from None
    lock = locks.lock(root_dir, "launcher")
    if (root_dir / "learner.lock").exists():
        try:
            locks.lock(root_dir, "learner", wait_secs=PREDECESSOR_SECS).release()
        except ConfigurationError:
            lock.release()
            raise
    return lock


class DiskWatch:
    """Looks now and then at a run's directory, and at the room on its disk.

    Attributes:
      is_lost: whether it is there no more: whatever is written goes nowhere, or into the directory
        of somebody else.
    """

    def __init__(self, root_dir: pathlib.Path, lock: locks.Lock):
        self.root_dir, self.is_lost = root_dir, False
        self._lock, self._trouble = lock, ""
        self._look_at_secs = 0.0

    def look(self) -> str:
        """What the user should know and has not been told; mostly nothing."""
        if time.monotonic() < self._look_at_secs:
            return ""
        self._look_at_secs = time.monotonic() + _LOOK_SECS
        self.is_lost = self._lock.is_lost
        before, self._trouble = self._trouble, self._find_trouble()
        if self._trouble and self._trouble != before:
            return (
                f"the disk of {self.root_dir} {self._trouble}: checkpoints, events and logs are "
                "not written; the training goes on, and they will be when they can"
            )
        if before and not self._trouble and not self.is_lost:
            return f"the disk of {self.root_dir} can be written to again"
        return ""

    def _find_trouble(self) -> str:
        """What is wrong with the disk, in words; "" for nothing, or where there is no directory."""
        try:
            disk = os.statvfs(self.root_dir)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return f"does not answer ({error.strerror})"
        if disk.f_flag & os.ST_RDONLY:
            return "is read-only now"
        was_full = self._trouble == _FULL
        free_bytes = disk.f_bavail * disk.f_frsize
        return _FULL if free_bytes < _FULL_BYTES * (1 + was_full) else ""


def check_temporary_directory() -> None:
    """Raises ConfigurationError where there is none: TensorFlow could not even be imported."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise ConfigurationError(
            "there is no directory for temporary files that can be written (tried TMPDIR, /tmp, "
            "/var/tmp, /usr/tmp and the current one); set TMPDIR to one that can"
        ) from None


def check_name(root_dir: str | os.PathLike) -> None:
    """Raises ConfigurationError for a name whose checkpoints could be written, and not read.

    TensorFlow takes the paths of checkpoints for patterns.
    """
    path = str(pathlib.Path(root_dir).absolute())
    found = sorted(set(path) & set("[]*?\\\0"))
    if found:
        shown = str(root_dir).replace("\0", "\\0")
        raise ConfigurationError(
            f"--root_dir={shown}: TensorFlow could not read checkpoints back from it, because of "
            f"{' '.join(map(repr, found))} in its path; choose one without"
        )


def resolved(root_dir: str | os.PathLike) -> pathlib.Path:
    """Without links. Raises ConfigurationError for links that lead to each other."""
    try:
        return pathlib.Path(root_dir).resolve()
    except (RuntimeError, OSError):
        raise ConfigurationError(
            f"--root_dir={root_dir} leads to itself by symbolic links; choose another directory"
        ) from None


def keep_configuration(root_dir: str | os.PathLike, text: str, allow_change: bool = False) -> bool:
    """Writes config.gin at the first start; compares with it at every later one.

    Returns whether this is the first.

    Args:
      root_dir: the run's directory, which exists.
      text: `Configuration.text` of this start.
      allow_change: replaces a different config.gin and keeps it as config.gin.1, .2, ...

    Raises:
      ConfigurationError: the run was started with other settings (each is listed), or by a newer
        tfdrl, or the directory cannot be written to.
    """
    check_version(root_dir)
    path = pathlib.Path(root_dir) / CONFIG
    try:
        old = configuration.read_utf8(path) if path.exists() else None
        if old not in (None, text) and not allow_change:
            raise _changed(path, old, text)
        _replace(path.with_name(VERSION), f"{__version__}\n")
        if old == text:
            return False
        if old is not None:
            number = earlier_files.free_number(path.parent, [path.name])
            earlier_files.aside(path, number).write_text(old)
        _replace(path, text)
        return old is None
    except OSError as error:
        raise _cannot_be_written(path, error) from None


def put_end_aside(root_dir: pathlib.Path) -> None:
    """Renames how an earlier start ended, to summary.txt.1, result.json.1 and so on.

    This one has no end yet: whatever kills it, nobody takes the earlier end for its own.

    Raises ConfigurationError if that cannot be done.
    """
    number = earlier_files.free_number(root_dir)
    for name in earlier_files.END:
        try:
            earlier_files.put_aside(root_dir / name, number)
        except OSError as error:
            raise _cannot_be_written(root_dir / name, error) from None


def _cannot_be_written(path: pathlib.Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{path} cannot be written: {error.strerror}; choose another --root_dir"
    )


def _replace(path: pathlib.Path, text: str) -> None:
    """Renames it into place: a kill between the two leaves no half-written file.

    Roles that were started alone may do this at once.
    """
    partial = path.with_suffix(f".{secrets.token_hex(4)}.partial")
    partial.write_text(text)
    partial.rename(path)


def check_version(root_dir: str | os.PathLike) -> None:
    """Raises ConfigurationError for a run of a newer tfdrl, whose files may mean something else.

    Another patch of the same minor version (0.2.0, 0.2.1) is none.
    """
    with contextlib.suppress(OSError, ValueError):  # older runs have no such file
        text = (pathlib.Path(root_dir) / VERSION).read_text().strip()
        if _minor(text) > _minor(__version__):
            raise ConfigurationError(
                f"{root_dir} is the run of tfdrl {text}, and this is {__version__}: install that "
                "version, or choose another root_dir"
            )


def _minor(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:2]]


def forget_configuration(root_dir: str | os.PathLike) -> None:
    """After a first start that was refused: the corrected one is not a change of its settings.

    A run that has written a checkpoint keeps it: what is wrong came later.
    """
    if any(pathlib.Path(root_dir).glob(f"{CHECKPOINTS}/*")):
        return
    with contextlib.suppress(OSError):
        (pathlib.Path(root_dir) / CONFIG).unlink()


def _changed(path: pathlib.Path, old: str, new: str) -> ConfigurationError:
    listed = "\n".join(f"  {line}" for line in configuration.differences(old, new))
    return ConfigurationError(
        f"{path.parent} was started with other settings:\n{listed}\n"
        "Choose another --root_dir, or give --allow_config_change to continue with the new ones"
    )
