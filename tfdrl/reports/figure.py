"""The architecture's figure with a run's numbers on it, as SVG: boxes are roles, lines talk.

Two columns, so that it can be read on a phone: those who act on the left, those who count for the
run on the right, and what is between them below.
"""

from __future__ import annotations

import html
from typing import NamedTuple

from tfdrl.reports import words
from tfdrl.reports.measured import FlowRate, Numbers
from tfdrl.topology import Program, Role

_WIDTH, _BOX, _HEIGHT = 420, 152, 98
_GAP, _MARGIN = 88, 6
_LINE = 13
#: Column and row of each role; where a program has more, they follow below.
_PLACES = {
    "actor": (0, 0),
    "worker": (0, 0),
    "evaluator": (1, 0),
    "coordinator": (1, 1),
    "replay": (0, 1),
    "learner": (1, 1),
    "parameter_server": (0, 1),
}
#: Where both are there, the learner is not the one who counts.
_PLACES_OF_BOTH = {"learner": (0, 2), "parameter_server": (1, 2)}
#: What a role sends to another that it connects to, and what comes back.
_WHAT = {
    ("learner", "replay"): ("priorities", "samples"),
    ("actor", "learner"): ("reports", "parameters"),
    ("worker", "parameter_server"): ("gradients", "parameters"),
    ("learner", "parameter_server"): ("gradients", "parameters"),
    ("actor", "parameter_server"): ("requests", "parameters"),
    ("coordinator", "parameter_server"): ("requests", "parameters"),
}
_OF_EVALUATOR = ("returns", "parameters")
_OF_REPORTS = ("reports", "replies")
_OF_SEED = ("observations", "actions")


class _Box(NamedTuple):
    """A role's place on the page."""

    column: int
    row: int

    @property
    def left(self) -> float:
        return _MARGIN if self.column == 0 else _WIDTH - _MARGIN - _BOX

    @property
    def top(self) -> float:
        return _MARGIN + self.row * (_HEIGHT + _GAP)

    @property
    def bottom(self) -> float:
        return self.top + _HEIGHT


def svg(program: Program, numbers: Numbers, bottleneck: str = "") -> str:
    """The figure of a program.

    Args:
      program: the roles and who talks to whom.
      numbers: what was measured.
      bottleneck: name of the role that is coloured; "" for none.
    """
    boxes = _boxes(program)
    height = max(box.bottom for box in boxes.values()) + _MARGIN
    parts = [
        f'<svg class="figure" viewBox="0 0 {_WIDTH} {height:g}" role="img" '
        f'aria-label="{html.escape(program.name)}: who talks to whom">'
    ]
    for role in program.roles:
        for other in role.talks_to:
            if other in boxes and other != role.name:
                flow = numbers.roles[role.name].flows.get(other)
                what = _what(program, role, other, numbers)
                parts.append(_connection(boxes[role.name], boxes[other], what, flow))
    for role in program.roles:
        is_bottleneck = role.name == bottleneck
        parts.append(_box(boxes[role.name], _lines(program, role, numbers), is_bottleneck))
    return "\n".join([*parts, "</svg>"])


