"""SEED RL's learner as the player of all environments: batched inference, state and unrolls.

The learner keeps for each environment the recurrent state, the last action and reward (they are
part of the policy's state), the run id, the stack of frames and the partial unroll. The
environments of one actor step together, so all this is kept by blocks: arrays of [N, ...].
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

import grpc
import numpy as np
import tensorflow as tf
import tree

from tfdrl.environments.atari import FrameStack
from tfdrl.parts.batching import Batcher, StoppedError
from tfdrl.parts.evaluation import act_function
from tfdrl.parts.unroll_queue import ClosedError, CollectedUnrolls, UnrollCollector
from tfdrl.rpc import inference_messages as messages
from tfdrl.rpc import inference_pb2, training_pb2
from tfdrl.rpc.codec import MessageError
from tfdrl.rpc.inference_server import TrainingIsOver
from tfdrl.rpc.serving import RefusedError
from tfdrl.types import FIRST, Nest, TimeSteps

_RECORD_PERIOD_SECS = 1.0
#: Runs that were replaced; an actor that comes back as one of them is refused.
_MAX_RETIRED_RUNS = 1 << 16


class Inference:
    """A policy computed for batches that blocks of environments share.

    Args:
      policy: a TFPolicy of the learner's own variables.
      specs: of one environment.
      rows_wanted, max_rows, time_limit_secs: of a batch, as `Batcher` takes them.
      devices: inference devices, in turn; one batch each at a time.
      jit_compile: whether XLA compiles the policy.
      epsilon: <float>[environments], for a policy whose state has a field of that name.
    """

    def __init__(
        self,
        policy,
        specs: messages.EnvironmentSpecs,
        *,
        rows_wanted: Callable[[], int],
        max_rows: int,
        time_limit_secs: float,
        devices: Sequence[str] = ("",),
        jit_compile: bool = False,
        epsilon: np.ndarray | None = None,
    ):
        self._policy, self._specs, self._epsilon = policy, specs, epsilon
        self._devices = list(devices)
        self._acts = [act_function(policy, jit_compile) for _ in devices]
        state = [(spec.shape, spec.dtype.as_numpy_dtype) for spec in self._state_specs()]
        steps = [((), np.int32), ((), np.float32), ((), np.float32)]
        observations = [(spec.shape, spec.dtype) for spec in specs.observation]
        self._batcher = Batcher(
            [*steps, *observations, *state],
            self._compute,
            max_rows=max_rows,
            rows_wanted=rows_wanted,
            time_limit_secs=time_limit_secs,
            slots=len(self._devices),
        )

    def initial_state(self, first: int, rows: int) -> list[np.ndarray]:
        """Leaves of the policy's state before a run's first step, of these environments."""
        state = self._policy.get_initial_state(rows)
        if self._epsilon is not None and hasattr(state, "epsilon"):
            epsilon = self._epsilon[first : first + rows]
            state = state._replace(epsilon=tf.constant(epsilon, tf.float32))
        return [leaf.numpy() for leaf in tf.nest.flatten(state)]

    def state_nest(self, leaves: Sequence[np.ndarray]) -> Nest:
        """The nest of a state's leaves."""
        return tf.nest.pack_sequence_as(self._policy.policy_state_spec, leaves)

    def act(
        self, steps: TimeSteps, state: Sequence[np.ndarray]
    ) -> tuple[Nest, list[np.ndarray], Nest]:
        """Action, next state and policy info for a block of environments.

        Args:
          steps: of n environments; its observation is a list of leaves.
          state: leaves of [n, ...], before the step.
        """
        given = [steps.step_type, steps.reward, steps.discount, *steps.observation, *state]
        (action, next_state, info), rows = self._batcher.compute(given)
        cut = lambda nest: tree.map_structure(lambda leaf: leaf[rows], nest)  # noqa: E731
        return cut(action), [leaf[rows] for leaf in next_state], cut(info)

    def statistics(self) -> dict[str, float]:
        """Metrics since the last call."""
        return self._batcher.statistics.take()

    def close(self) -> None:
        """Blocks that wait get StoppedError."""
        self._batcher.close()

    def _state_specs(self):
        return tf.nest.flatten(self._policy.policy_state_spec)

    def _compute(self, arrays: Sequence[np.ndarray], count: int, slot: int):
        del count
        step_type, reward, discount, *rest = arrays
        leaves = len(self._specs.observation)
        observation = messages.pack(self._specs.observation_nest, rest[:leaves])
        state = self.state_nest(rest[leaves:])
        with tf.device(self._devices[slot]):
            step = self._acts[slot](step_type, reward, discount, observation, state)
        action, info = tf.nest.map_structure(lambda x: x.numpy(), (step.action, step.info))
        return action, [leaf.numpy() for leaf in tf.nest.flatten(step.state)], info


