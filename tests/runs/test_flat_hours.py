"""Once it has warmed up, no process of a run grows.

As long as TFDRL_TEST_FLAT_SECS says, 20 minutes without it, after TFDRL_TEST_WARM_UP_SECS. Many
threads take a while until each has had what it needs at once: of a slow Ape-X the replay was seen
to grow by 0.28 MB a minute from the 4th to the 14th minute, and by 0.05 from the 20th to the 80th.
"""

import contextlib
import os
import pathlib
import re
import time

import numpy as np
import pytest
from local_runs import Run

from tfdrl.launch.process import arguments_of

_WARM_UP_SECS = float(os.environ.get("TFDRL_TEST_WARM_UP_SECS", 1200.0))
_SECS = float(os.environ.get("TFDRL_TEST_FLAT_SECS", 1200.0))
_PERIOD_SECS = 2.0
_MOST = 0.1  # MB a minute
_ENDLESS = ("experiment.solved_return = None", "experiment.max_minutes = None")
_GROWS = pytest.mark.xfail(
    reason="TensorFlow's server keeps memory of calls: docs/faults.md, row 29"
)
#: A tenth of a core, and a replay that is full within the warm-up.
_SLOW_APEX = (
    *("apex.actors = 2", "apex.environments_per_actor = 2", "replay_table.max_size = 3000"),
    *("apex.actor_max_frames_per_second = 16.0", "apex.evaluation_period_secs = 60.0"),
    "experiment.evaluation_episodes = 2",
)
_RUNS = [
    ("seed/cartpole_vtrace.gin", ()),
    ("impala/cartpole.gin", ()),
    ("apex/cartpole.gin", _SLOW_APEX),
    pytest.param("a3c/cartpole.gin", (), marks=_GROWS),
]


def slope(samples):
    """Theil and Sen's: the median over all pairs, which a step or a spike hardly moves.

    Args:
      samples: (seconds, megabytes), in the order of time.

    Returns megabytes a minute.
    """
    secs, megabytes = np.array(samples).T
    first, second = np.triu_indices(len(secs), k=1)
    return 60 * np.median((megabytes[second] - megabytes[first]) / (secs[second] - secs[first]))


def _name(pid):
    """Its role and task, or what it is beside the roles."""
    arguments = dict(a.partition("=")[::2] for a in arguments_of(pid) if a.startswith("--"))
    if "--role" in arguments:
        return f"{arguments['--role']} {arguments['--task']}"
    return f"launcher or fork server {pid}"


def _megabytes(pid):
    """Of memory that is its own."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) / 1024


def test_the_slope_is_robust():
    random = np.random.default_rng(1)
    samples = [(2.0 * i, 200 + 0.2 * i / 30 + random.normal() / 10) for i in range(300)]
    assert slope(samples) == pytest.approx(0.2, abs=0.02)
    flat = [(secs, 200 + 8 * (i > 150) + 30 * (i % 10 == 0)) for i, (secs, _) in enumerate(samples)]
    assert slope(flat[:140]) == 0


@pytest.mark.slow
@pytest.mark.timeout(_WARM_UP_SECS + _SECS + 300)
@pytest.mark.parametrize(("gin_file", "more"), _RUNS)
def test_no_role_grows(tmp_path, gin_file, more):
    bindings = [f"--gin_bindings={text}" for text in (*_ENDLESS, *more)]
    run, found = Run(gin_file, tmp_path / "run", *bindings), {}
    try:
        start_secs = time.monotonic()
        while (secs := time.monotonic() - start_secs) < _WARM_UP_SECS + _SECS:
            assert run.popen.poll() is None, run.output
            for pid in run.processes() if secs > _WARM_UP_SECS else ():
                with contextlib.suppress(OSError):
                    found.setdefault(_name(pid), []).append((secs, _megabytes(pid)))
            time.sleep(_PERIOD_SECS)
    finally:
        run.kill()
    slopes = {name: slope(samples) for name, samples in sorted(found.items())}
    page = "".join(
        f"\n{name:32}{value:+8.3f} MB a minute, {found[name][0][1]:.1f} to {found[name][-1][1]:.1f}"
        for name, value in slopes.items()
    )
    print(f"\n{gin_file}, {_SECS:g} s:{page}")
    assert len(slopes) >= 5
    assert all(len(samples) > 0.5 * _SECS / _PERIOD_SECS for samples in found.values())
    assert max(slopes.values()) < _MOST, page
