"""The catalogue agrees with what gin registers."""

import ast
import importlib
import pathlib
import textwrap

import gin
import pytest

from tfdrl.configuration import catalogue, registrations, signatures
from tfdrl.configuration.catalogue import scan_package

SOURCE = """
import dataclasses
from typing import Any, ClassVar, NamedTuple
import gin as g
from gin import configurable, register as reg


@configurable
def plain(a, /, b: "int | None" = None, *, c: float = 1.0): ...

@g.configurable("renamed")
def original(x): ...

@g.configurable("other.place")
def dotted(x): ...

@g.configurable(module="my.module", denylist=["hidden"])
def moved(shown, hidden): ...

@g.configurable(allowlist=["shown"])
def listed(shown, hidden): ...

@configurable
@dataclasses.dataclass(frozen=True)
class Settings:
    first: int
    second: Any = g.REQUIRED
    shared: ClassVar[int] = 3
    made: int = dataclasses.field(default=1, init=False)

@configurable
@dataclasses.dataclass
class MoreSettings(Settings):
    third: tuple[int, ...] = ()

class Base:
    def __init__(self, inherited, **rest): ...

@configurable
class Child(Base): ...

@configurable
class Stranger(ast.NodeVisitor): ...

@configurable
class Made:
    def __new__(cls, size): ...

@configurable
class Point(NamedTuple):
    x: int
    y: int = 0

@reg
class Registered:
    def __init__(self, one): ...

    @reg
    def method(self, two): ...

g.external_configurable(Base, "based")
g.external_configurable(pathlib.Path, module="paths")
assigned = g.configurable("late")(original)
"""

#: selector: (parameters, whether any other is accepted)
EXPECTED = {
    "mod.plain": (["a", "b", "c"], False),
    "mod.renamed": (["x"], False),
    "other.place": (["x"], False),
    "my.module.moved": (["shown"], False),
    "mod.listed": (["shown"], False),
    "mod.Settings": (["first", "second"], False),
    "mod.MoreSettings": (["first", "second", "third"], False),
    "mod.Child": (["inherited"], True),
    "mod.Stranger": ([], True),
    "mod.Made": (["size"], False),
    "mod.Point": (["x", "y"], False),
    "mod.Registered": (["one"], False),
    "mod.Registered.method": (["two"], False),
    "mod.based": (["inherited"], True),
    "paths.Path": ([], True),
    "mod.late": ([], True),
}


@pytest.fixture(scope="module")
def found():
    path = pathlib.Path("mod.py")
    return registrations.read(ast.parse(textwrap.dedent(SOURCE)), "mod", path)


def test_every_form_of_registration_is_read(found):
    read = {
        item.selector: (item.parameter_names, item.signature.accepts_any)
        for item in found.configurables
    }
    assert read == EXPECTED
    assert not found.is_open


def test_annotations_defaults_and_lines_are_kept(found):
    plain = found.configurables[0]
    assert plain.parameter("b") == signatures.Parameter("b", "'int | None'", "None")
    assert plain.place == "mod.py:9"


@pytest.mark.parametrize(
    "text",
    [
        "import gin\nfor n in 'ab':\n    gin.external_configurable(print, n)",
        "import gin\ngin.external_configurable(print, 'a' + 'b')",
        "import gin\ndef f(x):\n    return gin.configurable(x)",
    ],
)
def test_a_registration_that_cannot_be_read_leaves_the_catalogue_open(text):
    assert registrations.read(ast.parse(text), "mod", pathlib.Path("mod.py")).is_open


def test_constants_are_read():
    text = (
        "import gin\ngin.constant('PI', 3)\n"
        "@gin.constants_from_enum\nclass Mode(enum.Enum):\n    FAST = 1\n"
    )
    read = registrations.read(ast.parse(text), "mod", pathlib.Path("mod.py"))
    assert set(read.constants) == {"PI", "mod.Mode.FAST"}


def test_tfdrl_s_own_catalogue_is_complete_and_without_ambiguity():
    own = catalogue()
    assert not own.is_open, "tfdrl registers something under a computed name"
    names = [item.name for item in own.configurables]
    assert "experiment" in names
    assert len(names) == len(set(names)), "two of tfdrl's configurables have one name"


def test_a_large_package_is_searched_for_the_names_alone():
    found = scan_package("tf_agents", {"DdpgAgent"})
    (agent,) = found.find("DdpgAgent")
    assert agent.module == "tf_agents.agents.ddpg.ddpg_agent"
    assert agent.parameter("gamma") is not None
    assert not found.find("PPOAgent")


def test_the_catalogue_agrees_with_gin_s_registry():
    """Every tfdrl module is imported, and gin's own view is compared with the source's."""

    for item in catalogue().configurables:
        if item.module == "gin":
            continue
        importlib.import_module(item.module)
        assert callable(gin.get_configurable(item.selector))
        for name in item.parameter_names:
            with gin.unlock_config():
                gin.bind_parameter(f"{item.selector}.{name}", None)  # raises if there is none
    gin.clear_config()
