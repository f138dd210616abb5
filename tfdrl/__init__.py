"""tfdrl: distributed deep reinforcement learning on TensorFlow and TF-Agents.

    run = tfdrl.train("impala/cartpole.gin", bindings={"experiment.seed": 1}, root_dir="runs/a")
    print(run.ended, run.best_return)

Importing this package loads neither TensorFlow nor any of its own submodules: each name is looked
up when it is first used. __init__.pyi tells type checkers the same.
"""

import importlib

__version__ = "0.2.0"

#: The module of each public name.
_HOMES = {
    "ConfigurationError": "tfdrl.errors",
    "RoleFailedError": "tfdrl.errors",
    "Run": "tfdrl.api.run",
    "RunFailedError": "tfdrl.errors",
    "Snapshot": "tfdrl.api.snapshots",
    "TfdrlError": "tfdrl.errors",
    "TrainingDivergedError": "tfdrl.errors",
    "load": "tfdrl.api.run",
    "train": "tfdrl.api.training",
}

__all__ = list(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'tfdrl' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__():
    return sorted({*globals(), *__all__})
