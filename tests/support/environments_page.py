"""Writes docs/environments.md, the table of what environments may return, from the tests' cases."""

import pathlib

import numpy as np
from agent_spaces import ACTIONS, AGENTS, OBSERVATIONS
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
_SPACES = """
## Spaces by agent

What each agent takes with the networks of its gin file, as tests/runtime/test_agents_by_space.py
checks: built for the space, it acts. What is refused is so before training (exit code 2), by a
sentence with the words of the number behind it, which says what would be right. `NStepDqnAgent` is
that of DQN, Ape-X and Gorila; PPO, SAC, TD3 and DDPG are TF-Agents'. Parts of a Dict or a Tuple may
be of any of the others.
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
    return "\n".join([*lines, *_spaces_by_agent()]) + "\n"


def _spaces_by_agent() -> list[str]:
    lines = [_SPACES.rstrip(), "", *_header("observation")]
    lines += [_row(name, ["taken"] * len(AGENTS)) for name in OBSERVATIONS]
    lines += ["", *_header("action")]
    words = list(dict.fromkeys(w for agent in AGENTS.values() for w in agent.refusals.values()))
    for name in ACTIONS:
        refusals = [agent.refusals.get(name) for agent in AGENTS.values()]
        cells = [f"refused ({words.index(w) + 1})" if w else "taken" for w in refusals]
        lines.append(_row(name, cells))
    return [*lines, "", *(f"{number}. {text}" for number, text in enumerate(words, start=1))]


def _header(what: str) -> list[str]:
    return [_row(what, [f"`{name}`" for name in AGENTS]), "|---" * (1 + len(AGENTS)) + "|"]


def _row(first: str, cells: list[str]) -> str:
    return f"| {first} | {' | '.join(cells)} |"


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
