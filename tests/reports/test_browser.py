"""report.html in a real browser: it loads without errors, and its text can be read."""

import json
import pathlib
import re
import shutil
import subprocess

import made_runs
import pytest

from tfdrl.reports import page, run

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_LIMIT_SECS = 90
#: Looks at the page in a frame of a phone's width, or a screen's; says what it saw.
_LOOK = """<!DOCTYPE html><body><iframe id="f" src="report.html" width="%d" height="3000"></iframe>
<script>window.onload = () => {
  const inside = document.getElementById("f").contentDocument, shown = [];
  for (const e of inside.querySelectorAll("p, li, td, th, dt, dd, h1, h2, h3, pre, svg text")) {
    if (!e.getClientRects().length) continue;
    const matrix = e.ownerSVGElement && e.getScreenCTM();  // some text is turned
    const scale = matrix ? Math.hypot(matrix.a, matrix.b) : 1;
    shown.push(scale * parseFloat(inside.defaultView.getComputedStyle(e).fontSize));
  }
  const boxes = inside.querySelectorAll("svg.figure rect.box");
  const outside = [...inside.querySelectorAll("svg text")].filter(e => {
    const t = e.getBoundingClientRect(), s = e.ownerSVGElement.getBoundingClientRect();
    return t.left < s.left - 1 || t.right > s.right + 1;
  }).map(e => e.textContent);
  const all = inside.documentElement;
  document.title = JSON.stringify({texts: shown.length, smallest: Math.min(...shown),
    boxes: boxes.length, outside, wide: all.scrollWidth - all.clientWidth});
}</script></body>"""


@pytest.mark.slow
@pytest.mark.skipif(_CHROMIUM is None, reason="needs Debian's chromium")
@pytest.mark.parametrize("width", [400, 1400])
def test_it_loads_without_errors_and_can_be_read(tmp_path, width):
    runs = [
        run.read(made_runs.make(tmp_path / "impala", made_runs.impala(16), scalars=_scalars())),
        run.read(made_runs.make(tmp_path / "a3c", made_runs.a3c())),
    ]
    (tmp_path / "report.html").write_text(page.text(runs))
    (tmp_path / "look.html").write_text(_LOOK % width)
    found, errors = _seen(tmp_path / "look.html", width)
    assert not errors
    assert found["texts"] > 80 and found["boxes"] == 8
    assert found["smallest"] >= 10.0  # CSS pixels; a phone's own small print has 11
    assert found["wide"] <= 0 and not found["outside"]


def _scalars():
    of_actor = {"actor/waiting_share": 0.4, "actor/unrolls": 110.0, "actor/parameter_pulls": 12.0}
    of_learner = {"learner/waiting_share": 0.02, "learner/policy_lag": 3.0}
    return {"actor-0": of_actor, "actor-1": of_actor, "learner-0": of_learner}


def _seen(look: pathlib.Path, width: int):
    """What the script has seen, and what the browser complained of."""
    command = [
        *(_CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
        *("--allow-file-access-from-files", f"--user-data-dir={look.parent}/profile"),
        *(f"--window-size={width + 100},1000", "--dump-dom", look.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_SECS)
    (title,) = re.findall(r"<title>(.*?)</title>", done.stdout)
    return json.loads(title), [line for line in done.stderr.splitlines() if "CONSOLE" in line]
