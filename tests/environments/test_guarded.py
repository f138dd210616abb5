"""Environments that raise or hang are rebuilt, some times."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tfdrl.environments.batched import first_time_steps
from tfdrl.environments.guarded import GivenUpError, GuardedEnvironment, RebuiltError
from tfdrl.environments.returned import MisfitError
from tfdrl.types import ArraySpec


class Fake:
    """Counts steps; does at a step what its script says."""

    made = 0
    num_envs, name, is_checked = 2, "Fake", False
    observation_spec = ArraySpec((1,), np.dtype(np.float64))

    def __init__(self, script):
        Fake.made += 1
        self._script, self.steps, self.is_closed = script, 0, False

    def reset(self):
        return first_time_steps(np.zeros((2, 1)), 2)

    def step(self, action):
        self.steps += 1
        reward = self._script(self.steps)
        steps = first_time_steps(np.full((2, 1), float(self.steps)), 2)
        if reward is None:
            return steps
        return steps._replace(reward=np.array([np.zeros_like(reward), reward]))

    def close(self):
        self.is_closed = True


def guard(script, rebuilds=2, limit_secs=60.0):
    return GuardedEnvironment(lambda: Fake(script), rebuilds=rebuilds, step_timeout_secs=limit_secs)


def fail_at(number):
    def script(step):
        if step == number:
            raise RuntimeError("a bad day")

    return script


def test_environment_that_raises_is_replaced_and_at_last_given_up():
    with guard(fail_at(3)) as environment:
        for _ in range(2):
            old = environment.environment
            assert environment.reset().observation[0] == 0
            assert [environment.step(0).observation[0] for _ in range(2)] == [1, 2]
            with pytest.raises(RebuiltError, match="RuntimeError: a bad day"):
                environment.step(0)
            assert old.is_closed and environment.environment is not old
        environment.step(0)
        environment.step(0)
        with pytest.raises(GivenUpError, match="rebuilt 2 times: RuntimeError: a bad day"):
            environment.step(0)


@pytest.mark.parametrize("reward", [np.nan, np.inf])
def test_reward_that_is_no_number_is_a_fault_of_the_environment(reward):
    with guard(lambda step: reward if step == 2 else 1.0) as environment:
        environment.step(0)
        with pytest.raises(RebuiltError, match=f"Fake returned {reward} in the reward"):
            environment.step(0)


def test_what_does_not_fit_its_space_is_not_tried_again():
    with guard(lambda step: [1.0, 2.0] if step == 2 else 1.0) as environment:
        environment.step(0)
        made = Fake.made
        with pytest.raises(MisfitError, match="Fake returned the reward float64"):
            environment.step(0)
        assert Fake.made == made


def test_a_thousand_good_steps_are_forgiveness():
    with guard(fail_at(1001), rebuilds=1) as environment:
        for _ in range(5):
            for _ in range(1000):
                environment.step(0)
            with pytest.raises(RebuiltError):
                environment.step(0)


def test_step_that_hangs_in_python_is_broken_off():
    def script(step):
        if step == 2:
            time.sleep(60.0)

    others = set(threading.enumerate())  # those of earlier tests
    with guard(script, limit_secs=0.3) as environment:
        environment.step(0)
        start_secs = time.monotonic()
        with pytest.raises(RebuiltError, match=r"TimeoutError: a step took longer than 0\.3 s"):
            environment.step(0)
        assert 0.25 < time.monotonic() - start_secs < 3.0
        assert environment.step(0).observation[0] == 1
        time.sleep(0.6)  # between steps there is no limit
        assert len(set(threading.enumerate()) - others) < 8
        assert np.isfinite(environment.environment.steps)


_STUCK = """
import threading
from tfdrl.environments import guarded
guarded._GRACE_SECS = 0.5
class Stuck:
    def step(self, action):
        lock = threading.Lock()
        while True:  # as code would that is not Python's: it takes no notice of exceptions
            try:
                lock.acquire()
                lock.acquire()
            except BaseException:
                pass
guarded.GuardedEnvironment(Stuck, rebuilds=3, step_timeout_secs=0.3).step(0)
"""


def test_step_that_cannot_be_broken_off_ends_the_process():
    done = subprocess.run(
        [sys.executable, "-c", _STUCK], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "a step of the environment takes longer than 0.3 s and cannot be" in done.stderr
