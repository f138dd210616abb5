"""In a real kernel of Jupyter: output appears in the cell, and the stop button ends a run."""

import time

import pytest
from paths import python_path

import tfdrl

_CELL = """
import tfdrl
try:
    tfdrl.train({gin_file!r}, root_dir={root_dir!r})
except KeyboardInterrupt:
    print("stopped:", tfdrl.load({root_dir!r}).ended)
"""


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """(its manager, its client)."""
    pytest.importorskip("ipykernel")
    from jupyter_client.manager import start_new_kernel

    monkeypatch.setenv("PYTHONPATH", python_path())
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    manager, client = start_new_kernel(cwd=str(tmp_path))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_the_stop_button_ends_a_run_with_its_files_in_order(kernel, tmp_path):
    manager, client = kernel
    gin_file, root_dir = tmp_path / "tiny.gin", tmp_path / "run"
    gin_file.write_text("import tiny_program\nexperiment.architecture = @tiny()\n")
    message = client.execute(_CELL.format(gin_file=str(gin_file), root_dir=str(root_dir)))
    deadline_secs = time.monotonic() + 60
    while not (root_dir / "ready-learner-0").exists():
        assert time.monotonic() < deadline_secs
        time.sleep(0.05)
    manager.interrupt_kernel()
    assert client.get_shell_msg(timeout=60)["content"]["status"] == "ok"
    printed = ""
    while "stopped: " not in printed:
        told = client.get_iopub_msg(timeout=30)
        if told["parent_header"].get("msg_id") == message and told["msg_type"] == "stream":
            printed += told["content"]["text"]
    assert f"tiny in {root_dir}" in printed and "stopped: told to stop" in printed
    assert tfdrl.load(root_dir).ended == "told to stop"
