"""Prints a script that completes the commands of tfdrl in a shell."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys
from collections.abc import Sequence

from absl import flags

from tfdrl import configuration
from tfdrl.errors import EXIT_OK, ConfigurationError
from tfdrl.launch import command_line

if __package__ == "binaries":
    from binaries.commands import COMMANDS, ROLES
else:  # installed
    from tfdrl.binaries.commands import COMMANDS, ROLES

_USAGE = """Prints what completes the commands of tfdrl, flags and gin files. Once, or in ~/.bashrc:

  eval "$(tfdrl completion bash)"

in ~/.zshrc, after compinit:

  eval "$(tfdrl completion zsh)\""""

_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"
_SCRIPT = """_tfdrl() {
  local current=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[0]##*/} flags= words=
  command=${command#tfdrl-}
  if [ "$command" = tfdrl ]; then
    command=${COMP_WORDS[1]}
    if [ "$COMP_CWORD" -eq 1 ]; then
      COMPREPLY=($(compgen -W "@COMMANDS@ --help --version" -- "$current"))
      return
    fi
  fi
  case $command in
@CASES@
  esac
  case $current in
    -*)
      COMPREPLY=($(compgen -W "$flags --help" -- "$current"))
      case "${COMPREPLY[*]}" in *=) compopt -o nospace 2>/dev/null ;; esac ;;
    *) COMPREPLY=($(compgen -W "$words" -- "$current") $(compgen -f -- "$current")) ;;
  esac
}
complete -F _tfdrl tfdrl @NAMES@
"""


def _flags() -> flags.FlagValues:
    return flags.FlagValues()


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first) and prints the script; returns the exit code."""
    rest = command_line.parse(_flags(), argv, _USAGE, allow_unknown=True)
    if len(rest) != 1 or rest[0] not in ("bash", "zsh"):
        raise ConfigurationError("name the shell: tfdrl completion bash, or zsh")
    print((_ZSH if rest == ["zsh"] else "") + _script(), end="")
    return EXIT_OK


def _script() -> str:
    gin = " ".join(name[: -len(".gin")] for name in configuration.gin_programs())
    cases = []
    for name in COMMANDS:
        found = _flags_of(name)
        words = {"completion": "bash zsh", "settings": gin}.get(name, "")
        words = gin if "--gin_file=" in found else words
        cases.append(f'    {name}) flags="{" ".join(found)}" words="{words}" ;;')
    every = [*COMMANDS, *ROLES]
    script = _SCRIPT.replace("@COMMANDS@", " ".join(every)).replace("@CASES@", "\n".join(cases))
    return script.replace("@NAMES@", " ".join(f"tfdrl-{name}" for name in every))


def _flags_of(command: str) -> list[str]:
    """The flags that the command's help tells."""
    module = importlib.import_module(f"{__package__}.{command.replace('-', '_')}")
    told = io.StringIO()
    if hasattr(module, "main"):
        with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
            module.main([command, "--help"])
    found = re.findall(r"^  (--[][\w]+=?)", told.getvalue(), re.MULTILINE)
    return [flag.replace("[no]", "") for flag in found]


def console() -> None:
    """Entry point of the console script."""
    sys.exit(command_line.run("tfdrl completion", main, sys.argv))


if __name__ == "__main__":
    console()
