"""Runs the worker role of a program in this process: `--help` lists the flags."""

from tfdrl.launch import role


def console() -> None:
    """Entry point of the console script."""
    role.console("worker")


if __name__ == "__main__":
    console()
