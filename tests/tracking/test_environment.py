"""The environment that docs/tracking.md makes has all that the extra names."""

import re

from paths import CHECKOUT


def test_the_page_installs_what_the_extra_names():
    listed = re.search(r"^TRACK = \[(.*)\]$", (CHECKOUT / "setup.py").read_text(), re.MULTILINE)[1]
    page = (CHECKOUT / "docs" / "tracking.md").read_text()
    installed = re.search(r"pip install (absl-py.*?) mlflow-skinny", page)[1]
    assert installed.split() == re.findall(r'"([\w-]+)"', listed)