class CentralPlayer:
    """Gives every block of environments its actions and makes unrolls of what they show.

    Args:
      inference: computes the actions.
      specs: of one environment.
      environments: how many there are over all actors; their numbers are below it.
      max_block: the most that one actor may play.
      unroll_steps: T, the overlap included.
      overlap: transitions that an unroll shares with the next.
      put: takes complete unrolls; may wait, which makes their actor wait.
    """

    def __init__(
        self,
        inference: Inference,
        specs: messages.EnvironmentSpecs,
        *,
        environments: int,
        max_block: int,
        unroll_steps: int,
        overlap: int = 0,
        put: Callable[[CollectedUnrolls], None],
    ):
        self.inference, self.specs = inference, specs
        self.unroll_steps, self.overlap, self.put = unroll_steps, overlap, put
        self.record = self.version = self._reason = None
        self._environments, self._max_block = environments, max_block
        self._lock = threading.Lock()
        self._blocks: list[Block] = []
        self._retired: dict[int, None] = {}

    def open(
        self, record: Callable[[training_pb2.ReportRequest], None], version: Callable[[], int]
    ) -> None:
        """Lets actors in.

        Args:
          record: counts an actor's report.
          version: of the parameters.
        """
        self.version, self.record = version, record

    def environments_here(self) -> int:
        """How many environments are being played."""
        return sum(block.rows for block in list(self._blocks) if block.is_here)

    def actors_here(self) -> int:
        """How many streams play."""
        return sum(block.is_here for block in list(self._blocks))

    def statistics(self) -> dict[str, float]:
        """Metrics since the last call."""
        here = {
            "inference/actors": self.actors_here(),
            "inference/environments": self.environments_here(),
        }
        return {**here, **self.inference.statistics()}

    def warn_of_waiting(self) -> None:
        """Says in the log whom the learner waits for."""
        logging.warning(
            "the learner waits for unrolls: %d actors with %d of %d environments are here",
            *(self.actors_here(), self.environments_here(), self._environments),
        )

    def close(self, reason: str | None) -> None:
        """Ends inference: each actor's next step is answered with Stop, for this reason.

        None: training is not over, and the actors wait for a learner that goes on with it.
        """
        self._reason = reason
        self.inference.close()

    def end(self) -> Exception:
        """What a stream ends with once inference has ended."""
        if self._reason is None:
            text = "the learner was told to stop; wait for the next"
            return RefusedError(grpc.StatusCode.UNAVAILABLE, text)
        return TrainingIsOver(self._reason)

    def join(self, hello: inference_pb2.Hello) -> Block:
        """A seat; see inference.proto for who is refused, and how."""
        if self.record is None:
            raise RefusedError(grpc.StatusCode.UNAVAILABLE, "the learner is starting")
        first, rows = hello.first_environment, hello.environments
        if not 1 <= rows <= self._max_block:
            raise MessageError(f"{rows} environments; an actor plays 1 to {self._max_block}")
        if first + rows > self._environments:
            raise MessageError(
                f"environments {first} to {first + rows - 1}; this training has "
                f"{self._environments}, numbered from 0"
            )
        with self._lock:
            run_id = hello.sender.run_id
            if run_id in self._retired:
                raise RefusedError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"run {run_id} was replaced by a newer one of the same environments",
                )
            others = [b for b in self._blocks if b.first < first + rows and first < b.end]
            for block in others:
                if block.is_here:
                    raise RefusedError(
                        grpc.StatusCode.ALREADY_EXISTS,
                        f"environments {block.first} to {block.end - 1} are being played by "
                        f"another stream, run {block.run_id}",
                    )
            for block in others:
                if (block.run_id, block.first, block.rows) == (run_id, first, rows):
                    if not block.is_broken:
                        block.is_here = True
                        return block
                else:
                    self._retired[block.run_id] = None
            while len(self._retired) > _MAX_RETIRED_RUNS:
                del self._retired[next(iter(self._retired))]
            block = Block(self, hello)
            self._blocks = [b for b in self._blocks if b not in others] + [block]
            return block


