"""Runs the learner of SEED RL in this process: `--help` lists the flags."""

from tfdrl.launch import role


def console() -> None:
    """Entry point of the console script."""
    role.console("learner")


if __name__ == "__main__":
    console()
