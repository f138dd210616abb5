"""An architecture whose roles only behave: what the launcher is tested with. No TensorFlow."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import gin

from tfdrl.errors import NOTICE, ConfigurationError, DivergedError
from tfdrl.topology import Program, Role


@gin.configurable
@dataclasses.dataclass(frozen=True)
class tiny:
    """What each role does: a key of `_BEHAVIOURS`."""

    replay: str = "wait"
    learner: str = "wait"
    actor: str = "wait"
    actors: int = 2
    learner_serves: bool = False
    learners: int = 1
    gpu_roles: tuple | None = None

    def program(self):
        function = f"{__name__}:behave"
        return Program(
            "tiny",
            (
                Role("replay", function, serves=True, essential=True, needs_tensorflow=False),
                Role(
                    "learner",
                    function,
                    replicas=self.learners,
                    talks_to=("replay",),
                    serves=self.learner_serves,
                    encrypts=self.learner_serves,
                    essential=True,
                    clusters=True,
                    needs_tensorflow=False,
                ),
                Role(
                    "actor",
                    function,
                    replicas=self.actors,
                    talks_to=("replay",),
                    needs_tensorflow=False,
                ),
            ),
        ).on_gpus(self.gpu_roles)


@gin.configurable
@dataclasses.dataclass(frozen=True)
class tiny_without_environment(tiny):
    """Its environment does not exist."""

    def environment(self, num_envs, training, seed):
        raise ConfigurationError("there is no environment NoSuchGame-v0")


class _Closed:
    def close(self):
        pass


@gin.configurable
@dataclasses.dataclass(frozen=True)
class tiny_that_moves(tiny):
    """Its environment changes the working directory of whoever makes it."""

    to: str = ""

    def environment(self, num_envs, training, seed):
        os.chdir(self.to)
        return _Closed()


def behave(experiment, context, **addresses):
    """The function of every role."""
    assert "tensorflow" not in sys.modules
    trace = pathlib.Path(context.root_dir, f"ready-{context.role}-{context.task}")
    told = [f"{name}={address}" for name, address in sorted(addresses.items())]
    if context.cluster:
        told.append(f"cluster={','.join(map(str, context.cluster))}")
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
    pathlib.Path(context.root_dir, f"gpus-{context.role}-{context.task}").write_text(seen)
    trace.write_text(" ".join(told))
    return _BEHAVIOURS[getattr(experiment.architecture, context.role)](context)


def _wait(context):
    context.stop.wait()
    path = pathlib.Path(context.root_dir, "stopped")
    with path.open("a") as file:
        file.write(f"{context.role}-{context.task}\n")


def _die(context):
    for number in range(20):
        print(f"line {number} of {context.role}")
    _when_all_are_up(context)
    return 7


def _kill_self(context):
    _when_all_are_up(context)
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(context):
    while True:  # takes no notice of context.stop
        time.sleep(0.1)


def _breed(context):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(99)", str(context.root_dir)])
    _wait(context)


def _finish(context):
    _when_all_are_up(context)


def _other_dies(context):
    return _kill_self(context) if context.task == 1 else _wait(context)


def _diverge(context):
    raise DivergedError("the loss was not finite 10 times in a row")


def _misconfigured(context):
    raise ConfigurationError("tiny.actor is wrong")


def _serve(context):
    import numpy as np

    from tfdrl.rpc import security
    from tfdrl.rpc.run_server import TrainingServer

    protection = security.of(context)
    server = TrainingServer(context.listen, experiment=context.experiment, security=protection)
    server.set_status(5, {"learner/waiting_share": 1.0})
    server.publish(0, [np.zeros(1000, np.float32)])
    try:
        context.stop.wait()
    finally:
        server.close()


def _say(context):
    print(f"{NOTICE}somebody was here", flush=True)
    context.stop.wait()


def _native(context):
    # pthread_join of a thread that ends when `stop` is set: C code that no signal interrupts.
    import ctypes
    import threading

    gate = threading.Thread(target=context.stop.wait)
    gate.start()
    libc = ctypes.CDLL(None)
    libc.pthread_join(ctypes.c_ulong(gate.ident), None)


def _thread(context):
    import threading

    threading.Thread(target=lambda: time.sleep(99), daemon=False).start()


def _fork(context):
    import multiprocessing

    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(99,))
    child.start()
    child.terminate()
    child.join()
    is_set = context.stop.wait(0.3)
    print(f"child ended with {child.exitcode}; stop is set: {is_set}")


def _raise(context):
    raise RuntimeError("a fault of the role")


def _when_all_are_up(context):
    while not all((context.root_dir / f"ready-{role}-0").exists() for role in ("replay", "actor")):
        time.sleep(0.02)


_BEHAVIOURS = {
    "wait": _wait,
    "die": _die,
    "kill_self": _kill_self,
    "hang": _hang,
    "breed": _breed,
    "finish": _finish,
    "other_dies": _other_dies,
    "diverge": _diverge,
    "misconfigured": _misconfigured,
    "serve": _serve,
    "say": _say,
    "native": _native,
    "thread": _thread,
    "fork": _fork,
    "raise": _raise,
}
