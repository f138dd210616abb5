"""What is kept of the sources' names is what the sources say, or is not believed."""

import pathlib

import pytest

import tfdrl
from tfdrl.configuration import keep, kept, source
from tfdrl.configuration.catalogue import may_register, read, scan

_PACKAGE_DIR = pathlib.Path(tfdrl.__file__).parent


@pytest.mark.parametrize("top", kept.PACKAGES)
def test_the_kept_names_are_up_to_date(top):
    path = kept.names_file(top)
    assert path.read_text() == keep.text(top), (
        f"{path} is stale (a typo in a gin file costs more CPU time than it need): "
        "run `python -m tfdrl.configuration.keep`"
    )


@pytest.mark.parametrize("top", kept.PACKAGES)
def test_nothing_is_parsed_where_nothing_has_changed(top, monkeypatch):
    def refuse(path):
        raise AssertionError(f"{path} is parsed")

    modules = list(source.package_modules(top))
    monkeypatch.setattr(source, "parse", refuse)
    assert len(scan(modules).configurables) > 20


def test_what_is_kept_is_what_parsing_finds():
    compared = 0
    for module, path in source.package_modules("tfdrl"):
        content = path.read_bytes()
        if may_register(content):
            assert kept.find(module, path, content) == read(module, path)
            compared += 1
    assert compared > 20


def test_a_file_that_has_changed_is_read_anew(tmp_path):
    text = (_PACKAGE_DIR / "experiment.py").read_text()
    changed = tmp_path / "experiment.py"
    changed.write_text(text.replace("solved_return: ", "resolved_return: "))
    (item,) = scan([("tfdrl.experiment", changed)]).find("experiment")
    assert item.parameter("resolved_return") is not None
    assert item.parameter("solved_return") is None


def test_a_place_is_in_the_file_that_was_asked_for(tmp_path):
    moved = tmp_path / "moved.py"
    moved.write_bytes((_PACKAGE_DIR / "experiment.py").read_bytes())
    (item,) = scan([("tfdrl.experiment", moved)]).find("experiment")
    name, _, line = item.place.rpartition(":")
    assert name == str(moved)
    assert moved.read_text().splitlines()[int(line) - 1] == "class Experiment:"


def test_without_a_kept_file_the_sources_are_read(monkeypatch, tmp_path):
    monkeypatch.setattr(kept, "_NAMES_DIR", tmp_path)
    kept._entries.cache_clear()
    try:
        modules = [("tfdrl.experiment", _PACKAGE_DIR / "experiment.py")]
        assert scan(modules).find("experiment")
    finally:
        kept._entries.cache_clear()


@pytest.mark.parametrize(
    "text",
    [
        "import gin",
        "import os, gin as g",
        "import os, \\\n  gin",
        "import gin.config as config",
        "from gin import configurable",
        "from gin.config import (\n  register)",
        "def f():\n  x = 1; import gin",
        "from \\\r\n gin import register",
        "if True: from gin import register",
        "try:\n\timport gin\nexcept ImportError: pass",
    ],
)
def test_every_import_of_gin_makes_a_file_worth_parsing(text):
    assert may_register(text.encode())


@pytest.mark.parametrize(
    "text",
    ["import engine", "from begin import x", "import os\n# gin", "gin = 1", "# from the gin file"],
)
def test_a_file_without_one_is_not_parsed(text):
    assert not may_register(text.encode())
