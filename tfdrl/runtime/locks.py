"""One owner of a run's directory: a lock that dies with its process. Standard library only.

It is a lock on a file, which holds between machines that share a disk; and, on Linux, a name in
the kernel's table of abstract sockets, which holds although the directory is removed meanwhile and
made anew.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import socket
import sys
import time

from tfdrl.errors import ConfigurationError

_RETRY_SECS = 0.2
#: The kernel's table of the sockets in the file system's and the abstract name space.
_SOCKETS = pathlib.Path("/proc/net/unix")


class Lock:
    """A held lock; keep it alive as long as the directory is in use."""

    def __init__(self, path: pathlib.Path, descriptor: int, name: socket.socket | None):
        self.path = path
        self._descriptor: int | None = descriptor
        self._name = name
        self._file = os.fstat(descriptor)
        # A forked child shares the lock and would keep it after our death.
        os.register_at_fork(after_in_child=self._close)

    @property
    def is_lost(self) -> bool:
        """Whether the directory was removed, or another one has its name."""
        try:
            return not os.path.samestat(self._file, os.stat(self.path))
        except FileNotFoundError:
            return True
        except OSError:  # a disk that does not answer may come back
            return False

    def release(self) -> None:
        """Gives the lock up. Safe to call twice."""
        self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
        if self._name is not None:
            self._name.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *unused: object) -> None:
        self.release()


def lock(root_dir: str | os.PathLike, name: str, wait_secs: float = 0.0) -> Lock:
    """Takes the lock `root_dir/name.lock`, whose text names the holder.

    The kernel drops the lock when its process dies, however it dies, so that a file left behind
    by a dead process is no obstacle.

    Args:
      root_dir: an existing directory.
      name: what is locked, such as "learner".
      wait_secs: how long to wait for another process to give it up.

    Raises:
      ConfigurationError: another process holds it (the text names it), or the directory cannot
        be written to.
    """
    path = pathlib.Path(root_dir) / f"{name}.lock"
    deadline_secs = time.monotonic() + wait_secs
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            reserved = _reserve(path)
            break
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES, errno.EADDRINUSE):
                raise ConfigurationError(f"{path} cannot be locked: {error.strerror}") from None
        if time.monotonic() >= deadline_secs:
            raise _held(path, name)
        time.sleep(_RETRY_SECS)
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    text = f"process {os.getpid()} on {socket.gethostname()} since {started}\n"
    with contextlib.suppress(OSError):  # the text is for people; a full disk must not matter
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
    return Lock(path, descriptor, reserved)


def is_held(root_dir: str | os.PathLike, name: str) -> bool:
    """Whether a process of this machine holds the lock; nothing is locked to find that out."""
    path = pathlib.Path(root_dir) / f"{name}.lock"
    with contextlib.suppress(OSError):
        return path.exists() and f"@{_reserved_name(path)}\n" in _SOCKETS.read_text()
    return False


def _open(path: pathlib.Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}; choose a root_dir that can be"
        ) from None


def _reserve(path: pathlib.Path) -> socket.socket | None:
    """The lock's name among abstract sockets, which the kernel drops with its process.

    Raises OSError (EADDRINUSE) if it is taken.
    """
    if sys.platform != "linux":
        return None
    reserved = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        reserved.bind(f"\0{_reserved_name(path)}")
    except OSError:
        reserved.close()
        raise
    return reserved


def _reserved_name(path: pathlib.Path) -> str:
    root = path.parent.resolve()
    place = root.parent.stat()  # two containers may have the same path and different disks
    key = f"{place.st_dev} {place.st_ino} {root.name} {path.name}"
    return f"tfdrl-lock-{hashlib.sha256(key.encode()).hexdigest()}"


def _held(path: pathlib.Path, name: str) -> ConfigurationError:
    try:
        holder = path.read_text(errors="replace").strip()
    except OSError:
        holder = ""
    return ConfigurationError(
        f"{path.parent} is in use by another {name}: {holder or 'an unknown process'}; "
        "wait for it, stop it, or choose another root_dir"
    )
