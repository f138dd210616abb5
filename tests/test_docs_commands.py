"""Every command on a page is one that its program takes: flags, gin file, bindings, addresses.

What a command then does is shown by the tests of that program; which ones cannot be run here (no
Docker, no cluster) is said under "What was tried" of their pages.
"""

import importlib
import pathlib
import re
import shlex

import gin
import pytest

from binaries.commands import COMMANDS
from tfdrl import configuration
from tfdrl.experiment import Experiment
from tfdrl.launch import command_line, role_addresses, role_flags

_CHECKOUT = pathlib.Path(__file__).resolve().parents[1]
_PAGES = [
    *sorted(_CHECKOUT.glob("*.md")),
    *sorted((_CHECKOUT / "docs").rglob("*.md")),
    *sorted((_CHECKOUT / "policies").rglob("*.md")),
]
_ROLES = {  # of the binaries that run one role
    "seed_learner": "learner",
    "seed_actor": "actor",
    "replay_server": "replay",
    "learner": "learner",
    "actor": "actor",
    "evaluator": "evaluator",
    "parameter_server": "parameter_server",
    "coordinator": "coordinator",
    "worker": "worker",
}
# "tfdrl" is an image, after --entrypoint.
_CALL = re.compile(r"(?:^|[\s\"(&])(tfdrl-[a-z-]+ +(?!tfdrl )[-\w/].*|python -m binaries\..*)")
#: The gin file that pages give to the reader's own.
_READERS_OWN = {"mine.gin"}
#: Directories that pages tell to go to.
_EXAMPLES = (_CHECKOUT / "tests" / "plugins", *sorted((_CHECKOUT / "examples").iterdir()))


def _texts(page):
    """The lines of code blocks that name no language, and what stands between backticks."""
    text = page.read_text()
    for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from re.sub(r"\\\n", " ", block).splitlines()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", prose))


def _commands(page):
    """(binary, arguments) of each call of a program of ours on a page."""
    for line in _texts(page):
        line = re.sub(rf"\btfdrl ({'|'.join(COMMANDS)})\b", r"tfdrl-\1", line)
        for call in re.findall(_CALL, line):
            words = _words(call)
            name, rest = (
                (words[2][9:], words[3:]) if words[0] == "python" else (words[0][6:], words[1:])
            )
            if rest and (_CHECKOUT / "binaries" / f"{name.replace('-', '_')}.py").exists():
                yield name.replace("-", "_"), rest


def _words(call):
    try:
        words = shlex.split(call, comments=True)
    except ValueError:  # it stood between quotes, whose end is left
        words = shlex.split(call.rpartition('"')[0], comments=True)
    ends = [i for i, word in enumerate(words) if word in ("|", ">", "&&", "...", "~")]
    words = words[: min(ends, default=len(words))]
    return [word for word in words if not word.startswith("$")]


def _cases():
    found = {}
    for page in _PAGES:
        for binary, arguments in _commands(page):
            found.setdefault((binary, *arguments), page.name)
    return found


_CASES = _cases()


def test_the_pages_have_commands():
    assert len(_CASES) > 50
    assert {"train", "evaluate", "benchmark", "manifests", "watch", *_ROLES} <= {
        b for b, *_ in _CASES
    }


@pytest.mark.parametrize("case", _CASES, ids=lambda case: f"{_CASES[case]}-{case[0]}")
def test_command_is_one_that_its_program_takes(case):
    binary, *arguments = case
    role = _ROLES.get(binary)
    if role:
        values = role_flags.define(role)
        arguments = [argument.replace("--server", "--learner", 1) for argument in arguments]
    else:
        module = "tfdrl.launch.tools.parameters" if binary == "parameters" else f"binaries.{binary}"
        values = importlib.import_module(module)._flags()
    for elided in (word for word in arguments if "..." in word):
        assert elided.lstrip("-").partition("=")[0] in {*values, *_ROLES.values()}
    arguments = [word for word in arguments if "..." not in word]
    if "gin_file" in values and not role:
        rest = command_line.parse_gin_files(values, [binary, *arguments], "")
    else:
        rest = command_line.parse(values, [binary, *arguments], "", allow_unknown=True)
    gin_files = values.flag_values_dict().get("gin_file") or []
    given = role_flags.addresses(rest, values) if role else {}
    if isinstance(gin_files, str) or not gin_files or set(gin_files) & _READERS_OWN:
        return
    program = _program(gin_files, values.gin_bindings)
    if role and program:
        this = program.role(role)
        assert set(role_addresses.resolve_addresses(program, this, given)) == set(this.talks_to)
        assert (values.task or 0) < this.replicas and (this.serves or not values.listen)


def _program(gin_files, bindings):
    """The program of a gin file that ships with tfdrl; the examples have tests of their own."""
    if any((directory / name).exists() for directory in _EXAMPLES for name in gin_files):
        return None
    with gin.unlock_config():
        gin.clear_config()
        configuration.load(gin_files, bindings, tensorflow=False)
        return Experiment().architecture.program()
