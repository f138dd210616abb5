"""The head of a gin file, and what it refuses."""

import dataclasses
import pickle

import gin
import pytest

from tfdrl import configuration, topology
from tfdrl.errors import ConfigurationError
from tfdrl.experiment import Experiment


class Architecture:
    """An architecture of no roles."""

    def program(self):
        return topology.Program("none", ())


@pytest.fixture(autouse=True)
def _no_bindings():
    yield
    gin.clear_config()


def test_it_stays_an_ordinary_frozen_dataclass_under_gin():
    experiment = Experiment(Architecture(), seed=3)
    assert isinstance(experiment, Experiment)
    changed = dataclasses.replace(experiment, max_frames=10)
    assert (changed.seed, changed.max_frames, experiment.max_frames) == (3, 10, None)
    assert type(changed) is Experiment
    assert dataclasses.asdict(changed)["seed"] == 3
    assert pickle.loads(pickle.dumps(Experiment(Architecture()))).seed == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        experiment.seed = 4


def test_bindings_reach_it_and_arguments_win():
    configuration.load([], ["experiment.seed = 7", "experiment.max_minutes = 5"], tensorflow=False)
    assert Experiment(Architecture()).seed == 7
    assert Experiment(Architecture(), seed=8).seed == 8
    assert Experiment(Architecture()).max_minutes == 5


def test_without_an_architecture_the_error_says_what_to_write():
    configuration.load([], ["experiment.seed = 7"], tensorflow=False)
    with pytest.raises(ConfigurationError, match=r"write experiment.architecture = @apex\(\)"):
        Experiment.from_gin()


def test_an_architecture_named_but_not_made_is_explained(lab):
    binding = "experiment.architecture = @lab_apex"
    configuration.load(["lab.gin"], [binding], tensorflow=False)
    with pytest.raises(ConfigurationError, match=r"@lab_apex only names it; write @lab_apex\(\)"):
        Experiment.from_gin()


def test_what_the_architecture_lacks_is_a_configuration_error(lab):
    (lab / "short.gin").write_text(
        "import my_lab.arch\nexperiment.architecture = @lab_apex()\nlab_apex.agent = 1\n"
    )
    configuration.load(["short.gin"], tensorflow=False)
    with pytest.raises(ConfigurationError, match=r"`lab_apex` not provided.*\['environment'\]"):
        Experiment.from_gin()


def test_faults_of_the_code_are_not_called_configuration(lab):
    configuration.load(["lab.gin"], ["lab_apex.environment = @maze()"], tensorflow=False)
    import my_lab.environments

    my_lab.environments.dict = 3  # the function now fails with a TypeError of its own
    with pytest.raises(TypeError, match="not callable"):
        Experiment.from_gin()


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("seed", -1, "from 0 to 2,000,000,000"),
        ("seed", 1.5, "a whole number"),
        ("seed", True, "a whole number"),
        ("max_frames", 0, "above 0"),
        ("max_learner_steps", -5, "above 0"),
        ("evaluation_episodes", None, "above 0"),
        ("evaluation_episodes", 0, "above 0"),
        ("max_minutes", 0, "above 0"),
        ("max_minutes", float("inf"), "above 0"),
        ("solved_return", float("nan"), "finite"),
        ("solved_return", "475", "finite"),
    ],
)
def test_values_out_of_range_are_refused(name, value, wanted):
    with pytest.raises(ConfigurationError, match=wanted) as caught:
        Experiment(Architecture(), **{name: value})
    assert f"experiment.{name}" in str(caught.value)
    assert "In call to" not in str(caught.value).splitlines()[0]


def test_something_without_a_program_is_refused():
    with pytest.raises(ConfigurationError, match="'apex', which has no program"):
        Experiment("apex")
