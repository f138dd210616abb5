"""The catalogue agrees with what gin registers."""

import ast
import dataclasses
import importlib
import pathlib
import sys
import textwrap

import gin
import pytest

from tfdrl.configuration import catalogue, kept, registrations, signatures
from tfdrl.configuration.catalogue import read, scan_package

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
    names = {
        item.selector: (item.parameter_names, item.signature.accepts_any)
        for item in found.configurables
    }
    assert names == EXPECTED
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
    found = registrations.read(ast.parse(text), "mod", pathlib.Path("mod.py"))
    assert set(found.constants) == {"PI", "mod.Mode.FAST"}


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


SHARED = """
import dataclasses
import gin

@dataclasses.dataclass
class Shared:
    one: int = gin.REQUIRED
    two: float = 1.0
"""

INHERITING = """
import dataclasses
import gin
from pack import shared
from pack.shared import Shared as Renamed
from .shared import Shared
from elsewhere import Other

@gin.configurable
@dataclasses.dataclass
class ByName(Shared):
    two: float = 2.0
    three: int = 3

@gin.configurable
@dataclasses.dataclass
class ByModule(shared.Shared): ...

@gin.configurable
class ByAlias(Renamed): ...

@gin.configurable
class Foreign(Other): ...

gin.external_configurable(Shared, "imported")
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules, of which one inherits from the other."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").touch()
    (tmp_path / "pack" / "shared.py").write_text(SHARED)
    (tmp_path / "pack" / "inheriting.py").write_text(INHERITING)
    return tmp_path / "pack"


def test_a_base_in_another_module_of_the_package_is_followed(package):
    found = read("pack.inheriting", package / "inheriting.py")
    names = {
        item.name: (item.parameter_names, item.signature.accepts_any)
        for item in found.configurables
    }
    assert names == {
        "ByName": (["one", "two", "three"], False),
        "ByModule": (["one", "two"], False),
        "ByAlias": (["one", "two"], False),
        "Foreign": ([], True),
        "imported": (["one", "two"], False),
    }
    assert found.configurables[0].parameter("two").default == "2.0"
    assert found.bases == ("pack.shared",)
    assert "pack" not in sys.modules


def test_what_is_kept_is_not_believed_where_a_base_has_changed(package, monkeypatch):
    path = package / "inheriting.py"
    content, found = path.read_bytes(), read("pack.inheriting", path)
    entries = {"pack.inheriting": kept.entry(content, found)}
    monkeypatch.setattr(kept, "_entries", lambda top: entries)
    assert kept.find("pack.inheriting", path, content) == found
    (package / "shared.py").write_text(SHARED.replace("two", "second"))
    assert kept.find("pack.inheriting", path, content) is None


@pytest.mark.parametrize("name", ["a3c", "apex", "dqn", "gorila", "impala", "r2d2", "seed"])
def test_an_architecture_s_settings_are_known_without_importing_it(name):
    (item,) = catalogue().find(name)
    made = getattr(importlib.import_module(item.module), name.capitalize())
    assert item.parameter_names == [field.name for field in dataclasses.fields(made)]
    assert not item.signature.accepts_any
