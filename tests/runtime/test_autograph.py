"""What is converted ahead is what policies convert, and the conversion uses nothing."""

import numpy as np
import preloaded
import pytest


def count_conversions(gin_file):
    """Run by the tests below in a process of their own: traces policies, prints conversions."""
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

    configuration.load([gin_file], tensorflow=True)
    assert context.context()._context_handle is None
    print("ahead", convert_ahead())
    rules = config.CONVERSION_RULES
    leave_unconverted()
    assert rules == config.CONVERSION_RULES, "a second time they are added again"
    assert context.context()._context_handle is None, "it has started TensorFlow's runtime"

    before = transpiler.PyToPy.transform_function
    architecture = Experiment.from_gin().architecture

    def transform(self, function, user_context):
        if not self._cache.has(function, self.get_caching_key(user_context)):
            print("converted", f"{function.__module__}.{function.__qualname__}")
        return before(self, function, user_context)

    transpiler.PyToPy.transform_function = transform
    with architecture.environment(num_envs=2, training=True, seed=1) as environment:
        agent = agent_factory.make_agent(architecture.agent, environment)
        policy = collect_policy(agent, np.zeros(2), 1)
        act_function(policy)(*environment.reset(), policy.get_initial_state(2))
    assert tf.executing_eagerly()


@pytest.mark.parametrize(
    ("gin_file", "least"), [("apex/cartpole.gin", 10), ("impala/catch_memory.gin", 20)]
)
def test_first_trace_converts_next_to_nothing(gin_file, least):
    script = f"import test_autograph as t; t.count_conversions({gin_file!r})"
    output = preloaded.python(script, __file__)
    lines = output.splitlines()
    assert int(next(line.split()[1] for line in lines if line.startswith("ahead"))) >= least, output
    assert "was not converted ahead" not in output
    converted = [line.split()[1] for line in lines if line.startswith("converted ")]
    # Where its own functions are; the rest is a gin file's or an agent's own.
    assert converted, output
    assert not [name for name in converted if name.startswith("tf_agents.utils")], converted
    assert len(converted) <= 10, converted
