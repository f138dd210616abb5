"""How a role ends: exceptions that carry an exit code, the codes, and a check that raises one."""

from __future__ import annotations

EXIT_OK = 0  # finished, or told to stop
EXIT_FAILED = 1  # failed while running: worth a restart
EXIT_CONFIGURATION = 2  # wrong configuration: a restart will not help
EXIT_DIVERGED = 3  # training diverged (non-finite losses)

#: Begins what a role's log says to its user; the launcher shows it on the console, too.
NOTICE = "NOTICE: "


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


class RunFailedError(TfdrlError):
    """A run that `tfdrl.train` has started has failed.

    Attributes:
      root_dir: of the run, which may be continued.
      last_lines: of the log of the role that ended it; empty if none did.
    """

    def __init__(self, text: str, root_dir: str = "", last_lines: str = "") -> None:
        super().__init__(f"{text}; its last lines:\n{last_lines}" if last_lines else text)
        self.root_dir, self.last_lines = root_dir, last_lines


class RoleFailedError(RunFailedError):
    """A role has failed, and the run could not go on without it."""


class TrainingDivergedError(RunFailedError):
    """The run has ended because its losses or gradients were not finite."""

    exit_code = EXIT_DIVERGED


def text_of(error: Exception) -> str:
    """What an error tells its user, without the lines about nested calls that gin appends."""
    return str(error).split("\n  In call to configurable")[0]


def require_at_least_one(settings, scope: str, names: str) -> None:
    """Raises ConfigurationError for the first of the named settings that is not 1 or more.

    Args:
      settings: has them as attributes.
      scope: their name in gin, such as "apex".
      names: of the settings, with spaces between them.
    """
    for name in names.split():
        if not getattr(settings, name) >= 1:  # "not", for NaN
            raise ConfigurationError(
                f"{scope}.{name} = {getattr(settings, name)} must be 1 or more"
            )
