"""Makes test vectors of tests/data/oracles.npz anew: unrolls, and V-trace across truncations.

  python tests/support/make_oracles.py

The cases in `MADE` are replaced, all others stay as they are. Expected values are sums and slices
written from the definitions, without the recursions and buffers of the code that is tested.
"""

from __future__ import annotations

import numpy as np
from paths import DATA

_PATH = DATA / "oracles.npz"


def cut_unrolls(environments, runs, values, trained: int, overlap: int) -> np.ndarray:
    """The unrolls that SEED RL cuts from streams of steps, in the order of their completion.

    A stream is one environment's steps since its actor began: a new run id begins a new one. Of a
    stream behind `overlap` zeros, unroll k is the overlap + trained + 1 steps from k * trained on.

    Args:
      environments, runs, values: <int>[N], of each step; -1 at the end of each batched call.
      trained, overlap: steps of an unroll.

    Returns:
      <int>[unrolls, 2 + overlap + trained + 1]: number of the call, environment, steps.
    """
    call, streams, cut = 0, {}, []
    for environment, run, value in zip(environments, runs, values):
        if environment < 0:
            call += 1
        else:
            streams.setdefault((environment, run), []).append((value, call))
    for (environment, _), steps in streams.items():
        padded = [0] * overlap + [value for value, _ in steps]
        for begin in range(0, len(steps) - trained, trained):
            completed = steps[begin + trained][1]
            cut.append([completed, environment, *padded[begin : begin + overlap + trained + 1]])
    return np.array(sorted(cut, key=lambda unroll: unroll[-1]))


def unrolls(seed: int, environments: int, trained: int, overlap: int, calls: int) -> dict:
    """Batched calls of some of the environments, whose actors now and then begin again."""
    random = np.random.default_rng(seed)
    runs, value, rows = np.ones(environments, int), 0, []
    for _ in range(calls):
        here = random.choice(environments, random.integers(1, environments + 1), replace=False)
        for environment in here:
            runs[environment] += random.random() < 0.05
            value += 1
            rows.append([environment, runs[environment], value])
        rows.append([-1, -1, -1])
    streams = np.array(rows).T
    return {
        "par/num_envs": environments,
        "par/unroll_length": trained,
        "par/overlap": overlap,
        **dict(zip(("in/env_ids", "in/run_ids", "in/values"), streams)),
        "out/unrolls": cut_unrolls(*streams, trained, overlap),
    }


def vtrace_truncation(seed: int, steps: int, batch: int, **settings: float) -> dict:
    """V-trace (Espeholt 2018, section 4.1) over episodes that end by termination or truncation.

    Columns begin with a termination before a truncation and the other way round; the last step
    of column 0 is truncated. The sums stop at every end; only a termination has no future.
    """
    random = np.random.default_rng(seed)
    shape = (steps, batch)
    terminated, truncated = random.random(shape) < 0.1, random.random(shape) < 0.15
    terminated[:2, 0], truncated[:2, 0] = (True, False), (False, True)
    terminated[:2, 1], truncated[:2, 1] = (False, True), (True, False)
    terminated[-1, 0], truncated[-1, 0] = False, True
    truncated &= ~terminated
    is_end = terminated | truncated
    log_rhos, rewards = random.normal(size=shape), random.normal(size=shape)
    values, next_values = 2 * random.normal(size=shape), 2 * random.normal(size=shape)
    goes_on = ~is_end[:-1]
    next_values[:-1][goes_on] = values[1:][goes_on]
    rhos, discounts = np.exp(log_rhos), np.where(terminated, 0.0, settings["gamma"])
    c = settings["lambda_"] * np.minimum(settings["c_bar"], rhos)
    bootstrapped = rewards + discounts * next_values - values
    delta = np.minimum(settings["rho_bar"], rhos) * bootstrapped
    vs = values.copy()
    for b in range(batch):
        for s in range(steps):
            for t in range(s, steps):
                if not is_end[s:t, b].any():
                    vs[s, b] += np.prod(discounts[s:t, b] * c[s:t, b]) * delta[t, b]
    next_vs = next_values.copy()
    next_vs[:-1][goes_on] = vs[1:][goes_on]
    advantages = np.minimum(settings["pg_rho_bar"], rhos) * (rewards + discounts * next_vs - values)
    return {
        **{f"par/{name}": value for name, value in settings.items()},
        "in/log_rhos": log_rhos,
        "in/rewards": rewards,
        "in/values": values,
        "in/next_values": next_values,
        "in/terminated": terminated,
        "in/truncated": truncated,
        "out/vs": vs,
        "out/pg_advantages": advantages,
    }


_PAPER = {"rho_bar": 1.0, "c_bar": 1.0, "pg_rho_bar": 1.0, "lambda_": 1.0, "gamma": 0.99}
#: Arrays by group/case. Unrolls: as many trained steps as overlap, and fewer, down to one.
MADE = {
    "unrolls/equal": lambda: unrolls(11, environments=3, trained=2, overlap=2, calls=60),
    "unrolls/fewer": lambda: unrolls(12, environments=2, trained=2, overlap=5, calls=60),
    "unrolls/third": lambda: unrolls(13, environments=2, trained=3, overlap=9, calls=80),
    "unrolls/one": lambda: unrolls(14, environments=2, trained=1, overlap=3, calls=40),
    "vtrace_truncation/paper": lambda: vtrace_truncation(21, 12, 3, **_PAPER),
    "vtrace_truncation/clips": lambda: vtrace_truncation(
        22, 20, 3, **{**_PAPER, "rho_bar": 2.0, "c_bar": 1.5, "pg_rho_bar": 0.7, "lambda_": 0.9}
    ),
    "vtrace_truncation/short": lambda: vtrace_truncation(23, 2, 2, **_PAPER),
}


def made() -> dict[str, np.ndarray]:
    """All arrays of `MADE`, by their keys in the file."""
    return {
        f"{case}/{name}": np.asarray(array)
        for case, make in MADE.items()
        for name, array in make().items()
    }


def main() -> None:
    """Writes the file anew."""
    with np.load(_PATH) as arrays:
        others = {key: arrays[key] for key in arrays if key.rsplit("/", 2)[0] not in MADE}
    np.savez_compressed(_PATH, **others, **made())


if __name__ == "__main__":
    main()
