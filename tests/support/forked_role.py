"""What forked processes run in the tests of fork servers: `console()` does as it is told."""

import ctypes
import json
import os
import pathlib
import random
import signal
import sys
import time


def console():
    what = sys.argv[1]
    _BEHAVIOURS[what]()


def _tell():
    """Everything that a role may look at, as JSON in its log."""
    import numpy as np

    facts = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "session": os.getsid(0),
        "group": os.getpgid(0),
        "directory": os.getcwd(),
        "variable": os.environ.get("FORKED_ROLE"),
        "other_variable": os.environ.get("HOME_OF_THE_SERVER"),
        "arguments": sys.argv[1:],
        "files": sorted(os.listdir("/proc/self/fd")),
        "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "random": [random.random(), float(np.random.rand())],
        "threads": len(os.listdir("/proc/self/task")),
        "tensorflow": "tensorflow" in sys.modules,
        "tensorflow_runs": _tensorflow_runs(),
        "comm": pathlib.Path("/proc/self/comm").read_text().strip(),
        "stdin": os.readlink("/proc/self/fd/0"),
    }
    print(json.dumps(facts))
    os._exit(5)


def _tensorflow_runs():
    context = sys.modules.get("tensorflow.python.eager.context")
    return context is not None and context.context()._context_handle is not None


def _wait():
    print("waits", flush=True)
    time.sleep(60)


def _raise():
    raise RuntimeError("a fault of the role")


def _train():
    """Uses what the fork server has imported: TensorFlow, Keras, Reverb's server and client."""
    import reverb
    import tensorflow as tf

    from tfdrl.launch import process

    def table():
        return reverb.Table(
            "t",
            reverb.selectors.Uniform(),
            reverb.selectors.Fifo(),
            max_size=100,
            rate_limiter=reverb.rate_limiters.MinSize(1),
        )

    step = tf.function(lambda x: x * x)
    server = reverb.Server([table()])
    client = reverb.Client(f"localhost:{server.port}")
    with client.trajectory_writer(num_keep_alive_refs=1) as writer:
        for _ in range(4):
            writer.append({"a": step(tf.constant(3.0)).numpy()})
            writer.create_item("t", 1.0, {"a": writer.history["a"][-1:]})
        writer.flush()
    keys = {sample.info.key for sample in client.sample("t", 40, emit_timesteps=False)}
    facts = {
        "square": float(step(tf.constant(3.0))),
        "threads": len(os.listdir("/proc/self/task")),
        "dense": tf.keras.layers.Dense(2)(tf.ones([1, 2])).numpy().tolist(),
        "random": float(tf.random.uniform([])),
        "keys": sorted(keys),
    }
    print(json.dumps(facts), flush=True)
    process.leave(0)


def _generate():
    """Traces a function that AutoGraph converts; prints how many files it wrote for that."""
    import tensorflow as tf

    from tfdrl.launch import process

    before = len(os.listdir(os.environ["TMPDIR"]))

    @tf.function
    def absolute(x):
        if x < 0:
            x = -x
        return x

    assert float(absolute(tf.constant(-2.0))) == 2.0
    print(len(os.listdir(os.environ["TMPDIR"])) - before, flush=True)
    process.leave(0)


def spoil_second_fork():
    """In a fork server, as a module's function: the intermediate process can fork nothing."""
    fork, server = os.fork, os.getpid()

    def spoilt():
        if os.getpid() != server:
            raise BlockingIOError("Resource temporarily unavailable")
        return fork()

    os.fork = spoilt


_BEHAVIOURS = {
    "return": lambda: None,
    "exit": sys.exit,
    "exit_of_a_library": lambda: ctypes.CDLL(None).exit(0),
    "exit_with_text": lambda: sys.exit("a sentence for the user"),
    "tell": _tell,
    "wait": _wait,
    "raise": _raise,
    "train": _train,
    "generate": _generate,
}
