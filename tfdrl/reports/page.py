"""report.html: one self-contained page about some runs, for a screen, a phone and paper."""

from __future__ import annotations

import html
import pathlib
import shlex
from collections.abc import Sequence

from tfdrl.errors import ConfigurationError
from tfdrl.reports import comparison, curves, figure
from tfdrl.reports import findings as findings_of_run
from tfdrl.reports import run as run_of
from tfdrl.reports.groups import Group, grouped
from tfdrl.reports.run import Run
from tfdrl.reports.style import CSS

FILE = "report.html"
#: Architectures as the papers call them.
NAMES = {
    "dqn": "DQN",
    "gorila": "Gorila",
    "a3c": "A3C",
    "apex": "Ape-X",
    "r2d2": "R2D2",
    "impala": "IMPALA",
    "seed": "SEED RL",
}


def text(
    runs: Sequence[Run], labels: Sequence[str] | None = None, remarks: Sequence[str] = ()
) -> str:
    """The page about the runs.

    Args:
      runs: one at least. Those of different tasks are drawn apart.
      labels: of each; runs with the same one are seeds of one setting. None: by their settings.
      remarks: what a reader must know before anything else.
    """
    groups = grouped(runs, labels or labels_of(runs))
    tasks: dict[str, list[Group]] = {}
    for group in groups:
        tasks.setdefault(group.task, []).append(group)
    title = _title(groups, list(tasks))
    parts = [f"<h1>{html.escape(title)}</h1>", *_remarks(runs, list(tasks), remarks)]
    for task, mine in tasks.items():
        heading = f"<h2>{html.escape(task)}</h2>" if len(tasks) > 1 else ""
        parts.append(f"<section>{heading}{_about(mine)}</section>")
    parts.append(f"<section><h2>What ran</h2>{''.join(map(_what_ran, groups))}</section>")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{CSS}</style></head>\n"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def write(path: pathlib.Path, page: str) -> None:
    """Writes the page, whole or not at all. Raises OSError."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)


def of_directories(directories: Sequence[str], output: str = "") -> pathlib.Path:
    """Writes the page about runs that there are; returns its path.

    Args:
      directories: of the runs.
      output: its path; empty: report.html in the run's directory, of several in the current one.

    Raises ConfigurationError for a directory that is no run, or a path that cannot be written.
    """
    runs = [run_of.read(pathlib.Path(name)) for name in dict.fromkeys(directories)]
    default = runs[0].directory / FILE if len(runs) == 1 else pathlib.Path(FILE)
    path = pathlib.Path(output) if output else default
    try:
        write(path, text(runs))
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}; choose another --output"
        ) from None
    return path


def labels_of(runs: Sequence[Run]) -> list[str]:
    """Of each run: its architecture, where the settings of that are the same but for the seed."""
    settings = [_without_seed(run.config) for run in runs]
    by_architecture: dict[str, set[str]] = {}
    for run, mine in zip(runs, settings):
        by_architecture.setdefault(run.architecture, set()).add(mine)
    names = [NAMES.get(run.architecture, run.architecture) for run in runs]
    return [
        name if len(by_architecture[run.architecture]) == 1 else run.name
        for run, name in zip(runs, names)
    ]


def _without_seed(config: str) -> str:
    lines = config.splitlines()
    return "\n".join(line for line in lines if not line.startswith("experiment.seed"))


def _title(groups: Sequence[Group], tasks: Sequence[str]) -> str:
    what = groups[0].label if len(groups) == 1 else f"{len(groups)} settings side by side"
    return f"{what} on {tasks[0]}" if len(tasks) == 1 else f"{what}, {len(tasks)} tasks"


def _remarks(runs: Sequence[Run], tasks: Sequence[str], more: Sequence[str]) -> list[str]:
    """What a reader must know before anything else."""
    found = list(more)
    if len(tasks) > 1:
        found.append(
            f"These runs are of {len(tasks)} different tasks, which are drawn apart: their "
            "returns cannot be compared."
        )
    going = [run.name for run in runs if run.goes_on]
    if going:
        found.append(f"Still going on, and drawn so far: {', '.join(going)}.")
    without = [run.name for run in runs if not run.evaluations]
    if without:
        found.append(
            f"Without any evaluation, so that nothing is known of their returns: "
            f"{', '.join(without)}."
        )
    cut = [run.name for run in runs if not run.goes_on and not run.result]
    if cut:
        found.append(f"Ended without a result (killed, or not begun): {', '.join(cut)}.")
    return [f'<p class="remark">{html.escape(sentence)}</p>' for sentence in found]


def _about(groups: Sequence[Group]) -> str:
    """Everything about the groups of one task."""
    if len(groups) == 1 and len(groups[0].runs) == 1:
        sentences = findings_of_run.findings(groups[0].runs[0], groups[0].numbers[0])
    else:
        sentences = comparison.findings(groups)
    items = "".join(f"<li>{_unbroken(sentence)}</li>" for sentence in sentences)
    figures = "".join(map(_figure, groups))
    charts = "".join(
        f"<figure><figcaption>{html.escape(title)}</figcaption>{svg}</figure>"
        for title, svg in curves.charts(groups)
    )
    return (
        f'<h3>Findings</h3><ul class="findings">{items}</ul>'
        f'<h3>Who talks to whom</h3><div class="grid">{figures}</div>'
        f'<h3>Curves</h3><div class="grid">{charts}</div>{_of_curves(groups)}'
        f"<h3>In numbers</h3>{_table(groups)}"
    )


def _unbroken(sentence: str) -> str:
    """As HTML, in which a number and its "%" stay on one line."""
    return html.escape(sentence).replace(" %", "&nbsp;%")


def _figure(group: Group) -> str:
    run, numbers = group.runs[group.shown], group.numbers[group.shown]
    found = findings_of_run.bottleneck(run, numbers)
    of = f" (run {run.name})" if len(group.runs) > 1 else ""
    svg = figure.svg(run.program, numbers, found.role)
    return (
        f"<figure><figcaption>{html.escape(group.label + of)}</figcaption>{svg}"
        f'<p class="note">{_unbroken(found.words)}</p></figure>'
    )


def _of_curves(groups: Sequence[Group]) -> str:
    many = any(len(group.runs) > 1 for group in groups)
    band = (
        "95 % bootstrap intervals of the mean over seeds"
        if many
        else "two standard errors of the mean over the episodes of an evaluation"
    )
    shown = " Lag and waiting are of the runs whose figures are shown." if many else ""
    target = groups[0].runs[0].facts.solved_return
    line = "" if target is None else f" The dashed line is the target, {target:g}."
    return f'<p class="note">Bands are {band}.{line}{shown}</p>'


def _table(groups: Sequence[Group]) -> str:
    """A row for each group; on a narrow page, where there is no head, each cell has its own."""
    head, *rows = comparison.rows(groups)
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = []
    for row in rows:
        first, *rest = row
        values = "".join(
            f'<td data-head="{html.escape(name)}">{html.escape(value) or "&ndash;"}</td>'
            for name, value in zip(head[1:], rest)
        )
        lines.append(f"<tr><th>{html.escape(first)}</th>{values}</tr>")
    return (
        f'<table class="wide"><thead><tr>{cells}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
        '<p class="note">Final return: mean over the evaluations of the last quarter of the '
        "frames, then over seeds, with the 95 % stratified bootstrap interval. Rates are means "
        "over the training, without its start-up. Bytes are those on the wire, both ways.</p>"
    )


def _what_ran(group: Group) -> str:
    run = group.runs[0]
    facts = run.facts
    seeds = ", ".join(str(run.facts.seed) for run in group.runs)
    rows = {
        "seeds" if len(group.runs) > 1 else "seed": seeds,
        "ended": "; ".join(
            dict.fromkeys(str(r.result.get("reason", "not yet")) for r in group.runs)
        ),
        "limits": ", ".join(f"{name} = {value:g}" for name, value in facts.limits.items()),
        "machine": ", ".join(f"{name} {value}" for name, value in facts.machine.items()),
        "versions": ", ".join(f"{name} {value}" for name, value in facts.versions.items()),
        "directory": str(run.directory),
    }
    listed = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>"
        for name, value in rows.items()
        if value
    )
    return (
        f"<details><summary>{html.escape(group.label)}</summary><dl>{listed}</dl>"
        "<p>To repeat it, with another --root_dir:</p>"
        f"<pre>{html.escape(shlex.join(facts.command))}</pre>"
        f"<p>Its gin settings:</p><pre>{html.escape(run.config)}</pre></details>"
    )
