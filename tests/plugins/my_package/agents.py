"""An agent: a softmax policy over values that follow the n-step returns (no target network)."""

import gin
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.policies import greedy_policy, q_policy

from my_package.networks import MyNetwork


@gin.configurable
class MyAgent(tf_agent.TFAgent):
    """Expected SARSA on transitions of n steps."""

    def __init__(
        self,
        time_step_spec,
        action_spec,
        train_step_counter=None,
        learning_rate=0.01,
        gamma=0.99,
    ):
        self._network = MyNetwork(time_step_spec.observation, action_spec)
        self._network.create_variables()
        self._optimizer = tf.keras.optimizers.SGD(learning_rate)
        self._gamma = gamma
        policy = q_policy.QPolicy(time_step_spec, action_spec, self._network)
        super().__init__(
            time_step_spec,
            action_spec,
            policy=greedy_policy.GreedyPolicy(policy),
            collect_policy=policy,  # samples from the softmax of the values
            train_sequence_length=2,
            train_step_counter=train_step_counter,
        )

    def _train(self, experience, weights=None):
        # [B, 2]: index 0 is s_t, the action, the n-step return and its discount; 1 is s_{t+n}.
        observation, action = experience.observation, experience.action[:, 0]
        reward, discount = experience.reward[:, 0], experience.discount[:, 0]
        q_next, _ = self._network(observation[:, 1])
        expected = tf.reduce_sum(tf.nn.softmax(q_next) * q_next, axis=1)
        target = tf.stop_gradient(reward + self._gamma * discount * expected)
        with tf.GradientTape() as tape:
            q, _ = self._network(observation[:, 0])
            loss = tf.reduce_mean((target - tf.gather(q, action, batch_dims=1)) ** 2)
        variables = self._network.trainable_variables
        self._optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        self.train_step_counter.assign_add(1)
        return tf_agent.LossInfo(loss, extra=())
