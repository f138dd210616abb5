"""Loading: the same gin files in a process with TensorFlow and in one without."""

import copy
import subprocess
import sys

import gin
import pytest

from tfdrl import configuration
from tfdrl.errors import ConfigurationError
from tfdrl.experiment import Experiment

#: Runs in a process of its own: what is imported cannot be unimported.
_PROGRAM = """
import sys
from tfdrl import configuration
from tfdrl.experiment import Experiment
made = configuration.load(["lab.gin"], tensorflow={tensorflow})
print(made.digest)
print(sorted({{"tensorflow", "my_lab.agents"}} & set(sys.modules)))
print(Experiment.from_gin().architecture.agent)
"""


def run(tensorflow):
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(tensorflow=tensorflow)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_one_gin_file_serves_a_process_with_and_one_without_tensorflow(lab):
    digest, imported, agent = run(tensorflow=False)
    assert imported == "[]"
    assert agent == "<@LabAgent, not loaded here>"
    assert run(tensorflow=True) == [
        digest,
        "['my_lab.agents', 'tensorflow']",
        "<class 'my_lab.agents.LabAgent'>",
    ]


def test_without_tensorflow_the_rest_is_bound(lab):
    configuration.load(["lab.gin"], ["maze.size = %BIG"], tensorflow=False)
    experiment = Experiment.from_gin()
    assert experiment.solved_return == 475.0
    assert experiment.architecture.actors == 4
    assert experiment.architecture.environment() == {
        "size": 99,
        "slip": 0.1,
        "name": None,
        "shape": (3, 4),
        "open": False,
    }
    with gin.config_scope("evaluator"):
        assert experiment.architecture.environment()["slip"] == 0


def test_what_is_not_loaded_says_why_when_it_is_used(lab):
    configuration.load(["lab.gin"], tensorflow=False)
    architecture = Experiment.from_gin().architecture
    copied = copy.deepcopy(architecture.optimizer)
    for use in (lambda: architecture.agent(), lambda: copied.learning_rate):
        with pytest.raises(ConfigurationError, match=r"networks\.py:1 imports tensorflow"):
            use()


def test_nested_references_to_what_is_not_loaded_become_placeholders(lab):
    binding = "maze.wrappers = [@LabAgent, {'x': @bandit}, 3]"
    configuration.load(["lab.gin"], [binding], tensorflow=False)
    placeholder, other, number = gin.query_parameter("maze.wrappers")
    assert isinstance(placeholder, configuration.Unavailable)
    assert number == 3
    assert isinstance(other["x"], gin.config.ConfigurableReference)
    gin.config_str()  # must not stumble over them


def test_loading_again_replaces_what_was_bound(lab):
    configuration.load(["lab.gin"], ["maze.slip = 0.5"], tensorflow=False)
    configuration.load(["lab.gin"], ["maze.size = 2"], tensorflow=False)
    made = Experiment.from_gin().architecture.environment()
    assert (made["size"], made["slip"]) == (2, 0.1)


def test_roles_may_register_more_names_afterwards(lab):
    configuration.load(["lab.gin"], tensorflow=False)

    @gin.configurable
    def late_part(x=1):
        return x

    assert late_part() == 1


def test_a_slip_is_found_before_anything_is_imported(lab):
    with pytest.raises(ConfigurationError, match="did you mean actors"):
        configuration.load(["lab.gin"], ["lab_apex.actros = 1"], tensorflow=True)
    assert not any(name.startswith("my_lab") for name in sys.modules)


def test_what_only_gin_can_find_out_is_a_configuration_error(lab):
    (lab / "my_lab" / "more.py").write_text(
        "import gin\nfor name in ('a', 'b'):\n    gin.external_configurable(print, name + 'x')\n"
    )
    (lab / "open.gin").write_text("import my_lab.more\nimport my_lab.environments\n\nmaize.x = 1\n")
    with pytest.raises(ConfigurationError, match=r"open.gin:4: No .*'maize'.*mean maze") as caught:
        configuration.load(["open.gin"], tensorflow=False)
    assert caught.value.__suppress_context__


def test_a_package_that_fails_to_import_is_named_with_its_line(lab):
    (lab / "my_lab" / "broken.py").write_text("x = 1\nx.y\n")
    (lab / "my_lab" / "lacking.py").write_text("import no_such_package_of_mine\n")
    for module, text in (
        ("broken", r"<gin_bindings>:1: importing my_lab.broken failed at .*broken.py:2: Attribut"),
        ("lacking", r"needs no_such_package_of_mine, which is not installed"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            configuration.load([], [f"import my_lab.{module}"], tensorflow=False)


def test_imports_inside_functions_and_for_type_checking_do_not_count_as_loading(lab):
    (lab / "my_lab" / "lazy.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "import gin\n"
        "if TYPE_CHECKING:\n    import tensorflow as tf\n"
        "@gin.configurable\n"
        "def lazy(x=1):\n    import tensorflow\n    return x\n"
    )
    configuration.load([], ["import my_lab.lazy", "lazy.x = 5"], tensorflow=False)
    assert gin.query_parameter("lazy.x") == 5
