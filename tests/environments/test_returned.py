"""What environments return is compared with their spaces, wherever they are stepped."""

import functools
import threading

import environments_page
import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces
from odd_environments import CASES
from tf_agents.environments import py_environment
from tf_agents.policies import random_tf_policy
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from tfdrl import environments_tf
from tfdrl.acting import loop
from tfdrl.environments import returned
from tfdrl.environments.batched import BatchedEnvironment, first_time_steps
from tfdrl.environments.guarded import GuardedEnvironment, RebuiltError
from tfdrl.environments.registry import gym_environment
from tfdrl.errors import EXIT_CONFIGURATION, EXIT_FAILED
from tfdrl.evaluation.episodes import play
from tfdrl.experience.frame_stacks import with_single_frames
from tfdrl.learning.one_process import TrainingEnvironments
from tfdrl.topology import Context
from tfdrl.types import ArraySpec, Episodes, map_specs

_ALL = [(group, i) for group, cases in CASES.items() for i in range(len(cases))]


def odd(group, number=0, num_envs=2, vectorization="sync", **kwargs):
    return gym_environment(
        num_envs=num_envs,
        training=True,
        seed=1,
        id="tests/Odd-v0",
        kwargs={"group": group, "number": number},
        vectorization=vectorization,
        **kwargs,
    )


def assert_taken(case, environment, steps):
    """The first environment shows what the case says."""
    reward, terminated = case.taken.get("reward", 1.5), case.taken.get("terminated", False)
    assert (steps.reward[0], steps.discount[0]) == (reward, 0.0 if terminated else 1.0)
    if "observation" in case.taken:
        map_specs(
            lambda spec, leaf, seen: np.testing.assert_array_equal(leaf[0], np.array(seen)),
            *(environment.observation_spec, steps.observation, case.taken["observation"]),
        )


@pytest.mark.parametrize(
    ("group", "number"), _ALL, ids=[f"{group}: {CASES[group][i].what}" for group, i in _ALL]
)
def test_what_does_not_fit_its_space_is_refused_by_a_sentence_and_the_rest_is_taken(group, number):
    case = CASES[group][number]
    with odd(group, number) as environment:
        if not case.refused:
            environment.reset()
            assert_taken(case, environment, environment.step(np.full(2, number, np.int32)))
            return
        with pytest.raises((returned.MisfitError, returned.NotFiniteError)) as error:
            environment.reset()
            environment.step(np.full(2, number, np.int32))
    text = str(error.value)
    assert case.refused in text and text.startswith("the environment tests/Odd-v0 returned ")
    is_number = "finite numbers of float32" in text
    assert error.value.exit_code == (EXIT_FAILED if is_number else EXIT_CONFIGURATION)


def test_environments_in_processes_of_their_own_agree():
    """What vectorisation would make different: shapes of the same size, arrays of one number."""
    for group in ("reward", "the rest"):
        taken = [i for i, case in enumerate(CASES[group]) if not case.refused]
        with odd(group, num_envs=1, vectorization="async") as environment:
            for number in taken:
                environment.reset()
                steps = environment.step(np.array([number], np.int32))
                assert_taken(CASES[group][number], environment, steps)


@pytest.mark.parametrize("what", ["another shape", "floats where it has integers"])
def test_environments_in_processes_of_their_own_do_not_cast(what):
    number = [case.what for case in CASES["observation"]].index(what)
    with odd("observation", number, vectorization="async") as environment:
        environment.reset()
        with pytest.raises(returned.MisfitError, match="the environment tests/Odd-v0 returned"):
            environment.step(np.full(2, number, np.int32))


class InfoOfAnyShape(gymnasium.Env):
    """Its info holds an array of another shape in each environment."""

    observation_space, action_space = spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(2)
    made = 0

    def __init__(self):
        InfoOfAnyShape.made += 1
        self._shape = InfoOfAnyShape.made

    def reset(self, *, seed=None, options=None):
        return np.zeros(1, np.float32), {"others": np.zeros(self._shape)}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {"others": np.zeros(self._shape)}


