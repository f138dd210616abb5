"""Looks at parameter servers, and asks them for a checkpoint or a rollback."""

import sys

from tfdrl.launch import command_line, process
from tfdrl.launch.tools import parameters


def console() -> None:
    """Entry point of the console script."""
    # TensorFlow's sessions have threads, which must not outlive the interpreter.
    process.leave(command_line.run("tfdrl parameters", parameters.main, sys.argv))


if __name__ == "__main__":
    console()
