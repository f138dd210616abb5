"""What a learner writes for people is whole, or as it was."""

import json
import logging
import pathlib

import pytest

from tfdrl.learning.run_files import RunFiles


class Killed(BaseException):
    """Instead of a real one, which leaves no process to look from."""


def test_a_result_is_replaced_as_a_whole(tmp_path, monkeypatch):
    files = RunFiles(tmp_path)
    files.write_result({"learner_steps": 1})

    def dies(path, text, *unused):
        with path.open("w") as file:
            file.write(text[: len(text) // 2])
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(pathlib.Path, "write_text", dies)
        files.write_result({"learner_steps": 2})
    assert json.loads((tmp_path / "result.json").read_text()) == {"learner_steps": 1}
    files.write_result({"learner_steps": 3})
    assert json.loads((tmp_path / "result.json").read_text()) == {"learner_steps": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_the_result_of_an_earlier_start_is_kept_aside(tmp_path, monkeypatch, caplog):
    files = RunFiles(tmp_path)
    files.put_result_aside()
    files.write_result({"learner_steps": 1})
    files.put_result_aside()
    assert [path.name for path in tmp_path.iterdir()] == ["result.json.1"]
    assert json.loads((tmp_path / "result.json.1").read_text()) == {"learner_steps": 1}
    files.write_result({"learner_steps": 2})

    def fails(path, target):
        raise OSError("read-only")

    monkeypatch.setattr(pathlib.Path, "rename", fails)
    with caplog.at_level(logging.WARNING):
        files.put_result_aside()
    assert "result.json of an earlier start stays: read-only" in caplog.text


def test_one_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    (tmp_path / "result.json").mkdir()
    with caplog.at_level(logging.WARNING):
        RunFiles(tmp_path).write_result({})
    assert "result.json could not be written" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_the_result_is_a_metric_if_there_was_an_evaluation(tmp_path):
    class Metrics(dict):
        def write(self, step, metrics):
            self[step] = dict(metrics)

    metrics = Metrics()
    files = RunFiles(tmp_path, metrics)
    files.write_result({"learner_steps": 5, "evaluation": None, "best_return": None})
    assert not metrics
    files.write_result({"learner_steps": 7, "evaluation": {"mean": 3.0}, "best_return": 4.0})
    assert metrics == {7: {"result/return": 3.0, "result/best_return": 4.0}}
