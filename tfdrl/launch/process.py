"""What a role's process does for itself: quiet start, signals, parent's death, exit."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pathlib
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable

from absl import logging as absl_logging

from tfdrl.errors import (
    EXIT_CONFIGURATION,
    EXIT_FAILED,
    EXIT_OK,
    ConfigurationError,
    TfdrlError,
)

#: Set by the launcher to its process id: the role then ends when the launcher does.
LAUNCHER_VARIABLE = "TFDRL_LAUNCHER_PID"
#: How long a role may take to finish once its launcher has died.
ORPHAN_GRACE_SECS = 10.0
_PR_SET_PDEATHSIG = 1
_GENERATED = "__autograph_generated_file"
_inherited: set[str] = set()
_told_end: list[int] = []  # files
_RETURNED = b"returned"  # of `run_apart`
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_EXITED = b"something in this process, such as a simulator, has called exit()"


def silence() -> None:
    """Hides start-up noise of TensorFlow, gRPC and Gym. Call before they are imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "hide")
    for module in ("gym", "gymnasium", "tensorflow", "keras", "tf_agents", "reverb"):
        warnings.filterwarnings("ignore", module=rf"{module}(\.|$)")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=SyntaxWarning)  # of code that AutoGraph writes
    absl_logging.set_verbosity(absl_logging.ERROR)  # TF-Agents
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with contextlib.suppress(ImportError, AttributeError):
        from gym_notices import notices  # "Gym has been unmaintained": printed, not warned

        notices.notices.clear()


def limit_threads(threads: int) -> None:
    """Bounds TensorFlow's threads; 0 leaves them alone. Call before TensorFlow is used.

    OpenMP's and OpenBLAS's, too, where they are not loaded yet: a forked role has what the
    launcher's environment said.
    """
    if threads > 0:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(threads))
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(threads))
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def die_with_launcher() -> None:
    """Asks the kernel for SIGTERM when the launcher that started this process dies."""
    launcher = os.environ.get(LAUNCHER_VARIABLE)
    if not launcher:
        return
    die_with_parent(signal.SIGTERM)
    if is_orphan():  # it died before we asked
        leave(EXIT_FAILED)


def die_with_parent(number: int) -> None:
    """Asks the kernel for this signal when the parent of this process dies; on Linux alone."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def is_orphan() -> bool:
    """Whether a launcher started this process and is no longer its parent."""
    launcher = os.environ.get(LAUNCHER_VARIABLE)
    if not launcher:
        return False
    if os.getppid() != int(launcher):
        return True
    # Its main thread dies first, and tells us so, while other threads still keep the process.
    return state_of(int(launcher)) in ("Z", "X")


def state_of(pid: int) -> str:
    """The kernel's letter for what a process does: Z ended, T stopped; "" if there is none."""
    with contextlib.suppress(OSError):
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0]
    return ""


def arguments_of(pid: int, proc: pathlib.Path = pathlib.Path("/proc")) -> list[str]:
    """The command line of a process; of a forked role, the words of its title.

    Raises OSError if there is no such process.
    """
    text = (proc / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0")
    return text.split("\0" if "\0" in text else " ")


def has_ended(pid: int) -> bool:
    """Whether a child of this process has ended; it is not reaped, and keeps its group id."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def leave_on_signals(exit_code: int = EXIT_OK) -> None:
    """SIGTERM or SIGINT ends this process, which has done nothing yet: as told.

    Process 1 of a container would ignore them until `stop_on_signals` is called.
    """
    for number in _SIGNALS:
        signal.signal(number, lambda *unused: leave(exit_code))


def stop_on_signals(*events: threading.Event) -> None:
    """The first SIGTERM or SIGINT sets the events, in this order.

    The second ends the process, unless a launcher has started it, which can do so itself.

    Works as PID 1, and while the main thread is inside native code that does not return: the
    signal is noticed by a thread of its own. Call from the main thread.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in _SIGNALS:
        signal.signal(number, lambda *unused: None)
    # A forked environment process must obey terminate(), and not write into our pipe.
    # Blocked meanwhile, or a terminate() that comes early would be lost there and stop us.
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS),
        after_in_child=_restore_signals,
    )
    watcher = threading.Thread(target=_watch, args=(read_end, events), name="signals", daemon=True)
    watcher.start()


