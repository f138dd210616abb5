"""What is registered under a name of one's own, and defined in another module."""

import gin
import pytest

from tfdrl import configuration
from tfdrl.errors import ConfigurationError

_PLUGIN = """
import gin
import gymnasium
from gymnasium import wrappers as w
from gymnasium.wrappers import ClipReward
from . import environments
from my_lab.environments import maze as labyrinth

gin.external_configurable(w.TimeLimit, "Deadline")
gin.external_configurable(gymnasium.wrappers.RescaleAction, name="Scaled")
gin.external_configurable(ClipReward, module="mine")
gin.external_configurable(fn_or_cls=environments.maze, name="Maze2", module="mine")
gin.external_configurable(labyrinth, "Maze3")
gin.external_configurable(len, "length")

@gin.configurable
class FlattenObservation(gymnasium.ObservationWrapper):
    def __init__(self, env, order: str = "C"):
        super().__init__(env)
"""


@pytest.fixture
def plugin(lab):
    (lab / "my_lab" / "plugin.py").write_text(_PLUGIN)
    return "import my_lab.plugin"


def _bound(plugin, *bindings):
    configuration.load([], [plugin, *bindings], tensorflow=False)


@pytest.mark.parametrize(
    ("binding", "selector"),
    [
        ("Deadline.max_episode_steps", "gymnasium.wrappers.common.Deadline"),
        ("Scaled.min_action", "gymnasium.wrappers.transform_action.Scaled"),
        ("ClipReward.min_reward", "mine.ClipReward"),
        ("Maze2.size", "mine.Maze2"),
        ("Maze3.size", "my_lab.environments.Maze3"),
        ("FlattenObservation.order", "my_lab.plugin.FlattenObservation"),
    ],
)
def test_a_registration_has_the_name_that_gin_gives_it(plugin, binding, selector):
    for name in (binding, f"{selector}.{binding.partition('.')[2]}"):
        value = "'F'" if binding.endswith("order") else 3
        _bound(plugin, f"{name} = {value}")
        expected = value if value == 3 else "F"
        assert gin.query_parameter(f"{selector}.{name.rpartition('.')[2]}") == expected


@pytest.mark.parametrize(
    ("binding", "text"),
    [
        ("Deadline.max_steps = 3", "Deadline has no parameter max_steps; did you mean max_episode"),
        ("Deadline.max_episode_steps = 'x'", "must be int, not 'x'"),
        ("ClipReward.least = 0", "ClipReward has no parameter least"),
        ("Maze3.sise = 3", "Maze3 has no parameter sise; did you mean size"),
        ("Deadlin.max_episode_steps = 3", "did you mean Deadline"),
    ],
)
def test_the_parameters_of_what_is_defined_elsewhere_are_checked(plugin, binding, text):
    with pytest.raises(ConfigurationError, match=text):
        configuration.check([], [plugin, binding])


def test_what_python_does_not_define_is_bound_by_its_name(plugin):
    _bound(plugin, "maze.wrappers = [@length]")
    (length,) = gin.get_bindings("maze")["wrappers"]
    assert length("abc") == 3


def test_a_class_of_one_s_own_goes_before_gymnasium_s(plugin):
    _bound(plugin, "maze.wrappers = [@FlattenObservation, @TimeLimit]", "TimeLimit.env = None")
    mine, theirs = gin.get_bindings("maze")["wrappers"]
    assert mine.__module__ == "my_lab.plugin"
    assert theirs.__module__ == "gymnasium.wrappers.common"
