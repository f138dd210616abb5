"""Several runs of one program: what varies among them, and the name of each."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tfdrl.configuration import meaning
from tfdrl.errors import ConfigurationError
from tfdrl.experiment import MAX_SEED

_SEED = "experiment.seed"
_SETTING = re.compile(r"[\w./]+\.\w+")


class Variant(NamedTuple):
    """One of the runs.

    name      of its directory, such as "adam.learning_rate=0.001,seed=2"
    bindings  lines of gin: what it has of its own
    """

    name: str
    bindings: list[str]


def variants(seeds: Sequence[str], sweeps: Sequence[str]) -> list[Variant]:
    """Every combination, all of one seed before the next: what is cut short has compared all.

    Args:
      seeds: of experiment.seed, as texts; empty: the gin file's own.
      sweeps: each "setting=value,value", such as "adam.learning_rate=1e-4,3e-4".

    Raises ConfigurationError for what cannot be read, or is there twice.
    """
    axes = [_axis(sweep) for sweep in sweeps]
    names = [axis[0][0] for axis in axes]
    for name in names:
        if names.count(name) > 1 or (name == _SEED and seeds):
            raise ConfigurationError(f"{name} is to vary twice; give all its values at once")
    if seeds:
        axes.insert(0, [(_SEED, seed) for seed in _checked_seeds(seeds)])
    found = [_variant(settings) for settings in itertools.product(*axes)]
    for one, other in itertools.combinations(found, 2):
        if one.name == other.name:
            raise ConfigurationError(
                f"{' and '.join((one.bindings[-1], other.bindings[-1]))} would have one directory, "
                f"{one.name}; choose values that differ in letters or digits"
            )
    return found


def _variant(settings: Sequence[tuple[str, str]]) -> Variant:
    ordered = sorted(settings, key=lambda setting: setting[0] == _SEED)  # the seed last
    words = [f"{'seed' if name == _SEED else name}={_plain(value)}" for name, value in ordered]
    return Variant(
        ",".join(words).replace("/", "_"), [f"{name} = {value}" for name, value in settings]
    )


def _plain(value: str) -> str:
    """What of a value may stand in the name of a directory."""
    return re.sub(r"[^\w.+-]+", "_", value).strip("_")


def _checked_seeds(seeds: Sequence[str]) -> list[str]:
    for seed in seeds:
        if not (seed.isdigit() and int(seed) <= MAX_SEED):
            raise ConfigurationError(
                f"--seeds={','.join(seeds)}: {seed!r} must be a whole number from 0 to {MAX_SEED:,}"
            )
    plain = [str(int(seed)) for seed in seeds]
    if len(set(plain)) < len(plain):
        raise ConfigurationError(f"--seeds={','.join(seeds)}: a seed is there twice")
    return plain


def _axis(sweep: str) -> list[tuple[str, str]]:
    name, _, text = sweep.partition("=")
    name, values = name.strip(), [value.strip() for value in _split(text)]
    if not _SETTING.fullmatch(name) or not all(values):
        raise ConfigurationError(
            f"--sweep={sweep!r}: write a setting and its values, such as "
            "'adam.learning_rate=1e-4,3e-4'"
        )
    if len(set(map(meaning, values))) < len(values):
        raise ConfigurationError(f"--sweep={sweep!r}: a value is there twice")
    return [(name, value) for value in values]


def _split(text: str) -> Iterator[str]:
    """The parts between commas that are in no brackets and in no quotes."""
    depth, quote, part = 0, "", ""
    for letter in text:
        if quote or letter in "'\"":
            quote = "" if letter == quote else quote or letter
        else:
            depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth and not quote:
            yield part
            part = ""
        else:
            part += letter
    yield part
