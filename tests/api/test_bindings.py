"""Settings of Python programs as lines of gin: gin reads what was meant."""

import ast

import numpy as np
import pytest

from tfdrl.api import bindings
from tfdrl.errors import ConfigurationError


@pytest.mark.parametrize(
    "value",
    [3, 1e-4, True, None, "a 'quoted' text", [1, [2.5]], (1,), (), ("a", None), {"a": [1], 2: "b"}],
)
def test_a_value_is_read_back(value):
    (line,) = bindings.lines({"a.b": value})
    name, _, text = line.partition(" = ")
    assert name == "a.b" and ast.literal_eval(text) == value


def test_numbers_of_numpy_and_references_are_as_gin_writes_them():
    given = {"a.x": np.float32(0.5), "a.y": np.int64(3), "a.z": "@net()", "a.w": ["@net", "%M"]}
    assert bindings.lines(given) == ["a.x = 0.5", "a.y = 3", "a.z = @net()", "a.w = [@net, %M]"]


def test_lines_stay_as_they_are():
    assert bindings.lines(["a.b = 3"]) == ["a.b = 3"] and bindings.lines(()) == []


@pytest.mark.parametrize("name", [None, 3, b"a.gin", "", [], ["a.gin", None]])
def test_what_is_no_file_is_refused(name):
    with pytest.raises(ConfigurationError, match=r"gin_file=.* must be a file's path or name"):
        bindings.files(name)
