"""The command line of every binary: absl flags, help that fits a page, exit code 2 on a typo."""

from __future__ import annotations

import difflib
import errno
import math
import os
import pathlib
import platform
import signal
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence

from absl import flags

from tfdrl import __version__
from tfdrl.errors import (
    EXIT_CONFIGURATION,
    EXIT_FAILED,
    EXIT_OK,
    ConfigurationError,
    TfdrlError,
    text_of,
)
from tfdrl.launch import output

_VERSION = "--version"
_HELP = {"-h", "-help", "--help", "-?", "--helpfull", "--helpshort"}


def gin_flags(values: flags.FlagValues) -> None:
    """Defines the flags that say what to run."""
    about = "Gin file, by path or by name, such as apex/cartpole.gin."
    flags.DEFINE_multi_string("gin_file", [], about, flag_values=values)
    flags.DEFINE_multi_string(
        "gin_bindings", [], "One setting more, such as 'apex.actors = 8'.", flag_values=values
    )


def float_flag(
    values: flags.FlagValues,
    name: str,
    default: float | None,
    about: str,
    lowest: float,
    highest: float = math.inf,
) -> None:
    """Defines a flag for a finite number within bounds, which are said; nan is in no bounds."""
    flags.DEFINE_float(name, default, about, flag_values=values)
    bounds = f"from {lowest:g} to {highest:g}" if highest < math.inf else f"of at least {lowest:g}"
    flags.register_validator(
        name,
        lambda value: value is None or (lowest <= value <= highest and math.isfinite(value)),
        f"must be a finite number {bounds}",
        flag_values=values,
    )


def parse(
    values: flags.FlagValues, argv: Sequence[str], usage: str, allow_unknown: bool = False
) -> list[str]:
    """Parses `argv` (program name first) into `values`.

    Prints the help, or the version, and exits 0 if it is asked for.

    Args:
      values: flags of this binary.
      argv: program name, then arguments.
      usage: what the program does, for the help.
      allow_unknown: returns arguments that are no flag of `values` instead of refusing them.

    Raises:
      ConfigurationError: unknown flag (with the nearest one) or wrong value.
    """
    if _HELP & set(argv[1:]):
        print(_help(values, usage))
        sys.exit(EXIT_OK)
    if _VERSION in argv[1:]:
        print(version())
        sys.exit(EXIT_OK)
    values.set_gnu_getopt(True)  # flags may follow "--learner host:port"
    try:
        rest = list(values(list(argv), known_only=True))[1:]
    except flags.Error as error:
        raise ConfigurationError(str(error)) from None
    if rest and not allow_unknown:
        raise unknown_argument(rest[0], values)
    # A plug-in's absl flags (none are ours) must be readable: mark them as parsed.
    flags.FLAGS(list(argv[:1]), known_only=True)
    return rest


def parse_gin_files(values: flags.FlagValues, argv: Sequence[str], usage: str) -> None:
    """As `parse`; an argument that is no flag is one gin file more, such as apex/cartpole."""
    names = parse_arguments(values, argv, usage)
    values.gin_file = [*values.gin_file, *names]


def parse_arguments(values: flags.FlagValues, argv: Sequence[str], usage: str) -> list[str]:
    """As `parse`; returns the arguments that are no flags, in their order."""
    rest = parse(values, argv, usage, allow_unknown=True)
    for argument in rest:
        if argument.startswith("-"):
            raise unknown_argument(argument, values)
    return rest


def unknown_argument(
    argument: str, known: Iterable[str], explanation: str = ""
) -> ConfigurationError:
    """The error for an argument that nobody knows, naming the nearest flag."""
    name = argument.lstrip("-").partition("=")[0]
    if not argument.startswith("-"):
        return ConfigurationError(f"{argument!r} is not a flag; flags look like --root_dir=runs/a")
    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean --{near[0]}?" if near else "--help lists the flags"
    return ConfigurationError(f"unknown flag --{name}{explanation}; {hint}")


def version() -> str:
    """What --version tells."""
    return f"tfdrl {__version__} (Python {platform.python_version()})"


def _help(values: flags.FlagValues, usage: str) -> str:
    lines = [usage.strip(), "", "Flags:"]
    for flag in (flag for defined in values.flags_by_module_dict().values() for flag in defined):
        words, semicolon, _ = flag.help.partition(";\n")  # absl's words for a repeated flag
        words += " May be given several times." if semicolon else ""
        if flag.default not in (None, [], False, ""):
            words += f" Default: {flag.default}."
        lines.append(f"  --[no]{flag.name}" if flag.boolean else f"  --{flag.name}=...")
        lines += textwrap.wrap(words, 90, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


#: What shells give for SIGINT.
_INTERRUPTED = 128 + signal.SIGINT


def run(program: str, main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Calls `main(argv)`; a TfdrlError becomes "program: text" on stderr and its exit code.

    So does Ctrl-C, whose exit code is 130, as in a shell.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError:
        print(f"{program}: the current directory is there no more; go to another", file=sys.stderr)
        return EXIT_CONFIGURATION
    # As `python -m` does: a gin file may import a package of the current directory.
    if here not in (str(pathlib.Path(entry or ".").resolve()) for entry in sys.path):
        sys.path.insert(0, here)
    try:
        code = main(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except TfdrlError as error:
        print(f"{program}: {text_of(error)}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read has read enough: `--list | head -3`
        output.discard(sys.stdout)  # what is left would fail at exit
        return EXIT_OK
    except OSError as error:
        if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"{program}: what it writes has no room: {error.strerror}", file=sys.stderr)
        output.discard(sys.stdout)
        return EXIT_FAILED
    except KeyboardInterrupt:  # before anybody counts signals, or somewhere that does not
        print(f"{program}: interrupted", file=sys.stderr)
        return _INTERRUPTED
