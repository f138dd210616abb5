"""Ape-X on CartPole-v1 on a quiet machine and beside one busy loop per core: the same training.

  python tests/support/replay_ratio_runs.py runs/replay_ratio docs/figures/replay_ratio.png

runs three seeds of each, prints a table, and draws return against frames. Runs that are there
already are not repeated.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

from paths import CHECKOUT

GIN_FILE = "apex/cartpole.gin"
SEEDS = (1, 2, 3)
MACHINES = ("quiet", "busy")
#: batch_size / replay_ratio of the gin file, and its min_size.
FRAMES_PER_STEP, FRAMES_BEFORE = 128 / 8, 1000
_LIMIT_SECS = 900.0


class Result(NamedTuple):
    """One run: `wall_secs` is the whole command's."""

    machine: str
    seed: int
    reason: str
    wall_secs: float
    training_secs: float
    frames: int
    learner_steps: int

    @property
    def frames_per_step(self) -> float:
        """Since learning began: without those that fill the replay before."""
        return (self.frames - FRAMES_BEFORE) / max(self.learner_steps, 1)


@contextlib.contextmanager
def busy_loops(count: int):
    """So many processes, of normal niceness, that compute for as long as this lasts."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def run(machine: str, seed: int, root_dir: pathlib.Path) -> Result:
    """Trains, unless that was done. Raises CalledProcessError with what was printed."""
    done = root_dir / "measured.json"
    if not done.exists():
        command = [
            *(sys.executable, "-m", "binaries.train", f"--gin_file={GIN_FILE}"),
            *(f"--root_dir={root_dir}", f"--gin_bindings=experiment.seed = {seed}"),
        ]
        loops = os.cpu_count() if machine == "busy" else 0
        with busy_loops(loops):
            start_secs = time.monotonic()
            subprocess.run(
                command, cwd=CHECKOUT, check=True, timeout=_LIMIT_SECS, capture_output=True
            )
            wall_secs = time.monotonic() - start_secs
        done.write_text(json.dumps({"wall_secs": wall_secs}))
    wall_secs = json.loads(done.read_text())["wall_secs"]
    result = json.loads((root_dir / "result.json").read_text())
    return Result(
        *(machine, seed, result["reason"], wall_secs, result["training_secs"]),
        *(result["frames"], result["learner_steps"]),
    )


def table(results: list[Result]) -> str:
    """In Markdown; the last row has the times of the busy machine over those of the quiet one."""
    rows = ["| machine | seed | wall time | frames | learner steps | frames per step |"]
    rows.append("|---|---|---|---|---|---|")
    for r in results:
        rows.append(
            f"| {r.machine} | {r.seed} | {r.wall_secs:.0f} s | {r.frames:,} | "
            f"{r.learner_steps:,} | {r.frames_per_step:.1f} |"
        )
    return "\n".join([*rows, f"\nbusy / quiet, medians: {slowdown(results):.1f}"])


def slowdown(results: list[Result]) -> float:
    """Wall time beside busy loops over that on the quiet machine, medians of the seeds."""
    quiet, busy = (
        statistics.median(r.wall_secs for r in results if r.machine == machine)
        for machine in MACHINES
    )
    return busy / quiet


def draw(results: list[Result], root_dir: pathlib.Path, path: pathlib.Path) -> None:
    """Return against environment frames, a line for each run."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from tfdrl.launch import curves

    figure = Figure(figsize=(8, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for r in results:
        rows = curves.read(root_dir / f"{r.machine}-{r.seed}")
        color, style = ("C0", "-") if r.machine == "quiet" else ("C1", "--")
        label = "quiet machine" if r.machine == "quiet" else "beside one busy loop per core"
        x, mean = ([row[name] for row in rows] for name in ("frames", "mean"))
        axes.plot(x, mean, style, color=color, marker=".", label=label if r.seed == 1 else None)
    axes.axhline(475.0, linestyle=":", color="gray")
    axes.set_xlabel("environment frames")
    axes.set_ylabel("evaluation return (100 episodes)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def main(root_dir: pathlib.Path, figure: pathlib.Path | None) -> list[Result]:
    """All six runs, one after another."""
    results = []
    for machine in MACHINES:
        for seed in SEEDS:
            results.append(run(machine, seed, root_dir / f"{machine}-{seed}"))
            print(f"{results[-1]}, load {os.getloadavg()[0]:.1f}", flush=True)
    print(table(results))
    if figure is not None:
        draw(results, root_dir, figure)
    return results


if __name__ == "__main__":
    sys.path.insert(0, str(CHECKOUT))
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None)
