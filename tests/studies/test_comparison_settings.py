"""What tfdrl-compare compares: values of settings, and the architectures on a task."""

import pytest

from tfdrl import configuration
from tfdrl.errors import ConfigurationError
from tfdrl.studies.comparison import settings
from tfdrl.studies.comparison.settings import Budget, Setting

_BASE = Setting("corrections", ("impala/corrections.gin",), ())


@pytest.mark.parametrize(
    ("text", "bindings"),
    [
        ("a.b=none,x", ["a.b = 'none'", "a.b = 'x'"]),
        ("a.b=None,2, 3.5", ["a.b = None", "a.b = 2", "a.b = 3.5"]),
        ("a.b=(1, 2),(3,)", ["a.b = (1, 2)", "a.b = (3,)"]),
        ("a.b=@adam(),@rmsprop()", ["a.b = @adam()", "a.b = @rmsprop()"]),
        ("a.b='x,(y',True", ["a.b = 'x,(y'", "a.b = True"]),
    ],
)
def test_values_are_those_of_gin_and_words_are_texts(text, bindings):
    found = [b for setting in settings.varied(_BASE, [text]) for b in setting.gin_bindings]
    assert found == bindings


def test_architectures_have_the_same_layers_and_differ_in_seed_and_budget():
    found = settings.of_task("cartpole", [], ["experiment.evaluation_episodes = 20"])
    labels = [setting.label for setting in found]
    assert labels == ["dqn", "gorila", "a3c", "apex", "impala", "seed"]
    for setting in found:
        texts = [
            configuration.check(
                setting.gin_files, [*setting.gin_bindings, *Budget(None, 0.6).bindings(seed)]
            ).text
            for seed in (1, 2)
        ]
        assert "layer_units = (128, 128)" in texts[0]
        assert "experiment.evaluation_episodes = 20" in texts[0]
        assert "experiment.max_minutes = 0.6" in texts[0]
        changed = configuration.differences(*texts)
        assert [line.split(":")[0] for line in changed] == ["experiment.seed"]


def _heeded(architectures, bindings, said, variations=()):
    found = settings.of_task("cartpole", architectures, bindings)
    found = settings.varied(found[0], variations) if variations else found
    found = settings.heeded(found, bindings, said.append)
    for setting in found:
        configuration.check(setting.gin_files, setting.gin_bindings)
    return found


def test_a_setting_goes_to_the_architectures_that_heed_it_and_one_of_nobodys_is_refused():
    said = []
    found = _heeded(["apex", "impala"], ["apex.actors = 2"], said)
    assert ["apex.actors = 2" in setting.gin_bindings for setting in found] == [True, False]
    assert len(said) == 1 and said[0].startswith("impala: apex.actors has no effect")
    with pytest.raises(
        ConfigurationError,
        match=r"--gin_bindings='sgd.learning_rate = 1.0': with apex sgd.learning_rate has no "
        r"effect, for nothing refers to @sgd; there are @adam, and so with impala",
    ):
        _heeded(["apex", "impala"], ["sgd.learning_rate = 1.0"], [])


def test_another_network_goes_without_the_layers_of_the_same_ones():
    said = []
    _heeded(["impala"], ["VTraceAgent.network = @NatureActorCriticNetwork"], said)
    assert not said


def test_a_setting_goes_to_the_values_that_heed_it():
    adam, optimizers = "adam.learning_rate = 1e-3", "VTraceAgent.optimizer=@adam(),@rmsprop()"
    said = []
    found = _heeded(["impala"], [adam], said, [optimizers])
    assert [adam in setting.gin_bindings for setting in found] == [True, False]
    assert "optimizer = @rmsprop(): adam.learning_rate has no effect" in said[0]
    with pytest.raises(ConfigurationError, match=r"rmsprop\.decay has no effect"):
        _heeded(["impala"], [], [], [optimizers, "rmsprop.decay=0.9,0.8"])


@pytest.mark.parametrize("task", settings.TASKS)
def test_every_gin_file_of_a_task_is_of_the_same_environment(task):
    from tfdrl.reports.run import task_of

    files = settings.TASKS[task].values()
    assert len({task_of(configuration.check([name], []).text) for name in files}) == 1
    assert task in settings.MINUTES
