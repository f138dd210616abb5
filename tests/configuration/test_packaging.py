"""A wheel works away from the checkout."""

import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

CHECKOUT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A directory with the wheel of a copy of this checkout unpacked into it."""
    source = tmp_path_factory.mktemp("source")
    for name in ("tfdrl", "gin", "binaries"):
        shutil.copytree(CHECKOUT / name, source / name)
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(CHECKOUT / name, source)
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
    assert {path.name for path in site.iterdir() if "dist-info" not in path.name} == {"tfdrl"}
    protos = {path.name for path in (CHECKOUT / "tfdrl").rglob("*.proto")}
    assert {path.name for path in (site / "tfdrl").rglob("*.proto")} == protos


def test_the_wheel_holds_the_kept_names(site):
    names = CHECKOUT / "tfdrl" / "configuration" / "names"
    packed = site / "tfdrl" / "configuration" / "names"
    assert {path.name for path in packed.iterdir()} == {path.name for path in names.iterdir()}
    for path in packed.iterdir():
        assert path.read_text() == (names / path.name).read_text()


def test_every_command_points_into_the_package(site):
    (text,) = (path.read_text() for path in site.glob("*.dist-info/entry_points.txt"))
    commands = dict(line.split(" = ") for line in text.splitlines() if " = " in line)
    assert set(commands) == {
        "tfdrl-train",
        "tfdrl-learner",
        "tfdrl-actor",
        "tfdrl-replay-server",
        "tfdrl-evaluator",
        "tfdrl-evaluate",
        "tfdrl-benchmark",
        "tfdrl-compare-corrections",
        "tfdrl-seed-learner",
        "tfdrl-seed-actor",
        "tfdrl-parameter-server",
        "tfdrl-parameters",
        "tfdrl-coordinator",
        "tfdrl-watch",
        "tfdrl-worker",
        "tfdrl-manifests",
        "tfdrl-health",
    }
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
