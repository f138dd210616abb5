"""SEED RL's learner as the player of all environments: batched inference, state and unrolls.

The learner keeps for each environment the recurrent state, the last action and reward (they are
part of the policy's state), the run id, the stack of frames and the partial unroll. The
environments of one actor step together, so all this is kept by blocks: arrays of [N, ...].
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

import grpc
import numpy as np

from tfdrl.environments.atari import FrameStack
from tfdrl.experience.unroll_queue import ClosedError
from tfdrl.experience.unrolls import CollectedUnrolls, UnrollCollector
from tfdrl.inference.batcher import BatcherStoppedError
from tfdrl.inference.policy import Acted, BatchedPolicy
from tfdrl.rpc import inference_messages as messages
from tfdrl.rpc import inference_pb2, training_pb2
from tfdrl.rpc.grpc_server import RefusedError
from tfdrl.rpc.inference_server import TrainingIsOver
from tfdrl.rpc.tensors import MessageError
from tfdrl.types import FIRST, TimeSteps

_RECORD_PERIOD_SECS = 1.0
#: Without a word for so long, an actor is slow: batches do not wait for it.
_SLOW_SECS = 0.1
_COUNT_PERIOD_SECS = 0.05
#: Runs that were replaced; an actor that comes back as one of them is refused.
_MAX_RETIRED_RUNS = 1 << 16


class CentralInference:
    """Gives every block of environments its actions and makes unrolls of what they show.

    Args:
      inference: computes the actions.
      specs: of one environment.
      environments: how many there are over all actors; their numbers are below it.
      max_block: the most that one actor may play.
      unroll_steps: T, the overlap included.
      overlap: transitions that an unroll shares with the next.
      put: takes complete unrolls; returns a future that makes their actor wait, or None.
    """

    def __init__(
        self,
        inference: BatchedPolicy,
        specs: messages.EnvironmentSpecs,
        *,
        environments: int,
        max_block: int,
        unroll_steps: int,
        overlap: int = 0,
        put: Callable[[CollectedUnrolls], asyncio.Future | None],
    ):
        self.inference, self.specs = inference, specs
        self.unroll_steps, self.overlap, self.put = unroll_steps, overlap, put
        self.record = self.version = self._reason = None
        self._environments, self._max_block = environments, max_block
        self._blocks: list[EnvironmentSlots] = []
        self._retired: dict[int, None] = {}
        self._awaited, self._count_again_secs = 0, 0.0

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

    def environments_awaited(self) -> int:
        """How many of them may show a step any moment: no actor is slow, or waits for room."""
        now_secs = time.monotonic()
        if now_secs >= self._count_again_secs:
            self._count_again_secs = now_secs + _COUNT_PERIOD_SECS
            self._awaited = sum(b.rows for b in self._blocks if b.is_awaited(now_secs))
        return self._awaited

    def look_again(self) -> None:
        """A stream has come, gone, or has to wait."""
        self._count_again_secs = 0.0
        self.inference.look_again()

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

    def join(self, hello: inference_pb2.Hello) -> EnvironmentSlots:
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
                    self.look_again()
                    return block
            else:
                self._retired[block.run_id] = None
        while len(self._retired) > _MAX_RETIRED_RUNS:
            del self._retired[next(iter(self._retired))]
        block = EnvironmentSlots(self, hello)
        self._blocks = [b for b in self._blocks if b not in others] + [block]
        self.look_again()
        return block


class EnvironmentSlots:
    """The environments of one run of one actor: their state and their partial unrolls.

    Attributes:
      first, rows, end: numbers of its environments.
      next_index: of the step that comes next.
      is_here: whether a stream plays it.
      is_broken: whether a step failed half done; the run cannot go on.
    """

    def __init__(self, player: CentralInference, hello: inference_pb2.Hello):
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
        self._steps: TimeSteps | None = None  # the last
        self._taken = -1  # their index
        self._acted: Acted | None = None  # for the last steps but one, or for them
        self._unrolls: CollectedUnrolls | None = None  # that the last steps completed
        self._room: asyncio.Future | None = None  # for the last unrolls
        self._recorded_secs = self._seen_secs = time.monotonic()
        self._recorded_frames = 0
        self._episode_return = None

    async def act(
        self, index: int, steps: TimeSteps, message: inference_pb2.Steps
    ) -> Sequence[np.ndarray]:
        """See `inference_server.Seat`."""
        if index == self.next_index - 1:
            return self._acted.action  # the answer was lost on the way
        if index != self.next_index:
            raise MessageError(f"steps with index {index}; {self.next_index} comes next")
        self._seen_secs = time.monotonic()
        try:
            await self._wait_for_room()
            if self._taken < index:
                messages.check_order(steps.step_type, self._steps and self._steps.step_type)
                self._record(message)
                self.is_broken = True
                self._take(self._with_stack(steps))
                self._taken, self.is_broken = index, False
            await self._act()
        except (ClosedError, BatcherStoppedError):
            raise self._player.end() from None
        self._seen_secs = time.monotonic()
        return self._acted.action

    def leave(self) -> None:
        """The stream ended."""
        self.is_here = False
        self._player.look_again()

    def is_awaited(self, now_secs: float) -> bool:
        """Whether a step may come any moment, or is in a batch."""
        is_slow = now_secs - self._seen_secs > _SLOW_SECS
        return self.is_here and self._room is None and not is_slow

    def _with_stack(self, steps: TimeSteps) -> TimeSteps:
        if self._stack is None:
            return steps
        (frames,) = steps.observation
        stack = self._stack.push(frames[..., 0], steps.step_type == FIRST)
        return steps._replace(observation=[stack])

    def _take(self, steps: TimeSteps) -> None:
        """Completes the last transition."""
        collector, version = self._collector, self._player.version()
        if self._acted is None:
            collector.start(steps, self._state, version)
        else:
            acted = self._acted
            self._unrolls = collector.add(acted.action, acted.info, steps, self._state, version)
        self._steps = steps

    async def _act(self) -> None:
        """Acts for the last steps. If it is cancelled, it can be done again."""
        player = self._player
        acted = await player.inference.act(self._steps, self._state)
        self._acted, self._state = acted, acted.state
        self.next_index += 1
        if self._unrolls is not None:
            unrolls, self._unrolls = self._unrolls._replace(next_info=acted.info), None
            self._room = player.put(self._with_nests(unrolls))
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        if self._room is not None:
            self._player.look_again()  # the others need not wait for this block
            # Shielded: the place in the queue remains if this stream is cut.
            await asyncio.shield(self._room)
            self._room, self._seen_secs = None, time.monotonic()
            self._player.look_again()

    def _with_nests(self, unrolls: CollectedUnrolls) -> CollectedUnrolls:
        inference, specs = self._player.inference, self._player.specs
        observation = messages.pack(specs.observation_nest, unrolls.steps.observation)
        action, info = unrolls.acted
        return unrolls._replace(
            steps=unrolls.steps._replace(observation=observation),
            acted=(messages.pack(specs.action_nest, action), inference.info_nest(info)),
            policy_state=inference.state_nest(unrolls.policy_state),
            next_info=inference.info_nest(unrolls.next_info),
        )

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
