"""SEED RL's learner as the player of all environments: batched inference, state and unrolls.

The learner keeps for each environment the recurrent state, the last action and reward (they are
part of the policy's state) and the stack of frames, on the inference device, and the run id and the
partial unroll. The environments of one actor step together, so the latter are kept by blocks:
arrays of [N, ...].
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable

import grpc

from tfdrl.experience.episode_unrolls import unroll_collector
from tfdrl.experience.unrolls import CollectedUnrolls
from tfdrl.inference.awaited import AwaitedEnvironments
from tfdrl.inference.policy import BatchedPolicy
from tfdrl.inference.slots import EnvironmentSlots
from tfdrl.rpc import environment_specs as messages
from tfdrl.rpc import inference_pb2, training_pb2
from tfdrl.rpc.grpc_server import RefusedError
from tfdrl.rpc.inference_server import TrainingIsOver
from tfdrl.rpc.tensors import MessageError

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
      within_episodes: whether no unroll crosses the end of an episode (R2D2).
      awaited: is told who plays; `inference` waits for no more than it counts.
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
        within_episodes: bool = False,
        awaited: AwaitedEnvironments | None = None,
        put: Callable[[CollectedUnrolls], asyncio.Future | None],
    ):
        self._inference, self._specs, self._put = inference, specs, put
        stack = specs.frame_stack
        self._make_collector = functools.partial(
            unroll_collector, unroll_steps, overlap, within_episodes, stack
        )
        self._environments, self._max_block = environments, max_block
        self._awaited = awaited or AwaitedEnvironments()
        self._record = self._version = self._reason = None
        self._blocks: list[EnvironmentSlots] = []
        self._retired: dict[int, None] = {}

    def open(
        self, record: Callable[[training_pb2.ReportRequest], None], version: Callable[[], int]
    ) -> None:
        """Lets actors in.

        Args:
          record: counts an actor's report.
          version: of the parameters.
        """
        self._version, self._record = version, record

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
        return {**here, **self._inference.statistics()}

    def warn_of_waiting(self) -> None:
        """Says in the log whom the learner waits for."""
        logging.warning(
            "the learner waits for unrolls: %d actors with %d of %d environments are here",
            self.actors_here(),
            self.environments_here(),
            self._environments,
        )

    def close(self, reason: str | None) -> None:
        """Ends inference: each actor's next step is answered with Stop, for this reason.

        None: training is not over, and the actors wait for a learner that goes on with it.
        """
        self._reason = reason
        self._inference.close()

    def _end(self) -> Exception:
        """What a stream ends with once inference has ended."""
        if self._reason is None:
            text = "the learner was told to stop; wait for the next"
            return RefusedError(grpc.StatusCode.UNAVAILABLE, text)
        return TrainingIsOver(self._reason)

    def join(self, hello: inference_pb2.Hello) -> EnvironmentSlots:
        """The environments of one stream; see inference.proto for who is refused, and how."""
        if self._record is None:
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
                    block.come_back()
                    return block
            else:
                self._retired[block.run_id] = None
            self._inference.end(block.place)
        while len(self._retired) > _MAX_RETIRED_RUNS:
            del self._retired[next(iter(self._retired))]
        block = EnvironmentSlots(
            hello,
            self._specs,
            self._inference,
            self._make_collector(),
            awaited=self._awaited,
            put=self._put,
            record=self._record,
            version=self._version,
            end=self._end,
        )
        self._blocks = [b for b in self._blocks if b not in others] + [block]
        self._awaited.played = self._blocks
        block.come_back()
        return block
