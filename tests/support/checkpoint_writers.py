"""Writes checkpoints as fast as it can, in children that are killed: `<kind> <directory> <kills>`.

A child says which checkpoint it found and which it has written; the parent kills it some time
later, mostly in the middle of a write, and checks that the next child finds the last one.
"""

import os
import pathlib
import random
import signal
import sys

import numpy as np
import reverb
import tensorflow as tf
from running_roles import free_port

from tfdrl.replay.server import ReplayServer
from tfdrl.runtime.checkpoints import Checkpoints
from tfdrl.topology import Address

_SIZE = 200_000  # large enough for a write to take some milliseconds


def write_learner(directory: pathlib.Path):
    """Yields the step found, then each step written; its content proves the step."""
    variable = tf.Variable(tf.zeros([_SIZE]))
    checkpoints = Checkpoints(directory, {"state": tf.train.Checkpoint(variable=variable)})
    step = checkpoints.restore() or 0
    assert (variable.numpy() == step).all(), "a mixture of checkpoints"
    assert checkpoints.counters.values.get("step", 0) == step
    yield step
    while True:
        step += 1
        variable.assign(tf.fill([_SIZE], float(step)))
        assert checkpoints.save(step, {"step": step})
        yield step


def write_replay(directory: pathlib.Path):
    """Yields the items found, then their number after each checkpoint."""
    signature = tf.TensorSpec([1, 1000], tf.float32)

    def tables():
        limiter = reverb.rate_limiters.MinSize(1)
        selectors = reverb.selectors.Prioritized(1.0), reverb.selectors.Fifo()
        return [reverb.Table("items", *selectors, 1 << 20, limiter, signature=signature)]

    server = ReplayServer(tables, Address("127.0.0.1", free_port()), directory)
    items = server.info()["items"].current_size
    yield items
    client = server._server.localhost_client()
    while True:
        with client.trajectory_writer(1) as writer:
            writer.append(np.full(1000, items, np.float32))
            writer.create_item("items", 1.0, writer.history[-1:])
        assert server.checkpoint()
        items += 1
        yield items


def _child(write, directory, pipe):
    for number in write(directory):
        os.write(pipe, b"%d\n" % number)


def _round(write, directory) -> list:
    """One child's life: the numbers that it told."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        try:
            _child(write, directory, write_end)
        finally:
            os._exit(1)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        told = [int(pipe.readline())]
        for _ in range(random.randrange(1, 6)):
            told.append(int(pipe.readline()))
        signal.sigtimedwait([], random.random() * 0.02)
        os.kill(pid, signal.SIGKILL)
        told += [int(line) for line in pipe.read().split()]
    os.waitpid(pid, 0)
    return told


def main(kind: str, directory: str, kills: str) -> None:
    write = {"learner": write_learner, "replay": write_replay}[kind]
    last = 0
    for _ in range(int(kills)):
        told = _round(write, pathlib.Path(directory))
        # A kill between the end of a write and the word of it leaves one more than was told.
        assert last <= told[0] <= last + 1, f"found {told[0]} after {last} was written"
        last = told[-1]
    files = [path for path in pathlib.Path(directory).rglob("*") if path.is_file()]
    print(f"survived {kills} kills, {last} checkpoints, {len(files)} files")


if __name__ == "__main__":
    main(*sys.argv[1:])
