"""tfdrl-benchmark in a process of its own, and the figures that it leaves."""

import json
import os
import pathlib
import subprocess
import sys

import paths


def run(*arguments, timeout_secs, **kwargs):
    """The completed process."""
    return subprocess.run(
        [sys.executable, "-m", "binaries.benchmark", *arguments],
        cwd=paths.CHECKOUT,
        capture_output=True,
        text=True,
        timeout=timeout_secs,
        **kwargs,
    )


def sections(directory, *arguments, timeout_secs):
    """Its tables and the completed process; it has failed nowhere and has left nothing behind."""
    scratch, out = directory / "scratch", directory / "figures.json"
    scratch.mkdir()
    environment = {**os.environ, "TMPDIR": str(scratch)}
    done = run(*arguments, f"--json={out}", timeout_secs=timeout_secs, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(scratch.iterdir()) and not _left_behind(directory)
    return json.loads(out.read_text()), done


def _left_behind(directory):
    """Processes that name it, in their command line or, as all that it starts, in TMPDIR."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                if str(directory).encode() in (path / name).read_bytes():
                    found.append(path.name)
            except OSError:
                continue
    return found


def by_name(tables):
    """{(title, name, unit): value}."""
    return {
        (table["title"].partition(" (")[0], figure["name"], figure["unit"]): figure["value"]
        for table in tables
        for figure in table["figures"]
    }


def figures(table):
    """{name: value} of one table."""
    return {figure["name"]: figure["value"] for figure in table["figures"]}
