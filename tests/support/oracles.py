"""Test vectors: inputs and expected outputs in float64, computed from the papers' equations.

Their keys are group/case/{par,in,out}/name. `par` is a case's settings, `in` its inputs, `out`
what must come out.
"""

import numpy as np
from paths import DATA

_PATH = DATA / "oracles.npz"


def cases(group):
    """The names of the cases of a group."""
    with np.load(_PATH) as arrays:
        return sorted({key.split("/")[1] for key in arrays if key.startswith(group + "/")})


def load(group, case):
    """The arrays of one case by name; an output with the name of a setting gets "_out" added."""
    values = {}
    with np.load(_PATH) as arrays:
        for kind in ("par", "in", "out"):
            prefix = f"{group}/{case}/{kind}/"
            for key in (key for key in arrays if key.startswith(prefix)):
                name = key[len(prefix) :]
                values[name + "_out" if name in values else name] = arrays[key]
    return values
