"""What is converted ahead is what policies convert, and the conversion uses nothing."""

import numpy as np
import preloaded

_GIN_FILES = ("apex/cartpole.gin", "impala/catch_memory.gin")  # feed-forward and recurrent


def count_conversions():
    """Run by the test below in a process of its own: traces policies, prints conversions."""
    import tensorflow as tf
    from tensorflow.python.autograph.core import config
    from tensorflow.python.autograph.pyct import transpiler
    from tensorflow.python.eager import context

    from tfdrl import configuration
    from tfdrl.acting.exploration import collect_policy
    from tfdrl.experiment import Experiment
    from tfdrl.runtime import agent_factory
    from tfdrl.runtime.autograph import convert_ahead, leave_unconverted
    from tfdrl.runtime.compiled import act_function

    for gin_file in _GIN_FILES:
        configuration.load([gin_file], tensorflow=True)
        assert context.context()._context_handle is None
        print("ahead", convert_ahead())
    rules = config.CONVERSION_RULES
    leave_unconverted()
    assert rules == config.CONVERSION_RULES, "a second time they are added again"
    assert context.context()._context_handle is None, "it has started TensorFlow's runtime"

    before = transpiler.PyToPy.transform_function

    def transform(self, function, user_context):
        if not self._cache.has(function, self.get_caching_key(user_context)):
            print("converted", f"{function.__module__}.{function.__qualname__}")
        return before(self, function, user_context)

    transpiler.PyToPy.transform_function = transform
    for gin_file in _GIN_FILES:
        print("gin file", gin_file)
        configuration.load([gin_file], tensorflow=True)
        architecture = Experiment.from_gin().architecture
        with architecture.environment(num_envs=2, training=True, seed=1) as environment:
            agent = agent_factory.make_agent(architecture.agent, environment)
            policy = collect_policy(agent, np.zeros(2), 1)
            act_function(policy)(*environment.reset(), policy.get_initial_state(2))
        assert tf.executing_eagerly()


def test_first_trace_converts_next_to_nothing():
    output = preloaded.python("import test_autograph as t; t.count_conversions()", __file__)
    assert "was not converted ahead" not in output
    ahead = [int(line.split()[1]) for line in output.splitlines() if line.startswith("ahead")]
    assert len(ahead) == 2 and ahead[0] >= 10 and ahead[1] >= 20, output
    for found in output.split("gin file")[1:]:
        converted = [line.split()[1] for line in found.splitlines() if line[:9] == "converted"]
        # Where its own functions are; the rest is a gin file's or an agent's own.
        assert converted, output
        assert not [name for name in converted if name.startswith("tf_agents.utils")], converted
        assert len(converted) <= 10, converted
