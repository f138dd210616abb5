"""Toys with faults on demand, by the file that TFDRL_TEST_FAULTS names.

The file's text says what the next rewards are: "overflow once" makes one of them 1e38, whose
square is infinite; "overflow" makes all of them so; "nan" makes them NaN; "absurd" makes them 1000,
of which nothing is infinite. "raise once", "raise" and "hang once" are what the next step does.

Each step rests for `rest_secs`, on average: roles that run while a test waits for something else
leave the cores to others.
"""

import os
import pathlib
import time

import gymnasium
import numpy as np

from tfdrl.environments.toys import Catch, Chain

#: Of all environments of a process: on a busy machine each rest takes longer than it should.
_STEPS_BETWEEN_RESTS = 8
_FAULTS = pathlib.Path(os.environ.get("TFDRL_TEST_FAULTS", "/dev/null"))


class _Faulty(gymnasium.Env):
    """Fails as the file says; what it steps is the next class."""

    steps = 0  # of all of them

    def __init__(self, rest_secs=0.0, **more):
        super().__init__(**more)
        self._rest_secs = rest_secs

    def step(self, action):
        self._fail()
        _Faulty.steps += 1
        if _Faulty.steps % _STEPS_BETWEEN_RESTS == 0:
            time.sleep(_STEPS_BETWEEN_RESTS * self._rest_secs)
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, self._poison(reward), terminated, truncated, info

    def _fail(self):
        fault = _FAULTS.read_text().strip() if _FAULTS.exists() else ""
        if fault.endswith("once") and fault != "overflow once":
            _FAULTS.unlink(missing_ok=True)
        if fault.startswith("raise"):
            raise RuntimeError("the emulator has a bad day")
        if fault.startswith("hang"):
            time.sleep(1000)

    def _poison(self, reward):
        fault = _FAULTS.read_text().strip() if _FAULTS.exists() else ""
        if fault == "overflow once":
            _FAULTS.unlink()
        if fault.startswith("overflow"):
            return 1e38
        return {"nan": np.nan, "absurd": 1000.0}.get(fault, reward)


class FaultyChain(_Faulty, Chain):
    """Its corridor has TFDRL_TEST_STATES states, 5 by default."""

    def __init__(self, rest_secs=0.0):
        super().__init__(rest_secs, num_states=int(os.environ.get("TFDRL_TEST_STATES", "5")))


class FaultyCatch(_Faulty, Catch):
    """Catch, which a policy learns within seconds."""


gymnasium.register("FaultyChain-v0", entry_point=FaultyChain, max_episode_steps=50)
gymnasium.register("FaultyCatch-v0", entry_point=FaultyCatch)
