"""The notebook and the page's examples, run as their readers would."""

import json
import os
import re
import subprocess
import sys

import pytest
from paths import CHECKOUT, python_path

_NOTEBOOK = CHECKOUT / "examples" / "quickstart.ipynb"


def test_the_notebook_is_kept_without_outputs():
    cells = json.loads(_NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 4 and not any(cell["outputs"] for cell in code)


@pytest.mark.slow
def test_the_notebook_trains_and_plays(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("PYTHONPATH", python_path())
    notebook = nbformat.read(_NOTEBOOK, 4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=280, resources=resources).execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())
    )
    best = float(re.search(r"best return: ([\d.]+) after", printed)[1])
    played = float(re.search(r"([\d.]+) ± [\d.]+ over 20 episodes", printed)[1])
    assert best >= 195 and played > 100 and "return of one episode:" in printed
    assert "frames" in printed.split("best return")[0]  # what the launcher prints is shown


@pytest.mark.slow
def test_the_example_with_optuna_finds_a_learning_rate(tmp_path):
    pytest.importorskip("optuna")
    page = (CHECKOUT / "docs" / "python.md").read_text()
    (program,) = re.findall(r"```python\n(import optuna\n.*?)```", page, re.DOTALL)
    assert len([line for line in program.splitlines() if line]) <= 20
    small = program.replace("n_trials=20", "n_trials=2").replace("200_000", "20_000")
    done = subprocess.run(
        [sys.executable, "-c", small],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert 1e-4 <= json.loads(done.stdout.replace("'", '"'))["learning_rate"] <= 1e-2
    assert {path.name for path in (tmp_path / "runs" / "optuna").iterdir()} == {"0", "1"}
