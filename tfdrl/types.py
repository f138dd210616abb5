"""The data that crosses a boundary: shapes and time pairing, stated once.

Time pairing (TF-Agents' `Trajectory` pairing, everywhere in tfdrl): index t holds
`observation_t`, the action that answered it, and the reward, discount and
`next_step_type` that followed. An episode ends with a LAST step, whose successor is
FIRST (next-step auto-reset, as Gymnasium 1.x does): the action given at a LAST step
is ignored. Termination has discount 0; truncation keeps discount 1 and bootstraps
from the true last observation, which the LAST step carries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

#: Values of `TimeSteps.step_type`, the same as `tf_agents.trajectories.StepType`.
FIRST, MID, LAST = 0, 1, 2

#: An array, or a dict / tuple of nests.
Nest = Any


class ArraySpec(NamedTuple):
    """Shape, dtype and inclusive bounds of one array, without a batch dimension."""

    shape: tuple[int, ...]
    dtype: np.dtype
    minimum: Any = None  # scalar or array broadcastable to `shape`; None: unbounded
    maximum: Any = None
    name: str = ""
    categorical: bool = False  # of observations: integers that name something, measuring nothing

    @property
    def is_discrete(self) -> bool:
        """Whether the values are bounded integers (an action that counts)."""
        return np.issubdtype(self.dtype, np.integer) and self.maximum is not None

    @property
    def num_values(self) -> int:
        """How many values a bounded integer takes; of an array, what each element has at least."""
        return int(np.min(np.subtract(self.maximum, self.minimum, dtype=np.int64))) + 1

    @property
    def element_values(self) -> tuple[int, ...]:
        """How many values each element of bounded integers takes, in the order of their memory."""
        counts = np.subtract(self.maximum, self.minimum, dtype=np.int64) + 1
        return tuple(np.broadcast_to(counts, self.shape).reshape(-1).tolist())


def map_specs(function: Callable[..., Any], specs: Nest, *values: Nest) -> Nest:
    """`function(spec, *values)` at every `ArraySpec` of a nest; keys in sorted order."""
    if isinstance(specs, ArraySpec):
        return function(specs, *values)
    if isinstance(specs, dict):
        return {
            key: map_specs(function, spec, *(value[key] for value in values))
            for key, spec in sorted(specs.items())
        }
    return tuple(
        map_specs(function, spec, *(value[i] for value in values)) for i, spec in enumerate(specs)
    )


class TimeSteps(NamedTuple):
    """One time step of N environments.

    step_type    <int32>[N]      FIRST, MID or LAST
    reward       <float32>[N]    of the transition that led here; 0 at FIRST
    discount     <float32>[N]    0 after a termination, else 1
    observation  nest of [N, ...]
    """

    step_type: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    observation: Nest


def stack_starts(step_type: np.ndarray, stacks: np.ndarray) -> np.ndarray:
    """Where stacks of frames begin anew: <bool>[...], as `step_type` has them.

    They do so at the FIRST step of a game; that of an episode which begins after a lost life goes
    on with the stack (Mnih et al. 2015 end an episode there, and not the game). Of a stack that
    goes on over black frames nothing tells it from a new one, and nothing needs to.

    Args:
      step_type: <int>[...].
      stacks: [..., *shape of a frame, k], the newest frame last.
    """
    starts = step_type == FIRST
    if starts.any():
        before = stacks[starts][..., :-1]
        starts[starts] = ~before.reshape(len(before), -1).any(axis=1)
    return starts


class Episodes(NamedTuple):
    """Episodes that ended, in raw (unclipped, whole-game) rewards.

    returns        <float32>[k]  undiscounted sum of raw rewards
    length_frames  <int64>[k]    length in environment frames
    """

    returns: np.ndarray
    length_frames: np.ndarray


class ItemCounts(NamedTuple):
    """How many items went into replays, and how many were trained on, each time counted."""

    inserted: int
    sampled: int


class Transitions(NamedTuple):
    """A batch of k n-step transitions (Ape-X, section 3, "n-step transition").

    observation       nest of [k, ...]   s_t
    action            nest of [k, ...]   a_t
    n_step_return     <float32>[k]       sum of gamma^i r_{t+i+1} over the window
    discount          <float32>[k]       gamma^(m-1) for a window of m <= n steps, 0 if the
                                         episode terminated in it. TF-Agents' convention: the
                                         agent multiplies the last factor of gamma.
    next_observation  nest of [k, ...]   s_{t+m}

    Of stacks of frames, observation is `frame_stacks.FramePairs` of both, and next_observation ().
    """

    observation: Nest
    action: Nest
    n_step_return: np.ndarray
    discount: np.ndarray
    next_observation: Nest


class Unrolls(NamedTuple):
    """A batch of k unrolls of T transitions (IMPALA, section 3): T+1 steps and T actions.

    Full length: an unroll passes through episode ends. Step T is the first of the next unroll.

    steps         TimeSteps of [k, T+1, ...]; reward[:, 0] led to the first step
    action        nest of [k, T, ...]  that answered step t and led to step t+1
    info          nest of [k, T, ...]  of the policy: parameters of the behaviour distribution
    policy_state  nest of [k, ...]     of the policy BEFORE step 0
    version       <int64>[k]           of the parameters, the same for all T actions
    time_secs     <float64>[k]         Unix time when the unroll was complete
    """

    steps: TimeSteps
    action: Nest
    info: Nest
    policy_state: Nest
    version: np.ndarray
    time_secs: np.ndarray
