"""What has no effect is refused where it is typed, and said where a file has it."""

import ast
import pathlib

import pytest

from tfdrl import configuration
from tfdrl.configuration import source, unused
from tfdrl.errors import ConfigurationError

_FILE = ["impala/cartpole.gin"]
#: By what it is: the file, what is typed, and what is said of the last.
_WITHOUT = {
    "the optimizer of another file": (
        "impala/cartpole.gin",
        ["adam.learning_rate = 1e-3"],
        "1: adam.learning_rate has no effect, for nothing refers to @adam; there are "
        "@linear_schedule, @rmsprop",
    ),
    "the one that was replaced": (
        "impala/cartpole.gin",
        ["VTraceAgent.optimizer = @adam()", "rmsprop.decay = 0.9"],
        "2: rmsprop.decay has no effect, for nothing refers to @rmsprop; there are @adam",
    ),
    "another network": (
        "impala/cartpole.gin",
        ["MlpQNetwork.layer_units = (8,)"],
        "refers to @MlpQNetwork; there are @MlpActorCriticNetwork",
    ),
    "another architecture": (
        "impala/cartpole.gin",
        ["apex.actors = 2"],
        "refers to @apex; there are @impala",
    ),
    "another environment": (
        "impala/cartpole.gin",
        ["atari_environment.game = 'pong'"],
        "refers to @atari_environment; there are @gym_environment",
    ),
    "a wrapper of nobody's": ("impala/cartpole.gin", ["ClipReward.max_reward = 1.0"], "@ClipRew"),
    "a table without replay": ("impala/cartpole.gin", ["replay_table.min_size = 9"], "@replay_tab"),
    "exploration that was replaced": (
        "apex_dpg/pendulum.gin",
        ["epsilon_ladder.base = 0.3"],
        "refers to @epsilon_ladder; there are @noise_ladder",
    ),
    "a scope of nobody's": (
        "impala/cartpole.gin",
        ["fast/rmsprop.decay = 0.9"],
        "fast/rmsprop.decay has no effect, for nothing refers to @fast/rmsprop; there are "
        "@linear_schedule, @rmsprop",
    ),
    "what each scope has of its own": (
        "apex_dpg/pendulum.gin",
        ["a/adam.beta_1 = 0.8", "NStepDpgAgent.actor_optimizer = @a/adam()"]
        + ["NStepDpgAgent.critic_optimizer = @a/adam()", "adam.beta_1 = 0.7"],
        "4: adam.beta_1 has no effect, for a/adam.beta_1 is set",
    ),
}


@pytest.mark.parametrize("what", _WITHOUT)
def test_what_is_typed_without_effect_is_refused(what):
    file, typed, said = _WITHOUT[what]
    with pytest.raises(ConfigurationError) as error:
        configuration.check([file], typed)
    assert said in str(error.value)
    configuration.check([file], typed[:-1])


@pytest.mark.parametrize(
    ("file", "bindings"),
    [
        ("impala/cartpole.gin", ["rmsprop.decay = 0.9"]),
        ("impala/cartpole.gin", ["linear_schedule.initial = 1e-3"]),
        ("impala/cartpole.gin", ["VTraceAgent.optimizer = @adam()", "adam.learning_rate = 1e-3"]),
        (
            "impala/cartpole.gin",
            ["opt = @adam()", "VTraceAgent.optimizer = %opt", "adam.learning_rate = 1e-3"],
        ),
        (
            "impala/cartpole.gin",
            ["VTraceAgent.optimizer = @fast/adam()", "fast/adam.learning_rate = 1e-3"],
        ),
        ("impala/cartpole.gin", ["strategy.kind = 'mirrored'"]),  # impala.strategy is None
        ("impala/cartpole.gin", ["normalization.clip = 5.0"]),
        ("apex/cartpole.gin", ["epsilon_ladder.base = 0.3"]),
        ("apex/cartpole.gin", ["apex.table = None", "replay_table.min_size = 9"]),
        ("a3c/cartpole.gin", ["VTraceAgent.entropy_cost = 0.1"]),  # its agent's base
        (  # a macro's reference is called in the scope of whoever refers to the macro
            "impala/cartpole.gin",
            ["impala.agent = @fast/VTraceAgent", "net = @MlpActorCriticNetwork"]
            + ["fast/VTraceAgent.network = %net", "fast/MlpActorCriticNetwork.layer_units = (8,)"],
        ),
    ],
)
def test_what_is_used(file, bindings):
    configuration.check([file], bindings)