def test_an_info_that_nobody_reads_may_have_any_shape():
    gymnasium.register("tests/InfoOfAnyShape-v0", entry_point=InfoOfAnyShape)
    with gym_environment(
        num_envs=2, training=True, seed=1, id="tests/InfoOfAnyShape-v0"
    ) as environment:
        environment.reset()
        environment.step(np.zeros(2, np.int32))


def test_infos_that_somebody_reads_are_kept():
    env = returned.checked_env(InfoOfAnyShape(), infos=("others",))
    assert list(env.reset()[1]) == list(env.step(0)[4]) == ["others"]


def test_clipping_does_not_hide_an_infinite_reward():
    number = [case.what for case in CASES["reward"]].index("an infinite number")
    with odd("reward", number, clip_reward=1.0) as environment:
        environment.reset()
        with pytest.raises(returned.NotFiniteError, match="inf in the reward"):
            environment.step(np.full(2, number, np.int32))


class OwnVectors(gymnasium.vector.VectorEnv):
    """A vector class of the environment's own; returns `observation` at each step."""

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}
    single_observation_space, single_action_space = spaces.Box(0, 1, (2,)), spaces.Discrete(2)

    def __init__(self, num_envs, observation, reward, **unused):
        self.num_envs, self._observation, self._reward = num_envs, observation, reward

    def reset(self, *, seed=None, options=None):
        return np.zeros((self.num_envs, 2), np.float32), {}

    def step(self, action):
        never = np.zeros(self.num_envs, bool)
        return self._observation, self._reward, never, never, {}


@pytest.mark.parametrize(
    ("observation", "reward", "words"),
    [
        (np.zeros((3, 2)), np.zeros(3), ""),
        (np.zeros((3, 3), np.float32), np.zeros(3), "float32[3, 3]; expected float32[3, 2]"),
        (np.zeros((3, 2), np.float32), np.zeros((3, 1)), "the reward float64[3, 1]"),
        (np.full((3, 2), np.nan, np.float32), np.zeros(3), "nan in the observation"),
        (np.zeros((3, 2), np.float32), np.full(3, np.inf), "inf in the reward"),
    ],
)
def test_vector_classes_are_compared_too(observation, reward, words):
    gymnasium.register("tests/OwnVectors-v0", vector_entry_point=OwnVectors)
    kwargs = {"observation": observation, "reward": reward}
    with gym_environment(
        num_envs=3, training=True, seed=1, id="tests/OwnVectors-v0", kwargs=kwargs
    ) as environment:
        environment.reset()
        if not words:
            assert environment.step(np.zeros(3, np.int32)).observation.dtype == np.float32
            return
        with pytest.raises((returned.MisfitError, returned.NotFiniteError)) as error:
            environment.step(np.zeros(3, np.int32))
        assert words in str(error.value)


class Agents(py_environment.PyEnvironment):
    """A TF-Agents environment with the time steps that it is given."""

    def __init__(self, second):
        super().__init__()
        self._second = second

    def observation_spec(self):
        return {"image": array_spec.BoundedArraySpec((2,), np.uint8, 0, 255)}

    def action_spec(self):
        return array_spec.BoundedArraySpec((), np.int32, 0, 1)

    def _reset(self):
        return ts.restart({"image": np.zeros(2, np.uint8)})

    def _step(self, action):
        return self._second


