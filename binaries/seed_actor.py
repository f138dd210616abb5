"""Runs an actor of SEED RL in this process, without TensorFlow: `--help` lists the flags."""

import sys

from tfdrl.launch import role


def console() -> None:
    """Entry point of the console script; --server is another name of --learner."""
    sys.argv[1:] = [argument.replace("--server", "--learner", 1) for argument in sys.argv[1:]]
    role.console("actor")


if __name__ == "__main__":
    console()
