"""What people's environments return, and what becomes of it: cases of tests and of the docs."""

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces

_BOX = spaces.Box(0.0, 1.0, (2,), np.float32)
_IMAGE = spaces.Box(0, 255, (2,), np.uint8)
_BITS = spaces.MultiBinary(2)
_NUMBER = spaces.Discrete(3, start=1)
_NUMBERS = spaces.MultiDiscrete([2, 3])
_DICT = spaces.Dict(a=_BOX, b=_NUMBER)
_TUPLE = spaces.Tuple((_BOX, _NUMBER))
_FIT = "expected float32[2] of Box(0.0, 1.0, (2,), float32)"
_ONE = "expected one finite number"


class Case(NamedTuple):
    """One way to return, beside `observation, 1.5, False, False, {}` that fit `space`.

    Attributes:
      what: in the words of the docs.
      returned: what differs, by name; "step" and "reset" are all of it.
      space: of the observation.
      taken: what comes out in place of it, by name.
      refused: words of the refusal; "" where it is taken.
    """

    what: str
    returned: dict[str, Any] = {}
    space: spaces.Space = _BOX
    taken: dict[str, Any] = {}
    refused: str = ""


def _seen(what, value, seen, space=_BOX):
    return Case(what, {"observation": value}, space, taken={"observation": seen})


def _unfit(what, value, refused, space=_BOX):
    return Case(what, {"observation": value}, space, refused=refused)


def _other(what, refused="", taken=None, **returned):
    return Case(what, returned, taken=taken or {}, refused=refused)


_OBSERVATIONS = (
    _seen("an array of its space", np.float32([0.5, 1]), [0.5, 1]),
    _seen("a list of numbers", [0.5, 1], [0.5, 1]),
    _seen("float64 where it has float32", np.array([0.5, 1]), [0.5, 1]),
    _seen("integers where it has floats", np.array([0, 1]), [0, 1]),
    _seen("numbers outside its bounds", np.float32([-7, 7]), [-7, 7]),
    _unfit("another shape", np.ones((1, 2), np.float32), f"float32[1, 2] = [[1.0, 1.0]]; {_FIT}"),
    _unfit("a ragged list", [[1.0], [1.0, 2.0]], f"[[1.0], [1.0, 2.0]] (list); {_FIT}"),
    _unfit("nothing", None, f"the observation None (NoneType); {_FIT}"),
    _unfit("words", "up", f"the observation 'up' (str); {_FIT}"),
    _unfit("NaN", np.float32([1, np.nan]), "nan in the observation at [1] of environment 0 of 2"),
    _unfit("an infinite number", np.float32([-np.inf, 1]), "-inf in the observation at [0]"),
    _unfit("a number that float32 lacks", np.array([1e300, 1]), "inf in the observation at [0]"),
    _seen("bytes as int64", np.array([7, 255]), [7, 255], _IMAGE),
    _unfit("floats where it has integers", np.array([0.5, 1]), "expected uint8[2] of", _IMAGE),
    _unfit("integers that its type lacks", np.array([7, 256]), "int64[2] = [7, 256]; exp", _IMAGE),
    _seen("bools where it has bits", np.array([True, False]), [1, 0], _BITS),
    _seen("an int where it has a number", 3, 3, _NUMBER),
    _unfit("a number that is not among them", 4, "4 (int); expected a value of Discr", _NUMBER),
    _unfit("an array of one number", np.array([1]), "int64[1] = [1]; expected int64[]", _NUMBER),
    _seen("a list of numbers", [1, 2], [1, 2], _NUMBERS),
    _unfit("a number that is not among them", np.array([1, 3]), "expected a value of", _NUMBERS),
    _seen("more keys", {"c": 5, "b": 1, "a": [0, 1]}, {"a": [0, 1], "b": 1}, _DICT),
    _unfit("a key less", {"a": [0, 1]}, "with the keys ['a']; expected a dict with", _DICT),
    _unfit("another form in a part", {"a": 1, "b": 1}, "the observation/a 1 (int); exp", _DICT),
    _unfit("no dict", [0, 1], "expected a dict with the keys ['a', 'b']", _DICT),
    _seen("a list", [[0, 1], 1], ([0, 1], 1), _TUPLE),
    _unfit("a part less", ([0, 1],), "expected a tuple of 2", _TUPLE),
)

_REWARDS = (
    _other("an integer", taken={"reward": 2.0}, reward=np.int64(2)),
    _other("a bool", taken={"reward": 1.0}, reward=True),
    _other("an array of one number", taken={"reward": 1.5}, reward=np.array([[1.5]])),
    _other("nothing", f"the reward None (NoneType) from step(); {_ONE}", reward=None),
    _other("several numbers", f"the reward float64[2] = [1.0, 0.5] from step(); {_ONE}",
           reward=np.array([1, 0.5])),
    _other("words", f"the reward 'good' (str) from step(); {_ONE}", reward="good"),
    _other("NaN", "returned nan in the reward of environment 0 of 2", reward=float("nan")),
    _other("an infinite number", "returned inf in the reward", reward=np.inf),
    _other("a number that float32 lacks", "returned 1e+39 in the reward", reward=1e39),
)  # fmt: skip

_REST = (
    _other("0 or 1", taken={"terminated": True}, terminated=1),
    _other("an array of one bool", taken={"terminated": True}, terminated=np.array([True])),
    _other("both are true: it has terminated", taken={"terminated": True}, terminated=True,
           truncated=True),
    _other("nothing", "truncated = None (NoneType) from step(); expected True or False",
           truncated=None),
    _other("another number", "terminated = 2 (int) from step(); exp", terminated=2),
    _other("a dict of anything: it is not read", info={"x": object(), "a": np.zeros(3)}),
    _other("no dict", "the info 7 (int) from step(); expected a dict", info=7),
    _other("four values", "returned 4 values (as before Gym 0.26) from step(); expected 5 values",
           step=(np.ones(2, np.float32), 1.0, False, {})),
    _other("something else", "returned None (NoneType) from step(); expected 5", step=None),
    _other("no info at reset", "float32[2] = [0.0, 0.0] from reset(); expected 2 values",
           reset=np.zeros(2, np.float32)),
    _other("no dict as info at reset", "the info 7 (int) from reset(); expected a dict",
           reset=(np.zeros(2, np.float32), 7)),
    _other("NaN at reset", "nan in the observation at [0]",
           reset=(np.full(2, np.nan, np.float32), {})),
)  # fmt: skip

CASES = {"observation": _OBSERVATIONS, "reward": _REWARDS, "the rest": _REST}


class Odd(gymnasium.Env):
    """The action k returns what case k of a group says; a case of "reset" resets so, too."""

    action_space = spaces.Discrete(64)

    def __init__(self, group: str, number: int = 0):
        self._cases = CASES[group]
        self._case = self._cases[number]
        self.observation_space = self._case.space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        fitting = np.zeros(2, np.float32) if self._case.space is _BOX else self._sample()
        return self._case.returned.get("reset", (fitting, {}))

    def step(self, action):
        returned = self._cases[int(action)].returned
        if "step" in returned:
            return returned["step"]
        rest = {"reward": 1.5, "terminated": False, "truncated": False, "info": {}, **returned}
        observation = rest.pop("observation", None) if "observation" in rest else self._sample()
        return observation, rest["reward"], rest["terminated"], rest["truncated"], rest["info"]

    def _sample(self):
        return self.observation_space.sample()


gymnasium.register("tests/Odd-v0", entry_point="odd_environments:Odd", max_episode_steps=100)
