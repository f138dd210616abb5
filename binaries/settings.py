"""Lists what gin files may set, with defaults and meaning."""

from __future__ import annotations

import difflib
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from absl import flags

from tfdrl import configuration
from tfdrl.configuration import documented
from tfdrl.errors import EXIT_OK, ConfigurationError
from tfdrl.launch import command_line

_USAGE = """Lists what gin files may set, with defaults and meaning.

  tfdrl settings                    everything that can be set, a line each
  tfdrl settings impala adam        all settings of these
  tfdrl settings impala/cartpole    those of what this gin file sets, with its values

A setting that is "required" has no default. What the program itself passes is not listed."""

_LINE = 100


def _flags() -> flags.FlagValues:
    return flags.FlagValues()


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first) and prints; returns the exit code."""
    names = command_line.parse_arguments(_flags(), argv, _USAGE)
    if not names:
        print("\n".join(_overview(configuration.catalogue().configurables)))
    for name in names:
        print("\n".join(_page(name)))
    return EXIT_OK


def _overview(items: Iterable[configuration.Configurable]) -> list[str]:
    ours = {item.name: item for item in items if item.selector.startswith("tfdrl.")}
    width = max(map(len, ours)) + 2
    return [
        f"{name:<{width}}{textwrap.shorten(documented.summary(item), _LINE - width)}"
        for name, item in sorted(ours.items(), key=lambda pair: pair[0].lower())
    ] + ["", "and TF-Agents' own agents and networks by their names, such as DqnAgent or QNetwork"]


def _page(name: str) -> list[str]:
    """All settings of one that can be configured, or of those that a gin file uses."""
    found = documented.find(name)
    if found:
        return _settings(found, {})
    try:
        path = configuration.find_gin_file(name)
    except ConfigurationError:
        raise _unknown(name) from None
    bound = configuration.settings(configuration.check([str(path)], ()).text)
    owners = {key.rpartition(".")[0].rpartition("/")[2]: None for key in bound if "." in key}
    pages = [_settings(item, bound) for owner in owners if (item := documented.find(owner))]
    return [line for page in pages for line in (*page, "")]


def _settings(item: configuration.Configurable, bound: Mapping[str, str]) -> list[str]:
    lines = [f"{item.name}: {documented.summary(item)}"]
    for setting in documented.settings(item):
        key = f"{item.name}.{setting.name}"
        value = f" (default: {setting.default})" if key in bound else ""
        lines.append(f"  {key} = {bound.get(key, setting.default)}{value}")
        lines += textwrap.wrap(
            setting.about, _LINE, initial_indent=" " * 6, subsequent_indent=" " * 6
        )
    return lines


def _unknown(name: str) -> ConfigurationError:
    known = [item.name for item in configuration.catalogue().configurables]
    known += [file[: -len(".gin")] for file in configuration.gin_file_names()]
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else "tfdrl settings lists what there is"
    return ConfigurationError(f"{name!r} is nothing that can be set, and no gin file; {hint}")


def console() -> None:
    """Entry point of the console script."""
    sys.exit(command_line.run("tfdrl settings", main, sys.argv))


if __name__ == "__main__":
    console()
