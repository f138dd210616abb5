"""The commands of tfdrl, a line each: what `tfdrl` runs, lists, and completes.

Each is the module of this package that has its name, with _ for -, and is installed as
tfdrl-NAME, too.
"""

#: For people, in the order of `tfdrl --help`.
COMMANDS = {
    "train": "train until a gin file's target or a limit is reached",
    "watch": "look at a run that is under way",
    "runs": "list the runs of a directory: state, results, settings that differ",
    "evaluate": "play whole episodes with what a run has learnt; record a video",
    "report": "write a page about a run: figure, curves, findings, what ran",
    "track": "send a run to MLflow or Weights & Biases, or into tables",
    "settings": "what gin files may set: meaning, and default",
    "benchmark": "measure how fast the parts and the whole are on this machine",
    "compare": "train architectures, or values of a setting, side by side, and write a page",
    "plan": "predict how fast a program would be on other machines",
    "manifests": "write a program for Kubernetes, Compose or Slurm",
    "health": "ask a role whether it is well",
    "parameters": "look at parameter servers; ask for a checkpoint or a rollback",
    "completion": "print what completes these commands in bash or zsh",
}

#: The roles of a program, started one by one.
ROLES = {
    "learner": "of DQN, Ape-X, R2D2, IMPALA, Gorila",
    "actor": "of Ape-X, R2D2, IMPALA, Gorila",
    "replay-server": "Reverb's server",
    "evaluator": "plays what has been learnt",
    "seed-learner": "of SEED RL: infers and learns",
    "seed-actor": "of SEED RL: steps environments, without TensorFlow",
    "parameter-server": "of A3C and Gorila",
    "coordinator": "of A3C and Gorila",
    "worker": "of A3C and Gorila",
}
