"""Looks at parameter servers, and asks them for a checkpoint or a rollback."""

import sys

from tfdrl.launch import command_line, parameters


def console() -> None:
    """Entry point of the console script."""
    sys.exit(command_line.run("tfdrl parameters", parameters.main, sys.argv))


if __name__ == "__main__":
    console()
