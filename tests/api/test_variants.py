"""What varies among several runs: every combination once, under a name of its own."""

import pytest

from tfdrl.api.variants import Variant, variants
from tfdrl.errors import ConfigurationError


def test_every_combination_is_there_once_all_of_one_seed_first():
    found = variants(["2", "1"], ["adam.learning_rate=1e-4,3e-4", "net.units = (8,8), (4,)"])
    assert [variant.name for variant in found[:3]] == [
        "adam.learning_rate=1e-4,net.units=8_8,seed=2",
        "adam.learning_rate=1e-4,net.units=4,seed=2",
        "adam.learning_rate=3e-4,net.units=8_8,seed=2",
    ]
    assert len({v.name for v in found}) == len(found) == 8
    assert found[7].bindings == [
        "experiment.seed = 1",
        "adam.learning_rate = 3e-4",
        "net.units = (4,)",
    ]


def test_seeds_alone_and_values_in_quotes():
    assert variants(["07"], []) == [Variant("seed=7", ["experiment.seed = 7"])]
    names = [v.bindings[0] for v in variants([], ["agent.correction='none','a,b'"])]
    assert names == ["agent.correction = 'none'", "agent.correction = 'a,b'"]


@pytest.mark.parametrize(
    "seeds, sweeps, words",
    [
        (["1", "x"], [], "'x' must be a whole number from 0"),
        (["-1"], [], "must be a whole number"),
        (["1", "01"], [], "a seed is there twice"),
        ([], ["adam.learning_rate"], "write a setting and its values"),
        ([], ["learning_rate=1,2"], "write a setting and its values"),
        ([], ["a.b=1,,2"], "write a setting and its values"),
        ([], ["a.b=1,1"], "a value is there twice"),
        ([], ["a.b=1e-3,'x',0.001"], "a value is there twice"),
        ([], ["a.b=1", "a.b=2"], "a.b is to vary twice"),
        (["1"], ["experiment.seed=2"], "experiment.seed is to vary twice"),
        ([], ["a.b='/','*'"], "would have one directory"),
    ],
)
def test_what_cannot_be_read_is_refused(seeds, sweeps, words):
    with pytest.raises(ConfigurationError, match=words):
        variants(seeds, sweeps)
