"""Runs the parameter server role of a program in this process: `--help` lists the flags."""

from tfdrl.launch import role


def console() -> None:
    """Entry point of the console script."""
    role.console("parameter_server")


if __name__ == "__main__":
    console()
