"""The policy of a run acts on single observations as the agent's does on batches."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.policies import tf_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import policy_step
from tf_agents.trajectories import time_step as ts

from tfdrl.api.policy import Policy
from tfdrl.errors import ConfigurationError
from tfdrl.evaluation.policy_export import PolicyExport
from tfdrl.rpc.run_messages import Evaluation


class _Counting(tf_policy.TFPolicy):
    """Its action: the first of the observation, the reward, and how many came since FIRST."""

    def __init__(self, observation_spec):
        super().__init__(
            ts.time_step_spec(observation_spec),
            tensor_spec.BoundedTensorSpec([3], tf.float32, -99.0, 99.0),
            policy_state_spec=tf.TensorSpec([], tf.float32),
        )

    def _variables(self):
        return []

    def _action(self, time_step, policy_state, seed):
        first = tf.nest.flatten(time_step.observation)[0][:, 0]
        count = tf.where(time_step.is_first(), 0.0, policy_state) + 1
        return policy_step.PolicyStep(tf.stack([first, time_step.reward, count], 1), count, ())

    def _distribution(self, time_step, policy_state):
        raise NotImplementedError


def _exported(directory, spec):
    evaluation = Evaluation(1, 1, 1.0, 1.0, 0.0, 1.0, 1.0, 1, 1.0)
    assert PolicyExport(_Counting(spec), directory).offer(evaluation)
    return Policy(directory)


def test_a_policy_remembers_until_it_is_reset(tmp_path):
    policy = _exported(tmp_path / "policy", tf.TensorSpec([2], tf.float32))
    assert [*policy([3, 0])] == [3, 0, 1]
    assert [*policy(np.array([4.0, 0.0]), reward=2.0)] == [4, 2, 2]
    policy.reset()
    assert [*policy((5, 0))] == [5, 0, 1]
    for wrong in (np.zeros(3), {"a": np.zeros(2)}, np.zeros((1, 2))):
        with pytest.raises(ConfigurationError, match=r"takes an observation float32\[2\]: "):
            policy(wrong)


def test_observations_may_be_nests(tmp_path):
    spec = {"a": tf.TensorSpec([2], tf.float32), "b": tf.TensorSpec([], tf.int32)}
    policy = _exported(tmp_path / "policy", spec)
    assert [*policy({"a": [7, 0], "b": 1})] == [7, 0, 1]
    with pytest.raises(ConfigurationError, match="takes an observation"):
        policy({"a": [7, 0]})


def test_without_an_exported_policy_there_is_a_sentence(tmp_path):
    with pytest.raises(ConfigurationError, match="no exported policy"):
        Policy(tmp_path)
