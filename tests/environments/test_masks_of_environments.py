"""Masks of Gymnasium's and TF-Agents' environments: one form, right at episodes' ends, checked."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from tf_agents.environments import py_environment as tfa
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from tfdrl.environments import gym_environment
from tfdrl.environments.vectorized import VectorizedEnvironment
from tfdrl.environments_tf import py_environment
from tfdrl.errors import ConfigurationError, TfdrlError
from tfdrl.types import FIRST, LAST, MID, ArraySpec

ROOMS, DOORS = 3, 4
MASK = ArraySpec((DOORS,), np.dtype(np.uint8), 0, 1, "action_mask")
PLACE = ArraySpec((ROOMS + 1,), np.dtype(np.float32), 0.0, 1.0)


def doors(num_envs=2, seed=0, wrappers=(), vectorization="sync", mask_in_info=False):
    return gym_environment(
        *(num_envs, True, seed),
        id="tfdrl/Doors-v0",
        kwargs={"rooms": ROOMS, "mask_in_info": mask_in_info},
        wrappers=wrappers,
        vectorization=vectorization,
        action_mask="action_mask",
    )


def allowed(mask, generator):
    """One of the allowed actions of each row; any where all are forbidden."""
    return (
        generator.random(mask.shape) * np.where(mask.any(axis=1, keepdims=True), mask, 1)
    ).argmax(axis=1)


@pytest.mark.parametrize(
    ("vectorization", "mask_in_info"),
    [("sync", False), ("sync", True), ("async", False), ("async", True)],
)
def test_the_mask_is_of_the_observation_beside_it(vectorization, mask_in_info):
    """Doors raises if an action is not allowed at the very step; the end of a game allows none."""
    generator = np.random.default_rng(0)
    with doors(vectorization=vectorization, mask_in_info=mask_in_info) as env:
        assert env.observation_spec.keys() == {"observation", "action_mask"}
        assert env.observation_spec["action_mask"] == MASK and env.action_mask == "action_mask"
        steps, kinds = env.reset(), set()
        for _ in range(200):
            mask, place = steps.observation["action_mask"], steps.observation["observation"]
            assert mask.dtype == np.uint8 and mask.shape == (2, DOORS)
            is_last = steps.step_type == LAST
            np.testing.assert_array_equal(mask.sum(axis=1), np.where(is_last, 0, 2))
            np.testing.assert_array_equal(place[:, ROOMS] == 1.0, is_last)
            np.testing.assert_array_equal(place[:, 0] == 1.0, steps.step_type == FIRST)
            kinds |= set(steps.step_type)
            steps = env.step(allowed(mask, generator))
    assert kinds == {FIRST, MID, LAST}


@pytest.mark.parametrize("mask_in_info", [False, True])
def test_a_truncated_episode_ends_with_the_mask_of_its_last_observation(mask_in_info):
    generator = np.random.default_rng(1)
    wrappers = (lambda env: TimeLimit(env, 2),)
    with doors(wrappers=wrappers, mask_in_info=mask_in_info) as env:
        steps = env.reset()
        for _ in range(2):
            steps = env.step(allowed(steps.observation["action_mask"], generator))
        np.testing.assert_array_equal(steps.step_type, [LAST, LAST])
        np.testing.assert_array_equal(steps.discount, [1.0, 1.0])
        np.testing.assert_array_equal(steps.observation["observation"][:, 2], [1.0, 1.0])
        np.testing.assert_array_equal(steps.observation["action_mask"].sum(axis=1), [2, 2])


def test_the_same_steps_wherever_the_mask_is():
    taken = []
    for mask_in_info in (False, True):
        generator = np.random.default_rng(2)
        with doors(mask_in_info=mask_in_info) as env:
            steps, masks = env.reset(), []
            for _ in range(20):
                masks.append(steps.observation["action_mask"])
                steps = env.step(allowed(masks[-1], generator))
        taken.append(np.array(masks))
    np.testing.assert_array_equal(*taken)


class Room(gymnasium.Env):
    """Says what it is told to, for ever."""

    observation_space = spaces.Box(0, 1, (2,), np.float32)

    def __init__(self, info=None, part=None, space=None, action_space=None, terminates=False):
        self.action_space = action_space or spaces.Discrete(3)
        self.info, self.part, self.terminates = info or {}, part, terminates
        if part is not None:
            box = self.observation_space
            self.observation_space = spaces.Dict({"board": box, "action_mask": space})

    def reset(self, *, seed=None, options=None):
        info = self.info[0] if isinstance(self.info, tuple) else self.info
        return self.shown(), info

    def step(self, action):
        info = self.info[1] if isinstance(self.info, tuple) else self.info
        return self.shown(), 0.0, self.terminates, False, info

    def shown(self):
        board = np.zeros(2, np.float32)
        return board if self.part is None else {"board": board, "action_mask": self.part}


gymnasium.register("Masks/Room-v0", entry_point=Room)


def room(action_mask="action_mask", num_envs=2, **kwargs):
    return gym_environment(
        num_envs, True, 0, id="Masks/Room-v0", kwargs=kwargs, action_mask=action_mask
    )


def ints(*values, dtype=np.int8):
    return np.array(values, dtype)


INT8 = spaces.Box(0, 1, (3,), np.int8)
INFO = {"action_mask": ints(1, 0, 1)}
PAIR = spaces.MultiDiscrete([3, 2])
THREE_AND_TWO = (ints(1, 0, 1), ints(0, 1))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"info": INFO},
        {"info": {"action_mask": [1, 0, 1]}},
        {"info": {"action_mask": (True, False, True)}},
        {"info": {"action_mask": ints(1, 0, 1, dtype=bool)}},
        {"part": ints(1, 0, 1), "space": INT8},
        {"part": ints(1, 0, 1), "space": spaces.MultiBinary(3)},
        {"part": ints(1, 0, 1, dtype=bool), "space": spaces.Box(0, 1, (3,), bool)},
        {"part": ints(1, 0, 1, dtype=np.int64), "space": spaces.MultiDiscrete([2, 2, 2])},
        {"info": INFO, "action_space": spaces.Discrete(3, start=-1)},
    ],
)
def test_masks_of_any_integers_in_any_place(kwargs):
    with room(**kwargs) as env:
        for steps in (env.reset(), env.step(np.zeros(2, np.int32))):
            mask = steps.observation["action_mask"]
            np.testing.assert_array_equal(mask, [[1, 0, 1], [1, 0, 1]])
            assert mask.dtype == np.uint8 and len(steps.observation) == 2


@pytest.mark.parametrize(
    "kwargs",
    [
        {"info": {"action_mask": THREE_AND_TWO}},
        {"info": {"action_mask": [[1, 0, 1], [0, 1]]}},
        {"info": {"action_mask": np.concatenate(THREE_AND_TWO)}},
        {"part": THREE_AND_TWO, "space": spaces.Tuple([INT8, spaces.MultiBinary(2)])},
        {"part": np.concatenate(THREE_AND_TWO), "space": spaces.MultiBinary(5)},
    ],
)
def test_masks_of_arrays_of_actions_by_element_or_side_by_side(kwargs):
    with room(action_space=PAIR, **kwargs) as env:
        for steps in (env.reset(), env.step(np.zeros((2, 2), np.int32))):
            mask = steps.observation["action_mask"]
            np.testing.assert_array_equal(mask, [[1, 0, 1, 0, 1]] * 2)
            assert mask.dtype == np.uint8 and env.observation_spec["action_mask"].shape == (5,)


def test_each_element_of_an_action_must_be_allowed_something():
    with room(action_space=PAIR, info={"action_mask": ints(1, 1, 1, 0, 0)}) as env:
        with pytest.raises(TfdrlError, match="forbids every action although"):
            env.reset()


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({}, r"neither its observation \(no Dict\) nor its info \(empty\)"),
        ({"info": {"mask": ints(1, 0, 1)}}, r"nor its info \(mask\) has that key"),
        ({"info": (INFO, {})}, "at every reset and step"),
        (
            {"info": {"action_mask": ints(1, 0)}},
            r"it is int8\[2\]; one integer .* of the 3 actions",
        ),
        ({"info": {"action_mask": [1, 0]}}, r"it is int64\[2\]"),
        ({"info": {"action_mask": ints(1, 0, 1, dtype=np.float32)}}, r"it is float32\[3\]"),
        ({"info": {"action_mask": 1}}, r"it is int64\[\]"),
        ({"part": ints(1), "space": spaces.Box(0, 1, (1,), np.int8)}, r"it is int\d+\[1\]"),
        ({"part": ints(1), "space": spaces.Box(0, 1, (3,), np.float32)}, r"it is float32\[3\]"),
        ({"info": INFO, "action_space": spaces.Box(-1, 1, (3,))}, "Discrete or MultiDiscrete"),
        (
            {"info": INFO, "action_space": PAIR},
            r"it is int8\[3\]; one array of 5 integers \(int8\) or bools, or a tuple .* of 3, 2",
        ),
        ({"info": {"action_mask": THREE_AND_TWO[::-1]}, "action_space": PAIR}, r"int8\[2\], int8"),
    ],
)
def test_what_is_no_mask_is_wrong_configuration(kwargs, said):
    named = r"Masks/Room-v0: gym_environment.action_mask = 'action_mask' names its action mask, but"
    with pytest.raises(ConfigurationError, match=f"{named} .*{said}"):
        with room(**kwargs) as env:
            env.reset()
            env.step(np.zeros(2, np.int32))


@pytest.mark.parametrize(
    ("mask", "said"),
    [(ints(0, 0, 0), "forbids every action although"), (ints(0, 2, 1), "it has 2 among 0")],
)
@pytest.mark.parametrize("is_part", [True, False])
def test_a_mask_of_which_no_sense_can_be_made_names_the_environment(mask, said, is_part):
    kwargs = {"part": mask, "space": INT8} if is_part else {"info": {"action_mask": mask}}
    with room(**kwargs) as env, pytest.raises(TfdrlError, match=f"Masks/Room-v0: .*{said}"):
        env.reset()


def test_only_a_terminated_episode_may_allow_nothing():
    nothing = {"action_mask": ints(0, 0, 0)}
    with room(info=(INFO, nothing), terminates=True) as env:
        env.reset()
        mask = env.step(np.zeros(2, np.int32)).observation["action_mask"]
        np.testing.assert_array_equal(mask, np.zeros([2, 3]))
        assert env.step(np.zeros(2, np.int32)).observation["action_mask"].any()


class OwnVector(gymnasium.vector.VectorEnv):
    """A vector environment of its own, with infos as its makers like them."""

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}
    num_envs = 2
    single_observation_space = spaces.Box(0, 1, (2,), np.float32)
    single_action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        return np.zeros((2, 2), np.float32), {"action_mask": ints([1, 0, 0], [0, 1, 0])}


def test_the_infos_of_a_vector_environment_of_its_own():
    env = VectorizedEnvironment(OwnVector(), 0, action_mask="action_mask")
    mask = env.reset().observation["action_mask"]
    np.testing.assert_array_equal(mask, [[1, 0, 0], [0, 1, 0]])


class Cards(tfa.PyEnvironment):
    """Actions 2 to 4; the mask is in the observation."""

    def __init__(self, mask=(1, 0, 1), dtype=np.int8):
        super().__init__()
        self.mask = np.array(mask, dtype)

    def observation_spec(self):
        mask = array_spec.BoundedArraySpec(self.mask.shape, self.mask.dtype, 0, 1)
        return {"hand": array_spec.ArraySpec((2,), np.float32), "mask": mask}

    def action_spec(self):
        return array_spec.BoundedArraySpec((), np.int32, 2, 4)

    def _observation(self):
        return {"hand": np.zeros(2, np.float32), "mask": self.mask}

    def _reset(self):
        return ts.restart(self._observation())

    def _step(self, action):
        assert self.mask[action - 2]
        return ts.transition(self._observation(), 0.0)


def cards(action_mask="mask", **kwargs):
    return py_environment(2, True, 0, lambda: Cards(**kwargs), action_mask=action_mask)


def test_tf_agents_environments():
    env = cards()
    assert env.observation_spec["mask"].dtype == np.uint8 and env.action_mask == "mask"
    for steps in (env.reset(), env.step(np.int32([0, 2]))):
        np.testing.assert_array_equal(steps.observation["mask"], [[1, 0, 1], [1, 0, 1]])


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"action_mask": "action_mask"}, r"observation \(parts hand, mask\) nor its info"),
        ({"mask": (1, 0)}, r"\[2\]; one integer"),
        ({"dtype": np.float32}, r"float32\[3\]"),
        ({"mask": (0, 0, 0)}, "forbids every action"),
    ],
)
def test_tf_agents_environments_without_one(kwargs, said):
    with pytest.raises(TfdrlError, match=f"Cards: py_environment.action_mask = .*{said}"):
        cards(**kwargs).reset()
