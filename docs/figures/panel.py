"""Draws docs/figures/panel.svg from what a terminal of 100 columns showed of a run:

script -qefc 'stty cols 100; tfdrl-train --gin_file=apex/cartpole.gin' panel.typescript
python docs/figures/panel.py panel.typescript
"""

import io
import pathlib
import re
import sys

from rich import console, text

_FROM_THE_NET = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
_SHARE = 0.8  # of the run has passed in the picture


def draw(typescript: str) -> str:
    """The panel as SVG that needs nothing from a network."""
    panels = re.findall(r"╭.*?╯", typescript, re.DOTALL)
    shown = text.Text.from_ansi(panels[int(_SHARE * len(panels))].replace("\r", ""))
    recorded = console.Console(record=True, width=100, file=io.StringIO())
    recorded.print(shown)
    svg = recorded.export_svg(title="make train", unique_id="panel")
    return _FROM_THE_NET.sub("", svg)


if __name__ == "__main__":
    svg = draw(pathlib.Path(sys.argv[1]).read_text(errors="replace"))
    pathlib.Path(__file__).with_suffix(".svg").write_text(svg)