class Block:
    """The environments of one run of one actor: their state and their partial unrolls.

    Attributes:
      first, rows, end: numbers of its environments.
      next_index: of the step that comes next.
      is_here: whether a stream plays it.
      is_broken: whether a step failed half done; the run cannot go on.
    """

    def __init__(self, player: CentralPlayer, hello: inference_pb2.Hello):
        self.first, self.rows = hello.first_environment, hello.environments
        self.end = self.first + self.rows
        self.run_id = hello.sender.run_id
        self.next_index, self.is_here, self.is_broken = 0, True, False
        self._sender = training_pb2.Sender()
        self._sender.CopyFrom(hello.sender)
        self._player = player
        specs = player.specs
        self._stack = None
        if specs.frame_stack > 1:
            size = specs.observation[0].shape[0]
            self._stack = FrameStack(self.rows, specs.frame_stack, size)
        self._state = player.inference.initial_state(self.first, self.rows)
        self._collector = UnrollCollector(player.unroll_steps, player.overlap)
        self._step_type = None  # of the last steps
        self._acted = None  # the action for them, and its info
        self._recorded_secs = time.monotonic()
        self._recorded_frames = 0
        self._episode_return = None

    def act(
        self, index: int, steps: TimeSteps, message: inference_pb2.Steps
    ) -> Sequence[np.ndarray]:
        """See `inference_server.Seat`."""
        if self._acted is not None and index == self.next_index - 1:
            return self._answer()  # the answer was lost on the way
        if index != self.next_index:
            raise MessageError(f"steps with index {index}; {self.next_index} comes next")
        messages.check_order(steps.step_type, self._step_type)
        self._record(message)
        self.is_broken = True
        try:
            self._take(self._with_stack(steps))
        except (ClosedError, StoppedError):
            raise self._player.end() from None
        self.is_broken = False
        self.next_index += 1
        return self._answer()

    def leave(self) -> None:
        """The stream ended."""
        self.is_here = False

    def _answer(self) -> list[np.ndarray]:
        return messages.flatten(self._player.specs.action_nest, self._acted[0])

    def _with_stack(self, steps: TimeSteps) -> TimeSteps:
        if self._stack is None:
            return steps
        (frames,) = steps.observation
        stack = self._stack.push(frames[..., 0], steps.step_type == FIRST)
        return steps._replace(observation=[stack])

    def _take(self, steps: TimeSteps) -> None:
        """Completes the last transition and acts."""
        player = self._player
        nest = messages.pack(player.specs.observation_nest, steps.observation)
        then = steps._replace(observation=nest)
        state, version = player.inference.state_nest(self._state), player.version()
        unrolls = None
        if self._acted is None:
            self._collector.start(then, state, version)
        else:
            unrolls = self._collector.add(*self._acted, then, state, version)
        action, self._state, info = player.inference.act(steps, self._state)
        if unrolls is not None:
            player.put(unrolls._replace(next_info=info))
        self._acted = action, info
        self._step_type = steps.step_type

    def _record(self, message: inference_pb2.Steps) -> None:
        """Tells the ledger, about once a second, and of every episode that ended."""
        now_secs = time.monotonic()
        passed_secs = now_secs - self._recorded_secs
        if passed_secs < _RECORD_PERIOD_SECS and not message.episodes.returns:
            return
        if message.episodes.returns:
            self._episode_return = float(np.mean(message.episodes.returns))
        metrics = {}
        if passed_secs >= _RECORD_PERIOD_SECS:
            frames = message.frames - self._recorded_frames
            metrics["actor/frames_per_second"] = frames / passed_secs
            if self._episode_return is not None:
                metrics["actor/episode_return"] = self._episode_return
            self._recorded_secs, self._recorded_frames = now_secs, message.frames
        self._player.record(
            training_pb2.ReportRequest(
                sender=self._sender,
                frames=message.frames,
                episodes=message.episodes,
                metrics=metrics,
            )
        )
