"""The environments of one run of one actor, as SEED RL's learner plays them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import numpy as np

from tfdrl.experience.episode_unrolls import EpisodeUnrollCollector
from tfdrl.experience.frame_stacks import Frames, next_depth
from tfdrl.experience.unroll_queue import ClosedError
from tfdrl.experience.unrolls import CollectedUnrolls, UnrollCollector
from tfdrl.inference.awaited import AwaitedEnvironments
from tfdrl.inference.batcher import BatcherStoppedError
from tfdrl.inference.policy import Acted, BatchedPolicy
from tfdrl.rpc import inference_pb2, training_pb2
from tfdrl.rpc.environment_specs import EnvironmentSpecs, pack
from tfdrl.rpc.inference_messages import check_order
from tfdrl.rpc.tensors import MessageError
from tfdrl.types import FIRST, TimeSteps

_RECORD_PERIOD_SECS = 1.0
#: Without a word for so long, an actor is slow: batches do not wait for it.
_SLOW_SECS = 0.1


class EnvironmentSlots:
    """The environments of one run of one actor: their state and their partial unrolls.

    Args:
      hello: what the actor's first stream began with.
      specs: of one environment.
      inference: computes the actions.
      collector: makes the unrolls.
      awaited: is told when a stream comes, goes, or has to wait.
      put: takes complete unrolls; returns a future that makes the actor wait, or None.
      record: counts a report of the actor.
      version: of the parameters.
      end: what a stream ends with once inference has ended.

    Attributes:
      first, rows, end: numbers of its environments.
      next_index: of the step that comes next.
      place: where inference keeps their state.
      is_here: whether a stream plays it.
      is_broken: whether a step failed half done; the run cannot go on.
    """

    def __init__(
        self,
        hello: inference_pb2.Hello,
        specs: EnvironmentSpecs,
        inference: BatchedPolicy,
        collector: UnrollCollector | EpisodeUnrollCollector,
        *,
        awaited: AwaitedEnvironments,
        put: Callable[[CollectedUnrolls], asyncio.Future | None],
        record: Callable[[training_pb2.ReportRequest], None],
        version: Callable[[], int],
        end: Callable[[], Exception],
    ):
        self.first, self.rows = hello.first_environment, hello.environments
        self.end = self.first + self.rows
        self.run_id = hello.sender.run_id
        self.next_index, self.is_here, self.is_broken = 0, True, False
        self._sender = training_pb2.Sender()
        self._sender.CopyFrom(hello.sender)
        self._specs, self._inference, self._collector = specs, inference, collector
        self._awaited, self._put, self._report = awaited, put, record
        self._version, self._end = version, end
        self._depth = np.zeros(self.rows, np.uint8)  # of stacks of frames
        self.place = inference.begin(self.first, self.rows)
        self._state = self.place.state
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
        """See `inference_server.StreamHandler`."""
        if index == self.next_index - 1:
            return self._acted.action  # the answer was lost on the way
        if index != self.next_index:
            raise MessageError(f"steps with index {index}; {self.next_index} comes next")
        self._seen_secs = time.monotonic()
        try:
            await self._wait_for_room()
            if self._taken < index:
                check_order(steps.step_type, self._steps and self._steps.step_type)
                self._record(message)
                self.is_broken = True
                self._take(self._with_frames(steps, message))
                self._taken, self.is_broken = index, False
            await self._act()
        except (ClosedError, BatcherStoppedError):
            raise self._end() from None
        self._seen_secs = time.monotonic()
        return self._acted.action

    def come_back(self) -> None:
        """A stream plays them, for the first time or again."""
        self.is_here = True
        self._look_again()

    def leave(self) -> None:
        """The stream ended."""
        self.is_here = False
        self._look_again()

    def is_awaited(self, now_secs: float) -> bool:
        """Whether a step may come any moment, or is in a batch."""
        is_slow = now_secs - self._seen_secs > _SLOW_SECS
        return self.is_here and self._room is None and not is_slow

    def _with_frames(self, steps: TimeSteps, message: inference_pb2.Steps) -> TimeSteps:
        """Where observations are stacks, of which the newest frame came: that, and their depth."""
        if self._specs.frame_stack == 1:
            return steps
        (frames,) = steps.observation
        starts = np.frombuffer(message.stack_starts, bool)
        starts = starts if starts.size else steps.step_type == FIRST
        self._depth = next_depth(self._depth, starts, self._specs.frame_stack)
        return steps._replace(observation=Frames(frames[..., 0], self._depth))

    def _take(self, steps: TimeSteps) -> None:
        """Completes the last transition."""
        collector, version = self._collector, self._version()
        if self._acted is None:
            collector.start(steps, self._state, version)
        else:
            acted = self._acted
            self._unrolls = collector.add(acted.action, acted.info, steps, self._state, version)
        self._steps = steps

    async def _act(self) -> None:
        """Acts for the last steps. If it is cancelled, it can be done again."""
        acted = await self._inference.act(self._steps, self.place.rows[self._taken % 2])
        self._acted, self._state = acted, acted.state
        self.next_index += 1
        if self._unrolls is not None:
            unrolls, self._unrolls = self._unrolls.with_next_info(acted.info), None
            self._room = self._put(self._with_nests(unrolls))
            await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        if self._room is not None:
            self._look_again()  # the others need not wait for this block
            # Shielded: the place in the queue remains if this stream is cut.
            await asyncio.shield(self._room)
            self._room, self._seen_secs = None, time.monotonic()
            self._look_again()

    def _look_again(self) -> None:
        self._awaited.count_again()
        self._inference.look_again()

    def _with_nests(self, unrolls: CollectedUnrolls) -> CollectedUnrolls:
        inference, specs = self._inference, self._specs
        observation = unrolls.steps.observation
        if specs.frame_stack == 1:
            observation = pack(specs.observation_nest, observation)
        action, info = unrolls.acted
        return unrolls._replace(
            steps=unrolls.steps._replace(observation=observation),
            acted=(pack(specs.action_nest, action), inference.info_nest(info)),
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
        self._report(
            training_pb2.ReportRequest(
                sender=self._sender,
                frames=message.frames,
                episodes=message.episodes,
                metrics=metrics,
            )
        )
