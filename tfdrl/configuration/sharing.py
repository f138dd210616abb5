"""What several programs heed of the bindings that were given for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tfdrl.configuration.checking import without_effect
from tfdrl.errors import ConfigurationError


def unheeded(
    programs: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    given: Sequence[str],
    say: Callable[[str], None],
) -> dict[str, dict[str, str]]:
    """For each program those of its bindings that it would not heed, with the reasons.

    Args:
      programs: gin files and bindings, by what people call them.
      given: bindings of all.
      say: is told which program does without which of these.

    Raises ConfigurationError for one of `given` that nobody heeds; as `check`, for all else.
    """
    found = {name: without_effect(*program) for name, program in programs.items()}
    for binding in given:
        reasons = {name: ignored[binding] for name, ignored in found.items() if binding in ignored}
        if len(reasons) == len(programs):
            first, *others = reasons
            more = f", and so with {', '.join(others)}" if others else ""
            raise ConfigurationError(
                f"--gin_bindings='{binding}': with {first} {reasons[first]}{more}"
            )
        for name, reason in reasons.items():
            say(f"{name}: {reason}")
    return found
