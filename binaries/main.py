"""`tfdrl COMMAND ...`: the one command that has all the others."""

from __future__ import annotations

import difflib
import importlib
import sys

from tfdrl.errors import EXIT_CONFIGURATION, EXIT_OK

if __package__ == "binaries":
    from binaries.commands import COMMANDS, ROLES
else:  # installed
    from tfdrl.binaries.commands import COMMANDS, ROLES

_HELP = ("-h", "--help", "-help", "help")
_USAGE = """tfdrl: distributed deep reinforcement learning on TensorFlow and TF-Agents.

  tfdrl train impala/cartpole                 until it is solved, in a new directory of runs/
  tfdrl train apex/cartpole --root_dir=runs/a
  tfdrl COMMAND --help                        flags, examples and exit codes
"""


def _help() -> str:
    lines = [_USAGE]
    for title, table in (("Commands", COMMANDS), ("Roles, started one by one", ROLES)):
        width = max(map(len, [*COMMANDS, *ROLES])) + 2
        lines.append(f"{title}:")
        lines += [f"  {name:<{width}}{about}" for name, about in table.items()] + [""]
    return "\n".join(lines) + "tfdrl-NAME is the same as tfdrl NAME; --version tells the version."


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, [*COMMANDS, *ROLES], n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(COMMANDS)}"
    return f"tfdrl: {name!r} is no command; {hint}"


def console() -> None:
    """Entry point of the console script: hands on to that of the command."""
    name = sys.argv[1] if len(sys.argv) > 1 else "help"
    if name in _HELP:
        print(_help())
        sys.exit(EXIT_OK)
    if name == "--version":
        from tfdrl.launch import command_line

        print(command_line.version())
        sys.exit(EXIT_OK)
    if name not in {**COMMANDS, **ROLES}:
        print(_unknown(name), file=sys.stderr)
        sys.exit(EXIT_CONFIGURATION)
    sys.argv = [f"tfdrl-{name}", *sys.argv[2:]]
    importlib.import_module(f"{__package__}.{name.replace('-', '_')}").console()


if __name__ == "__main__":
    console()
