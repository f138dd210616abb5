"""A wheel works away from the checkout."""

import email
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
import yaml

import tfdrl
from binaries.commands import COMMANDS, ROLES

CHECKOUT = pathlib.Path(__file__).parents[2]
#: What an environment keeps in share/tfdrl.
_SHARED = (
    "constraints.txt",
    "requirements-seed-actor.txt",
    "requirements-track.txt",
    "docker/make_certificates.sh",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A directory with the wheel of a copy of this checkout unpacked into it."""
    source = tmp_path_factory.mktemp("source")
    for name in ("tfdrl", "gin", "binaries", "policies"):
        shutil.copytree(CHECKOUT / name, source / name)
    (source / "docker").mkdir()
    for name in (*_SHARED, "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source / name)
    # Without build isolation and without pip: the test needs no network.
    build = "from setuptools import build_meta; build_meta.build_wheel('wheel')"
    done = subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (source / "wheel").glob("tfdrl-*.whl")
    target = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(target)
    return target


def test_the_wheel_holds_the_gin_files_and_only_tfdrl_at_its_top(site):
    shipped = {path.relative_to(CHECKOUT / "gin") for path in (CHECKOUT / "gin").rglob("*.gin")}
    packed = site / "tfdrl" / "gin_files"
    assert {path.relative_to(packed) for path in packed.rglob("*.gin")} == shipped != set()
    beside = (f"tfdrl-{tfdrl.__version__}.dist-info", f"tfdrl-{tfdrl.__version__}.data")
    assert {path.name for path in site.iterdir()} == {"tfdrl", *beside}
    assert (site / "tfdrl" / "py.typed").exists() and (site / "tfdrl" / "__init__.pyi").exists()
    protos = {path.name for path in (CHECKOUT / "tfdrl").rglob("*.proto")}
    assert {path.name for path in (site / "tfdrl").rglob("*.proto")} == protos


def test_the_wheel_holds_the_kept_names(site):
    names = CHECKOUT / "tfdrl" / "configuration" / "names"
    packed = site / "tfdrl" / "configuration" / "names"
    assert {path.name for path in packed.iterdir()} == {path.name for path in names.iterdir()}
    for path in packed.iterdir():
        assert path.read_text() == (names / path.name).read_text()


def test_the_wheel_holds_the_trained_policies(site):
    policies, packed = CHECKOUT / "policies", site / "tfdrl" / "policies"
    files = {path.relative_to(policies) for path in policies.rglob("*") if path.is_file()}
    assert {path.relative_to(packed) for path in packed.rglob("*") if path.is_file()} == files
    assert pathlib.Path("cartpole-impala", "policy", "saved_model.pb") in files


def test_the_wheel_holds_what_the_pages_use_beside_python(site):
    (shared,) = site.glob("*.data/data/share/tfdrl")
    assert {path.name for path in shared.iterdir()} == {pathlib.Path(name).name for name in _SHARED}
    for name in _SHARED:
        packed = shared / pathlib.Path(name).name
        assert packed.read_text() == (CHECKOUT / name).read_text()


def test_the_metadata_says_whose_it_is_and_under_what_licence(site):
    (directory,) = site.glob("*.dist-info")
    metadata = email.message_from_string((directory / "METADATA").read_text())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    assert "SPDX-License-Identifier: Apache-2.0" in (directory / "licenses/LICENSE").read_text()
    assert metadata["Author"] == "The tfdrl authors"
    assert metadata["Requires-Python"] == "<3.12,>=3.9"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().strip() == (CHECKOUT / "README.md").read_text().strip()
    assert not metadata.get_all("Project-URL")
    assert {"atari", "mujoco", "video", "test"} <= set(metadata.get_all("Provides-Extra"))
    assert any(line.startswith("tensorflow<2.16") for line in metadata.get_all("Requires-Dist"))


def test_every_place_states_the_same_version(site):
    version = tfdrl.__version__
    (directory,) = site.glob("*.dist-info")
    assert directory.name == f"tfdrl-{version}.dist-info"
    cited = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (version, "Apache-2.0")
    newest = re.search(r"^## (\S+)", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest.group(1) == version


def test_every_command_points_into_the_package(site):
    (text,) = (path.read_text() for path in site.glob("*.dist-info/entry_points.txt"))
    commands = dict(line.split(" = ") for line in text.splitlines() if " = " in line)
    assert commands.pop("tfdrl") == "tfdrl.binaries.main:console"
    assert set(commands) == {f"tfdrl-{name}" for name in {**COMMANDS, **ROLES}}
    for command, target in commands.items():
        module, _, function = target.partition(":")
        assert (module, function) == (
            f"tfdrl.binaries.{command[6:].replace('-', '_')}",
            "console",
        )
        source = site.joinpath(*module.split(".")).with_suffix(".py").read_text()
        assert "def console(" in source or "console = " in source or "console," in source


def test_gin_files_are_found_away_from_the_checkout(site, tmp_path):
    program = """
import tfdrl, tfdrl.binaries
from tfdrl import configuration
print(tfdrl.__file__)
print(configuration.find_gin_file("environments/cartpole.gin"))
configuration.source.parse = None  # what tfdrl's own files register is kept, not parsed anew
print(configuration.check(["environments/cartpole.gin"]).digest)
"""
    libraries = [path for path in sys.path if path and pathlib.Path(path) != CHECKOUT]
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": ":".join([str(site), *libraries])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    package, path, digest = done.stdout.split()
    assert package == str(site / "tfdrl" / "__init__.py")
    assert path == str(site / "tfdrl" / "gin_files" / "environments" / "cartpole.gin")
    assert len(digest) == 16