def _boxes(program: Program) -> dict[str, _Box]:
    names = [role.name for role in program.roles]
    if len(names) == 1:
        return {names[0]: _Box(0, 0)}
    places = dict(_PLACES)
    if "coordinator" in names and "learner" in names:
        places |= _PLACES_OF_BOTH
    boxes = {name: _Box(*places[name]) for name in names if name in places}
    row = max((box.row for box in boxes.values()), default=-1) + 1
    for number, name in enumerate(name for name in names if name not in places):
        boxes[name] = _Box(number % 2, row + number // 2)
    return boxes


def _what(program: Program, role: Role, other: str, numbers: Numbers) -> tuple[str, str]:
    if (role.name, other) == ("actor", "replay"):
        return numbers.items, ""
    if role.name == "evaluator":
        return _OF_EVALUATOR
    if not role.needs_tensorflow and other == program.chief:
        return _OF_SEED
    if other == "coordinator":
        return _OF_REPORTS
    return _WHAT.get((role.name, other), ("sent", "received"))


def _lines(program: Program, role: Role, numbers: Numbers) -> list[str]:
    """What a box says: the role's name, then what is known of it."""
    mine = numbers.roles[role.name]
    title = role.name.replace("_", " ") + (
        f" \N{MULTIPLICATION SIGN} {role.replicas}" if role.replicas > 1 else ""
    )
    acts = role.name in ("actor", "worker") or len(program.roles) == 1 or program.threads
    trains = role.name == "learner"
    is_server = role.name == "parameter_server"
    found = [
        (acts and role.name != "evaluator", numbers.frames_rate, "{} frames/s"),
        (role.name == "actor", numbers.items_rate, f"{{}} {numbers.items}/s"),
        (role.name == "actor", numbers.pulls_rate, "{} parameter pulls/s"),
        (trains, numbers.steps_rate, "{} learner steps/s"),
        (is_server, numbers.steps_rate, "{} updates/s"),
        (is_server, numbers.dropped_rate, "{} dropped/s"),
        (trains, numbers.policy_lag, "lag {} steps"),
        (trains or is_server, numbers.gradient_age, "age of gradients {}"),
        (role.name == "replay", numbers.replay_size, "{} items"),
        (role.name == "replay", numbers.sample_age_secs, "sample age {} s"),
    ]
    lines = [
        form.format(words.number(value))
        for holds, value, form in found
        if holds and value is not None
    ]
    if mine.cpu_cores is not None:
        lines.append(f"{mine.cpu_cores:.2f} cores, {words.megabytes(mine.memory_mb)}")
    if mine.waiting_share is not None:
        lines.append(f"waits {words.share(mine.waiting_share)}")
    return [title, *lines]


def _box(box: _Box, lines: list[str], is_bottleneck: bool) -> str:
    kind = "box bottleneck" if is_bottleneck else "box"
    parts = [
        f'<rect class="{kind}" x="{box.left:g}" y="{box.top:g}" width="{_BOX}" '
        f'height="{_HEIGHT}" rx="6"/>'
    ]
    for number, text in enumerate(lines):
        kind = "title" if number == 0 else "fact"
        y = box.top + 18 + number * (_LINE + 1)
        parts.append(
            f'<text class="{kind}" x="{box.left + _BOX / 2:g}" y="{y:g}">{html.escape(text)}</text>'
        )
    return "".join(parts)


def _connection(a: _Box, b: _Box, what: tuple[str, str], flow: FlowRate | None) -> str:
    """A line from the role that connects, a, to the one that serves, b, with what passes."""
    if a.column == b.column:
        upper, lower = sorted((a, b), key=lambda box: box.row)
        x = a.left + 20
        line = _line(x, upper.bottom, x, lower.top)
        there, back = ("↓", "↑") if a.row < b.row else ("↑", "↓")
        middle = (upper.bottom + lower.top) / 2
        return line + _label(x + 7, middle, _passing(there, back, what, flow), "start")
    left, right = sorted((a, b), key=lambda box: box.column)
    middle_x = (left.left + _BOX + right.left) / 2
    if a.row == b.row:
        y = a.top + _HEIGHT / 2
        line = _line(left.left + _BOX, y, right.left, y)
        there, back = ("→", "←") if a.column < b.column else ("←", "→")
        passing = _passing(there, back, what, flow)
        half = len(passing) // 2
        above = _label(middle_x, y - 7 - _LINE * half / 2, passing[:half], "middle")
        return line + above + _label(middle_x, y + 7 + _LINE * half / 2, passing[half:], "middle")
    upper, lower = sorted((a, b), key=lambda box: box.row)
    x1 = left.left + _BOX - 12
    x2 = right.left + 12
    if upper.column == 1:
        x1, x2 = x2, x1
    line = _line(x1, upper.bottom, x2, lower.top)
    down, up = ("↘", "↖") if upper.column == 0 else ("↙", "↗")
    there, back = (down, up) if a is upper else (up, down)
    middle = (upper.bottom + lower.top) / 2
    return line + _label(middle_x, middle, _passing(there, back, what, flow), "middle")


def _passing(there: str, back: str, what: tuple[str, str], flow: FlowRate | None) -> list[str]:
    """Lines of a label: each way, what passes, and how much of it."""
    found = []
    rates = (None, None) if flow is None else (flow.sent_mb, flow.received_mb)
    for arrow, name, rate in zip((there, back), what, rates):
        if name:
            found.append(f"{arrow} {name}")
            found += [words.byte_rate(rate)] if rate is not None else []
    return found


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="link" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'


def _label(x: float, middle: float, lines: list[str], anchor: str) -> str:
    first = middle - _LINE * (len(lines) - 1) / 2 + 4
    width = 4 + 6.4 * max(map(len, lines), default=0)
    left = x - width / 2 if anchor == "middle" else x - 2
    paper = (
        f'<rect class="paper" x="{left:g}" y="{first - 12:g}" width="{width:g}" '
        f'height="{_LINE * len(lines) + 2:g}"/>'
    )
    return paper + "".join(
        f'<text class="flow" text-anchor="{anchor}" x="{x:g}" y="{first + _LINE * i:g}">'
        f"{html.escape(text)}</text>"
        for i, text in enumerate(lines)
    )
