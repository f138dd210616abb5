"""Gin files are found by name from anywhere."""

import pytest

from tfdrl import configuration
from tfdrl.errors import ConfigurationError


def test_shipped_files_are_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = configuration.gin_file_names()
    assert "environments/cartpole.gin" in names
    path = configuration.find_gin_file("environments/cartpole.gin")
    assert path.is_absolute()
    assert path.is_file()
    for other in ("gin/environments/cartpole.gin", "environments/cartpole", path):
        assert configuration.find_gin_file(other) == path


def test_a_file_as_given_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "environments").mkdir()
    mine = tmp_path / "environments" / "cartpole.gin"
    mine.write_text("")
    assert configuration.find_gin_file("environments/cartpole.gin") == mine


@pytest.mark.parametrize(
    "name", ["environments/cartpol.gin", "gin/environments/cartpol", "other/cartpole.gin"]
)
def test_a_missing_file_names_the_nearest(name):
    with pytest.raises(ConfigurationError, match=r"nearest are: .*environments/cartpole.gin"):
        configuration.find_gin_file(name)


@pytest.mark.parametrize("name", ["", ".", "/"])
def test_what_names_nothing_is_refused(name):
    with pytest.raises(ConfigurationError, match="names no gin file; write one such as apex/cart"):
        configuration.find_gin_file(name)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigurationError, match=f"{tmp_path} cannot be read: Is a directory"):
        configuration.read_utf8(tmp_path)


def test_a_directory_is_not_a_gin_file():
    with pytest.raises(ConfigurationError, match="no gin file 'environments'"):
        configuration.find_gin_file("environments")


def test_every_shipped_file_passes_the_check():
    for name in configuration.gin_file_names():
        configuration.check([name])