def test_every_shipped_file_uses_what_it_says():
    assert not [r for name in configuration.gin_programs() for r in _remarks(name)]


def _remarks(name):
    return configuration.check([name]).remarks


def test_files_may_have_settings_of_several_and_the_one_that_was_given_is_told(tmp_path):
    included = tmp_path / "mine.gin"
    included.write_text("include 'impala/cartpole.gin'\nadam.learning_rate = 1e-3\n")
    given = tmp_path / "given.gin"
    given.write_text(f"include '{included}'\nrmsprop.decay = 0.9\n")
    assert not _remarks(str(given))
    assert _remarks(str(included)) == (
        f"{included}:2: adam.learning_rate has no effect, for nothing refers to @adam; there are "
        "@linear_schedule, @rmsprop",
    )


def test_a_package_may_call_what_it_names(lab):
    typed = ["adam.learning_rate = 1e-3"]
    with pytest.raises(ConfigurationError, match="nothing refers to @adam"):
        configuration.check(["lab.gin"], typed)
    (lab / "my_lab" / "calls.py").write_text("from tfdrl.agents.optimizers import adam\n")
    configuration.check(["lab.gin"], typed)


def test_a_package_may_call_what_it_registers(lab):
    typed = ["LabAgent.network = @MlpQNetwork", "MlpQNetwork.layer_units = (8,)"]
    configuration.check(["lab.gin"], typed)
    not_called_by_a_reference = ["lab_apex.agent = @maze", "lab_apex.optimizer = None"]
    configuration.check(["lab.gin"], [*typed, *not_called_by_a_reference])


@pytest.mark.parametrize(
    ("base", "typed"),
    [
        ("tfdrl.architectures.apex import Apex", "replay_table.min_size = 9"),
        ("tfdrl.agents.n_step_actor_critic import NStepActorCriticAgent", "VTraceAgent.gamma = 1"),
    ],
)
def test_a_package_inherits_what_its_base_calls(base, typed, lab):
    (lab / "my_lab" / "calls.py").write_text(f"from {base}\n")
    configuration.check(["lab.gin"], [typed])


def test_nothing_is_refused_where_nobody_can_read_what_a_package_calls(lab):
    lines = ["import gin", "gin.external_configurable(dict, name='my_' + 'dict')"]
    (lab / "my_lab" / "computed.py").write_text("\n".join(lines))
    configuration.check(["lab.gin"], ["my_dict.a = 3", "adam.learning_rate = 1e-3"])


def test_what_is_called_without_a_reference_is_listed():
    """Of tfdrl's own configurables, those that another module imports to call or to inherit."""
    ours = {item.selector for item in configuration.catalogue().configurables}
    found = set()
    for module, path in source.package_modules("tfdrl"):
        if not module.startswith("tfdrl.benchmarks."):
            imported = source.imported_names(_flat(path), module, path.name == "__init__.py")
            found |= ours & set(imported.values())
            found |= {name for name in ours if _has_attribute(path, imported, name)}
    listed = {*unused.ALWAYS, *unused.IN_PLACE_OF_NONE.values(), *unused.BY_SUBCLASS.values()}
    handed_on = {name for name in ours if name.startswith("tfdrl.environments.registry.")}
    assert found - handed_on == listed - {"tfdrl.replay.transition_table.replay_table"}


def _flat(path):
    """A module of all imports of a file, those of its functions too."""
    nodes = ast.walk(ast.parse(path.read_text()))
    imports = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
    return ast.Module(imports, [])


def _has_attribute(path: pathlib.Path, imported, name):
    module, _, last = name.rpartition(".")
    text = path.read_text()
    return any(full == module and f"{local}.{last}" in text for local, full in imported.items())
