"""What people and the coordinator say to a parameter server, and what it says of itself.

A few variables of its own on each server: whoever can reach the server can ask for a checkpoint or
a rollback and read how it is, whatever the network that it holds.
"""

from __future__ import annotations

import json
from typing import Any

import tensorflow as tf

from tfdrl.parameter_server.remote_variables import add, assign, read, variable

NO_ROLLBACK = -1


class ControlVariables:
    """The graph of a server's control variables; of any one's, so that it can tell which one it is.

    Attributes (what a session fetches, and what it feeds):
      is_ready: <bool>[], whether the server has filled its variables.
      about: <string>[], JSON: what the server holds, see `parameter_layout.about`.
      status: <string>[], JSON: its counters, snapshots and checkpoints, twice a second.
      rollback, checkpoint: operations that ask for one; `rollback` to `version`.
      freeze: training diverged: no more checkpoints, so that the last good ones are kept.
      asked: <int64>[3]: the version to go back to (or NO_ROLLBACK), checkpoints asked for so far,
        whether frozen.
    """

    def __init__(self):
        self.graph = tf.Graph()
        with self.graph.as_default(), tf.device("/job:ps/device:CPU:0"):
            placeholder = tf.compat.v1.placeholder
            about = variable("about", [], tf.string)
            status = variable("status", [], tf.string)
            rollback = variable("rollback_to", [], tf.int64)
            checkpoints = variable("checkpoints_asked", [], tf.int64)
            frozen = variable("frozen", [], tf.int64)
            self.is_ready = tf.raw_ops.VarIsInitializedOp(resource=about)
            self.about, self.status = read(about), read(status)
            self.version = placeholder(tf.int64, [], "version")
            self.rollback = assign(rollback, self.version)
            self.checkpoint = add(checkpoints, tf.constant(1, tf.int64))
            self.freeze = assign(frozen, tf.constant(1, tf.int64))
            self.asked = tf.stack([read(rollback), read(checkpoints), read(frozen)])
            self.text = placeholder(tf.string, [], "text")
            self.set_about, self.set_status = assign(about, self.text), assign(status, self.text)
            self.begin = tf.group(
                assign(rollback, tf.constant(NO_ROLLBACK, tf.int64)),
                assign(checkpoints, tf.constant(0, tf.int64)),
                assign(frozen, tf.constant(0, tf.int64)),
                assign(status, tf.constant("{}")),
            )


def parse(text: bytes) -> dict[str, Any]:
    """A text of the control variables."""
    return json.loads(text)
