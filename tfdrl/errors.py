"""How a role ends: exceptions that carry an exit code, and the codes themselves."""

from __future__ import annotations

EXIT_OK = 0  # finished, or told to stop
EXIT_FAILED = 1  # failed while running: worth a restart
EXIT_CONFIGURATION = 2  # wrong configuration: a restart will not help
EXIT_DIVERGED = 3  # training diverged (non-finite losses)


class TfdrlError(Exception):
    """A failure whose text is meant for the user: printed without a traceback."""

    exit_code = EXIT_FAILED


class ConfigurationError(TfdrlError):
    """The configuration cannot work; says what was wrong, where, and what would be right."""

    exit_code = EXIT_CONFIGURATION


class UnavailableError(TfdrlError):
    """Another role did not answer within the stated time."""

    exit_code = EXIT_FAILED


class DivergedError(TfdrlError):
    """Losses or gradients were not finite too many times in a row."""

    exit_code = EXIT_DIVERGED
