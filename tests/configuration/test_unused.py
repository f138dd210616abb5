"""What is typed for an optimizer that the gin files do not use is refused: it would do nothing."""

import pytest

from tfdrl import configuration
from tfdrl.errors import ConfigurationError

_FILE = ["impala/cartpole.gin"]


def test_the_optimizer_of_another_file():
    with pytest.raises(
        ConfigurationError,
        match=r"<gin_bindings>:1: adam.learning_rate would have no effect, for nothing refers to "
        r"@adam; there are @linear_schedule, @rmsprop",
    ):
        configuration.check(_FILE, ["adam.learning_rate = 1e-3"])


def test_the_one_that_was_replaced():
    other = "VTraceAgent.optimizer = @adam()"
    with pytest.raises(ConfigurationError, match="refers to @rmsprop; there are @adam"):
        configuration.check(_FILE, [other, "rmsprop.decay = 0.9"])


@pytest.mark.parametrize(
    "bindings",
    [
        ["rmsprop.decay = 0.9"],
        ["linear_schedule.initial = 1e-3"],
        ["VTraceAgent.optimizer = @adam()", "adam.learning_rate = 1e-3"],
        ["opt = @adam()", "VTraceAgent.optimizer = %opt", "adam.learning_rate = 1e-3"],
        ["VTraceAgent.optimizer = @fast/adam()", "fast/adam.learning_rate = 1e-3"],
    ],
)
def test_what_is_used(bindings):
    configuration.check(_FILE, bindings)


def test_files_may_have_settings_of_several(tmp_path):
    file = tmp_path / "mine.gin"
    file.write_text("include 'impala/cartpole.gin'\nadam.learning_rate = 1e-3\n")
    configuration.check([str(file)], [])