_IMAGE = {"image": np.zeros(2, np.uint8)}


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (ts.transition(_IMAGE, np.array([1.5], np.float32)), ""),
        (ts.transition({"image": np.ones(2)}, 1.0), "observation/image float64[2] = [1.0, 1.0]"),
        (ts.transition({"image": np.zeros(3, np.uint8)}, 1.0), "uint8[3] = [0, 0, 0]; expected"),
        (ts.transition({"picture": np.zeros(2)}, 1.0), "with the keys ['picture']"),
        (ts.TimeStep(np.int32(1), np.nan, np.float32(1), _IMAGE), "nan in the reward"),
        ((_IMAGE, 1.0), "expected a tf_agents TimeStep"),
    ],
)
def test_py_environments_are_compared_too(second, words):
    with environments_tf.UnbatchedPyEnvironments([Agents(second)]) as environment:
        environment.reset()
        if not words:
            assert environment.step(np.zeros(1, np.int32)).reward == [1.5]
            return
        with pytest.raises((returned.MisfitError, returned.NotFiniteError)) as error:
            environment.step(np.zeros(1, np.int32))
        assert words in str(error.value)
        assert str(error.value).startswith("the environment Agents returned")


class Users(BatchedEnvironment):
    """A BatchedEnvironment of a user's own, whose second observation is NaN."""

    observation_spec = ArraySpec((1,), np.dtype(np.float32), None, None, "observation")
    action_spec = ArraySpec((), np.dtype(np.int32), 0, 1)
    num_envs = 2

    def reset(self):
        return first_time_steps(np.zeros((2, 1), np.float32), 2)

    def step(self, action):
        steps = first_time_steps(np.full((2, 1), np.nan, np.float32), 2)
        return steps._replace(step_type=np.ones(2, np.int32))

    def take_episodes(self):
        return Episodes(np.zeros(0, np.float32), np.zeros(0, np.int64))

    def close(self):
        pass


class Growing(Users):
    """Its frames get wider at the second step."""

    frame_stack = 4
    observation_spec = ArraySpec((3, 3, 4), np.dtype(np.uint8), 0, 255, "observation")

    def reset(self):
        return first_time_steps(np.zeros((2, 3, 3, 4), np.uint8), 2)

    def step(self, action):
        steps = first_time_steps(np.zeros((2, 3, 5, 4), np.uint8), 2)
        return steps._replace(step_type=np.ones(2, np.int32))


@pytest.mark.parametrize(
    ("make", "error", "guarded_error", "words"),
    [
        (Users, returned.NotFiniteError, RebuiltError, "Users returned nan in the observation"),
        (
            *(Growing, returned.MisfitError, returned.MisfitError),
            r"Growing returned the observation uint8\[2, 3, 5, 4\]; expected uint8\[2, 3, 3, 4\]",
        ),
    ],
)
def test_who_steps_an_environment_of_a_user_s_own_compares_it(
    tmp_path, monkeypatch, make, error, guarded_error, words
):
    environment, words = make(), f"the environment {words}"
    specs = environments_tf.time_step_spec(environment.observation_spec)
    actions = environments_tf.to_tf_specs(environment.action_spec)
    policy = random_tf_policy.RandomTFPolicy(specs, actions)
    act = functools.partial(_random, policy)
    monkeypatch.setattr(loop, "act_function", lambda policy: act)  # compiling it takes seconds
    context = Context("actor", 0, 1, tmp_path, stop=threading.Event())
    with pytest.raises(error, match=words):
        steps = loop.ActorLoop(environment, policy, None, context).steps()
        next(with_single_frames(environment, steps))
    with pytest.raises(error, match=words):
        play(environment, act, policy.get_initial_state, 2)
    with pytest.raises(error, match=words):
        TrainingEnvironments(lambda **_: make(), 2, seed=0).step(np.zeros(2, np.int32))
    guarded = GuardedEnvironment(make, rebuilds=1, step_timeout_secs=60.0)
    with guarded, pytest.raises(guarded_error, match=words):
        guarded.step(np.zeros(2, np.int32))


def _random(policy, *steps_and_state):
    steps = ts.TimeStep(*(tf.nest.map_structure(tf.constant, part) for part in steps_and_state[:4]))
    return policy.action(steps, steps_and_state[4])


def test_the_page_of_the_docs_is_up_to_date():
    assert environments_page.PAGE.read_text() == environments_page.text()