def _restore_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _watch(read_end: int, events: Iterable[threading.Event]) -> None:
    received = 0
    while True:
        # Only an orphan has a time limit: everybody else has somebody who can kill it.
        limit_secs = ORPHAN_GRACE_SECS if received else None
        if select.select([read_end], [], [], limit_secs)[0]:
            # Other handled signals (a user's SIGALRM, say) arrive here as well.
            received += sum(number in _SIGNALS for number in os.read(read_end, 64))
        elif is_orphan():
            print("the launcher died and this role did not stop in time", file=sys.stderr)
            leave(EXIT_FAILED)
        if received:
            for event in events:
                event.set()
        # A launcher kills by SIGKILL; a cluster's scheduler may say the same as it, at once.
        if received > 1 and not os.environ.get(LAUNCHER_VARIABLE):
            leave(EXIT_FAILED)


def remove_generated() -> None:
    """Removes the files of code that AutoGraph wrote in this process, but not before its fork.

    AutoGraph itself would at a normal exit, which a role does not have.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith(_GENERATED) and name not in _inherited:
            with contextlib.suppress(OSError, TypeError):
                os.remove(module.__file__)


def remember_generated() -> None:
    """Call in a process just forked: what was generated before is another process's."""
    _inherited.update(name for name in sys.modules if name.startswith(_GENERATED))


def reap_children() -> None:
    """Children that end are waited for here, whatever this process has inherited."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, none can be


def run_apart(function: Callable[[], None], limit_secs: float, what: str) -> None:
    """Calls `function` in a forked process, and waits for its end, at most so long.

    Raises ConfigurationError with the text of the one that it raised, or TfdrlError for any other
    exception, whose traceback it has printed.
    """
    reap_children()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        _call_and_tell(function, write_end)
    os.close(write_end)
    deadline_secs = time.monotonic() + limit_secs
    while not has_ended(pid):
        if time.monotonic() > deadline_secs:
            os.kill(pid, signal.SIGKILL)
            logging.warning("%s was not ready after %.0f s", what, limit_secs)
            break
        time.sleep(0.01)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.set_blocking(read_end, False)
    with open(read_end, "rb") as pipe:
        told = pipe.read() or b""
    if code == EXIT_CONFIGURATION:
        raise ConfigurationError(told.decode(errors="replace"))
    if code == EXIT_OK and told != _RETURNED:
        raise TfdrlError(f"{what} has ended its process: something in it has called exit(0)")
    if code not in (EXIT_OK, -signal.SIGKILL):
        raise TfdrlError(f"{what} failed ({code}); see above")


def _call_and_tell(function: Callable[[], None], write_end: int) -> None:
    code = EXIT_FAILED
    try:
        function()
        os.write(write_end, _RETURNED)
        code = EXIT_OK
    except ConfigurationError as error:
        os.write(write_end, str(error).encode()[: 1 << 15])
        code = EXIT_CONFIGURATION
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def exit_code_of(error: SystemExit) -> int:
    """What Python would exit with; a text is printed, as it would be."""
    if error.code is None or isinstance(error.code, int):
        return error.code or EXIT_OK
    print(error.code, file=sys.stderr)
    return EXIT_FAILED


def fail_on_exit(program: str) -> None:
    """C's `exit` ends this process as failed from now on, with a word; `leave` does not use it.

    A simulator that calls exit(0) has not finished its role.

    Args:
      program: whose last words it is.
    """
    if sys.platform != "linux":
        return
    c = ctypes.CDLL(None)
    c.strdup.restype = ctypes.c_void_p  # it outlives Python
    name = ctypes.c_void_p.in_dll(c, "program_invocation_short_name")
    name.value = c.strdup(program.encode())
    # The last is called first.
    for function, argument in ((c._exit, EXIT_FAILED), (c.warnx, c.strdup(_EXITED))):
        address = ctypes.cast(function, ctypes.c_void_p)
        getattr(c, "__cxa_atexit")(address, ctypes.c_void_p(argument), None)


def tell_end(*files: int) -> None:
    """`leave` with exit code 0 writes a byte into these; what else ends the process does not."""
    _told_end[:] = files


def leave(exit_code: int) -> None:
    """Ends the process at once: native threads (Reverb, gRPC, TensorFlow) cannot keep it."""
    if "multiprocessing" in sys.modules:  # atexit, which would end them, does not run
        import multiprocessing

        for child in multiprocessing.active_children():
            child.terminate()
    remove_generated()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a closed pipe must not change the exit code
            stream.flush()
    for file in _told_end:
        with contextlib.suppress(OSError):
            os.write(file, b"0" * (exit_code == EXIT_OK))
    # The launcher kills what a role leaves behind; without it the role must, itself included.
    if is_orphan() and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(exit_code)
