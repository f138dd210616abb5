"""One parameter server as a worker sees it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfdrl.parameter_server import layout as parameter_server_layout
from tfdrl.parameter_server import session
from tfdrl.parameter_server.control import ControlVariables, parse
from tfdrl.parameter_server.gradients import Gradient
from tfdrl.parameter_server.protocol import ACCEPTED, CLOSED, Header, State
from tfdrl.parameter_server.shard_graph import ShardGraph
from tfdrl.topology import Context

_CLOSED_SECS = 0.002


class ShardClient:
    """One server as a worker sees it; `state` is of the parameters that the variables hold.

    Args:
      layout, settings: of the shard.
      address: of the server.
      variables: local copies of its parameters.
      moments: local copies of its moments; empty unless its layout has some.
      context: of the worker's role.
      shards: how many servers there are.
    """

    def __init__(self, layout, settings, address, variables, moments, context: Context, shards):
        self.graph = ShardGraph(layout, settings)
        name = f"parameter server {layout.task}"
        graph = self.graph
        self.session = session.ServerSession(
            name,
            address,
            graph.graph,
            {
                "push": (graph.push, (graph.header, graph.loss, graph.flat, *graph.added)),
                "pull": (graph.pull, (graph.have,)),
                "withhold": (graph.withhold, (graph.header,)),
            },
        )
        control = ControlVariables()
        self._control = session.ServerSession(
            name,
            address,
            control.graph,
            {"is_ready": (control.is_ready, ()), "about": (control.about, ())},
        )
        self._about = parameter_server_layout.about(layout, shards, context.experiment)
        self._context, self._caller = context, f"{context.role} {context.task}"
        self._write = tf.function(self._assign, autograph=False)
        self._variables, self._moments = variables, moments
        self.state = State(ACCEPTED, -1, -1, 0)

    def connect(self, timeout_secs: float) -> None:
        """Connects and compares what both sides hold. Raises as `GlobalParameters.connect`."""
        session.connect(
            self._control, self._is_ready, timeout_secs, self._context.stop, self._caller
        )
        self.forget()

    def forget(self) -> None:
        """The next pull brings the parameters, whatever their version."""
        self.state = State(ACCEPTED, -1, -1, self.state.steps)

    def _is_ready(self) -> bool:
        if not self._control.call("is_ready"):
            return False
        served = parse(self._control.call("about"))
        self._control.close()
        parameter_server_layout.check(served, self._about, self.session.name, self._caller)
        self.session.connect()
        return True

    def pull(self) -> bool:
        have = np.array([self.state.epoch, self.state.version], np.int64)
        return self._take(*self.session.call("pull", have))

    def push(self, gradient: Gradient, part: int, steps: int, header: Callable) -> int:
        """The verdict. A shut gate is open again within milliseconds."""
        deadline_secs = time.monotonic() + session.CALL_SECS
        values = np.array(header(self.state, steps), np.int64)
        size, added = abs(gradient.loss), gradient.moments if self._moments else ()
        while True:
            state, *held = self.session.call("push", values, size, gradient.parts[part], *added)
            if state[0] != CLOSED or time.monotonic() > deadline_secs:
                break
            self._context.stop.wait(_CLOSED_SECS)
        self._take(state, *held)
        return int(state[0])

    def withhold(self, verdict: int) -> None:
        header = Header(self.state.epoch, self.state.version, verdict=verdict)
        self.session.call("withhold", np.array(header, np.int64))

    def close(self) -> None:
        self.session.close()
        self._control.close()

    def _take(self, state: np.ndarray, flat: np.ndarray, moments: Sequence[np.ndarray]) -> bool:
        self.state = State(*map(int, state))
        if not flat.size:
            return False
        self._write(flat, moments)
        return True

    def _assign(self, flat: tf.Tensor, moments: Sequence[tf.Tensor]) -> None:
        for variable, value in zip(self._moments, moments):
            variable.assign(value)
        parts = tf.split(flat, self.graph.layout.sizes)
        for variable, part in zip(self._variables, parts):
            variable.assign(tf.reshape(part, variable.shape))
