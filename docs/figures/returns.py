"""Draws returns of runs, the seeds of an architecture as one curve, against frames and time:

python docs/figures/returns.py docs/figures/cartpole.png runs/cmp/*/
"""

import pathlib
import sys
from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tfdrl.reports import curves, groups, page, plot, run


def draw(path: pathlib.Path, directories: Sequence[str]) -> None:
    """Means with their 95 % intervals over seeds, as tfdrl-report computes them."""
    runs = [run.read(pathlib.Path(name)) for name in directories]
    found = groups.grouped(runs, [page.NAMES[one.architecture] for one in runs])
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    labels = {"frames": "environment frames", "seconds": "seconds of training"}
    for axes, (column, label) in zip(figure.subplots(1, 2, sharey=True), labels.items()):
        for curve, colour in zip(curves.returns(found, column), plot.COLOURS):
            axes.plot(curve.x, curve.y, color=colour, label=curve.label)
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15)
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=6)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("mean return of an evaluation")
    figure.axes[1].legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    draw(pathlib.Path(sys.argv[1]), sys.argv[2:])
