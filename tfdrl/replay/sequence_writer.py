"""Whole sequences into the prioritised replay, with initial priorities (Kapturowski 2019)."""

from __future__ import annotations

import threading

import numpy as np
import tree

from tfdrl.experience import frame_stacks
from tfdrl.experience.episode_unrolls import unroll_collector
from tfdrl.experience.frame_stacks import with_stacks
from tfdrl.experience.unroll_batches import to_batch
from tfdrl.experience.unroll_queue import UnrollQueue
from tfdrl.experience.unrolls import CollectedUnrolls
from tfdrl.ops import priorities as priorities_ops
from tfdrl.replay.unroll_writer import UnrollWriter
from tfdrl.runtime.host_tensors import on_host, shared
from tfdrl.topology import Address
from tfdrl.types import Nest, TimeSteps, Unrolls

#: Name of the table that holds sequences.
SEQUENCES = "sequences"


class SequenceAssembler:
    """Cuts the steps of an actor's N environments into sequences that overlap.

    Args:
      num_envs: N.
      sequence_steps: of a sequence, those that it shares with the one before included.
      overlap: how many these are: the burn-in.
      within_episodes: whether no sequence crosses the end of an episode; they then complete at
        different times, and come when there are N.
      frame_stack: k, where observations are single frames, as of `UnrollCollector`.
    """

    def __init__(
        self,
        num_envs: int,
        sequence_steps: int,
        overlap: int,
        within_episodes: bool = False,
        frame_stack: int = 1,
    ):
        self._num_envs = num_envs
        self._collector = unroll_collector(sequence_steps, overlap, within_episodes, frame_stack)
        self._complete: CollectedUnrolls | None = None
        self._is_started = False
        self._queue = UnrollQueue(num_envs)  # from time-major to rows, one batch at a time

    def add(
        self,
        time_step: TimeSteps,
        action: Nest,
        next_time_step: TimeSteps,
        info: Nest,
        states: tuple[Nest, Nest],
        version: int,
    ) -> tuple[Unrolls, Nest] | None:
        """Adds what N environments did.

        Args:
          time_step: steps before the action.
          action: nest of [N, ...].
          next_time_step: steps after it.
          info: of the policy at `time_step`, nest of [N, ...].
          states: of the policy before `time_step` and before `next_time_step`.
          version: of the parameters that act next.

        Returns:
          The oldest N sequences that are complete, and `info` of their last steps, nest of
          [N, ...], with which those steps' values are known; or None. The arrays are good until
          the next but one.
        """
        if not self._is_started:
            self._collector.start(time_step, _arrays(states[0]), version)
            self._is_started = True
        found = None
        if self._complete is not None:
            self._queue.put(self._complete.with_next_info(info))  # below N: there is room
            unrolls = self._queue.take(self._num_envs, timeout_secs=0.0)
            found = None if unrolls is None else (unrolls, self._queue.next_info)
        self._complete = self._collector.add(
            action, info, next_time_step, _arrays(states[1]), version
        )
        return found


def _arrays(nest: Nest) -> Nest:
    return tree.map_structure(np.asarray, nest)


class SequenceWriter:
    """Inserts sequences with priorities from the values that acting saw.

    Args:
      address: of the replay server.
      agent: computes initial priorities.
      frame_stack: k frames in an observation, of which one is stored; else 1.
      timeout_secs: how long the server may take nothing before that is an error.
      stop: ends the waiting.

    Attributes:
      bad_priorities: that were negative or not finite.
      waiting: the clock of the waits for the server.
    """

    def __init__(
        self,
        address: Address,
        agent,
        frame_stack: int,
        timeout_secs: float,
        stop: threading.Event,
    ):
        self._compute = on_host(
            lambda unrolls, max_q: agent.initial_priorities(
                unrolls.info.q_taken, max_q, with_stacks(to_batch(unrolls).experience)
            )
        )
        self._frame_stack = frame_stack
        self._writer = UnrollWriter(address, [SEQUENCES], timeout_secs, stop)
        self.waiting, self.bad_priorities = self._writer.waiting, 0

    def write(self, unrolls: Unrolls, next_info: Nest) -> None:
        """Inserts B sequences.

        Args:
          unrolls: B of them, whose info is a `QInfo`.
          next_info: `QInfo` of [B, ...] at their last step.

        Raises:
          UnavailableError: the server took nothing within the time limit.
        """
        priorities = self.priorities(unrolls, next_info)
        self._writer.write(frame_stacks.thin(unrolls, self._frame_stack), priorities)

    def priorities(self, unrolls: Unrolls, next_info: Nest) -> np.ndarray:
        """<float64>[B] of the sequences that `write` takes."""
        max_q = np.concatenate([unrolls.info.max_q, next_info.max_q[:, None]], axis=1)
        unrolls = unrolls._replace(version=(), time_secs=())
        found = self._compute(tree.map_structure(shared, unrolls), max_q)
        clean, bad = priorities_ops.sanitise(found.numpy())
        self.bad_priorities += bad
        return clean

    @property
    def items(self) -> int:
        """Sequences written so far."""
        return self._writer.items

    def counters(self) -> dict[str, float]:
        """What an actor reports of its writing."""
        return {
            "actor/sequences": self.items,
            "actor/bad_priorities": self.bad_priorities,
        }

    def close(self) -> None:
        """Gives up what the server has not taken."""
        self._writer.close()
