"""Writes docs/environments.md, the table of what environments may return, from the tests' cases."""

import pathlib

import numpy as np
from odd_environments import CASES

from tfdrl.environments import gym_environment
from tfdrl.errors import TfdrlError

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "environments.md"
_HEAD = """# What environments may return

Written by `python tests/support/environments_page.py` from the cases that
tests/environments/test_returned.py checks. What is refused ends the role with this sentence: exit
code 2 where it does not fit its space, 1 where a number is not finite. Environments in this process
and in processes of their own agree.
"""


def text() -> str:
    """The page as it should be."""
    lines = [_HEAD.rstrip()]
    for group, cases in CASES.items():
        lines += ["", f"## {group.capitalize()}", "", "| space | what comes | what happens |"]
        lines += ["|---|---|---|"]
        for number, case in enumerate(cases):
            space = str(case.space).replace("|", "/")
            lines.append(f"| `{space}` | {case.what} | {_happens(group, number)} |")
    return "\n".join(lines) + "\n"


def _happens(group: str, number: int) -> str:
    with gym_environment(
        num_envs=2,
        training=True,
        seed=1,
        id="tests/Odd-v0",
        kwargs={"group": group, "number": number},
        vectorization="sync",
    ) as environment:
        try:
            environment.reset()
            environment.step(np.full(2, number, np.int32))
        except TfdrlError as error:
            return f"refused, {error.exit_code}: {str(error).replace('|', '/')}"
    return "taken"


if __name__ == "__main__":
    PAGE.write_text(text())
