"""The site: every page is in it, every table of settings is made; it builds without a warning."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
import yaml

from tfdrl.configuration import documented

_CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
_DOCS = _CHECKOUT / "docs"
_PAGES = {path.relative_to(_DOCS).as_posix(): path.read_text() for path in _DOCS.rglob("*.md")}


@pytest.fixture(scope="module")
def settings():
    sys.path.insert(0, str(_DOCS))
    import settings

    yield settings
    sys.path.remove(str(_DOCS))
    del sys.modules["settings"]


def _named(nav):
    for entry in nav if isinstance(nav, list) else nav.values() if isinstance(nav, dict) else ():
        yield from [entry] if isinstance(entry, str) else _named(entry)


def test_every_page_is_in_the_navigation_once():
    nav = yaml.safe_load((_CHECKOUT / "mkdocs.yml").read_text())["nav"]
    assert sorted(_named(nav)) == sorted(_PAGES)


def test_the_readme_is_a_page():
    assert len((_CHECKOUT / "README.md").read_text().splitlines()) <= 120


def test_settings_become_tables_with_their_defaults_and_meanings(settings):
    page = settings.on_page_markdown("before\n<!-- settings: apex VTraceAgent -->\nafter")
    assert "| `apex.n_step` | `3` | steps of a full window. |" in page
    assert "| `apex.environment` | must be set | environment factory" in page  # of a class above
    assert "| `apex.publish_period_steps` | `10` | learner steps between two" in page
    assert "| `VTraceAgent.rho_bar` | `1.0` | V-trace's clip" in page
    assert "VTraceAgent.action_spec" not in page  # tfdrl gives it, not gin
    with pytest.raises(KeyError, match="apx"):
        settings.on_page_markdown("<!-- settings: apx -->")


@pytest.mark.parametrize("architecture", ["dqn", "apex", "r2d2", "impala", "seed", "gorila", "a3c"])
def test_every_setting_of_an_architecture_is_explained_on_its_page(settings, architecture):
    page = settings.on_page_markdown(_PAGES[f"architectures/{architecture}.md"])
    parameters = documented.settings(documented.find(architecture))
    explained = set(re.findall(rf"^\| `{architecture}\.(\w+)` \|", page, re.MULTILINE))
    assert explained == {name for name, *_ in parameters} != set()


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    how = {"capture_output": True, "text": True, "timeout": 120}
    done = subprocess.run(command, cwd=_CHECKOUT, env=environment, **how)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site/architectures/impala.html").read_text()
    assert "<code>impala.unroll_steps</code>" in page
    assert "VTraceAgent" in (tmp_path / "site/api.html").read_text()
