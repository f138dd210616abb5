"""What is compared: architectures on one task, or values of settings, each with several seeds."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tfdrl import configuration
from tfdrl.errors import ConfigurationError

#: Gin file of each architecture, by task.
TASKS = {
    "cartpole": {
        **{name: f"{name}/cartpole.gin" for name in ("dqn", "gorila", "a3c", "apex", "impala")},
        "seed": "seed/cartpole_vtrace.gin",
    },
    "catch_memory": {
        **{name: f"{name}/catch_memory.gin" for name in ("a3c", "r2d2", "impala")},
        "seed": "seed/catch_memory_r2d2.gin",
    },
    "pong": {
        **{name: f"{name}/atari_pong.gin" for name in ("dqn", "gorila", "a3c", "apex", "impala")},
        "seed": "seed/atari_pong_vtrace.gin",
    },
}
#: Minutes of training of each run, where neither frames nor minutes are given.
MINUTES = {"cartpole": 0.6, "catch_memory": 1.0, "pong": 60.0}
#: A run that is to see so many frames ends after these minutes without them.
MOST_MINUTES = 10.0
#: So that all have the same layers; what a gin file does not use is left out.
_SAME_NETWORK = {
    "cartpole": {
        "MlpQNetwork.layer_units": "(128, 128)",
        "MlpActorCriticNetwork.layer_units": "(128, 128)",
    }
}
#: Who sets what each run has for itself.
_FLAGS = {
    "experiment.seed": "as --seeds says",
    "experiment.max_frames": "as --frames says",
    "experiment.max_minutes": "as --minutes says",
    "experiment.max_learner_steps": "to None: all have the same frames, or minutes",
    "experiment.solved_return": "to None, so that the better ones do not train less",
}


class Setting(NamedTuple):
    """One of those that are compared; it is trained once with each seed.

    Attributes:
      label: as the page calls it.
      gin_files, gin_bindings: as for training, without what is the comparison's.
    """

    label: str
    gin_files: tuple[str, ...]
    gin_bindings: tuple[str, ...]

    @property
    def slug(self) -> str:
        """Of the label, for directories."""
        return re.sub(r"[^\w.]+", "-", self.label).strip("-")


class Budget(NamedTuple):
    """What every run has: it ends with the first of these.

    Attributes:
      frames: of the environment; None: as many as it makes in its minutes.
      minutes: of training.
    """

    frames: int | None
    minutes: float

    def bindings(self, seed: int) -> tuple[str, ...]:
        """What makes a setting one run of the comparison."""
        own = {  # the names of _FLAGS
            "experiment.seed": seed,
            "experiment.solved_return": None,
            "experiment.max_learner_steps": None,
            "experiment.max_frames": self.frames,
            "experiment.max_minutes": float(self.minutes),
        }
        return tuple(f"{name} = {value!r}" for name, value in own.items())


def of_task(task: str, architectures: Sequence[str], gin_bindings: Sequence[str]) -> list[Setting]:
    """Architectures on a task, with the same layers where that is possible.

    Args:
      task: one of `TASKS`.
      architectures: of those that the task has; empty: all.
      gin_bindings: for all of them.

    Raises ConfigurationError that lists what there is.
    """
    if task not in TASKS:
        raise ConfigurationError(
            f"--task={task}: the tasks are {', '.join(TASKS)}; for another give --gin_file"
        )
    files = TASKS[task]
    unknown = [name for name in architectures if name not in files]
    if unknown:
        raise ConfigurationError(
            f"--architectures={','.join(architectures)}: {', '.join(unknown)} is none of those "
            f"that have a gin file for {task}: {', '.join(files)}"
        )
    return [
        Setting(name, (files[name],), (*_same_network(task, files[name]), *gin_bindings))
        for name in architectures or files
    ]


def heeded(
    found: Sequence[Setting], gin_bindings: Sequence[str], say: Callable[[str], None]
) -> list[Setting]:
    """The settings, each without those of the bindings of all that it would not heed.

    Args:
      found: what is compared.
      gin_bindings: those of all that were given.
      say: is told who is compared without which.

    Raises ConfigurationError for a binding that nobody heeds.
    """
    programs = {one.label: (one.gin_files, one.gin_bindings) for one in found}
    ignored = configuration.unheeded(programs, gin_bindings, say)
    common = {*gin_bindings, *itertools.chain(*map(_layers, _SAME_NETWORK))}
    return [
        one._replace(
            gin_bindings=tuple(
                b for b in one.gin_bindings if b not in common or b not in ignored[one.label]
            )
        )
        for one in found
    ]


def check_bindings(gin_bindings: Sequence[str]) -> None:
    """Raises ConfigurationError for one that every run of a comparison replaces by its own.

    The return of a solved task is such, and yet the page goes by it.
    """
    for binding in gin_bindings:
        name = binding.partition("=")[0].strip()
        if name != "experiment.solved_return":
            _check_is_free(f"--gin_bindings={binding!r}", name)


def _check_is_free(what: str, name: str) -> None:
    if name in _FLAGS:
        raise ConfigurationError(f"{what}: a comparison sets {name} itself, {_FLAGS[name]}")


def varied(setting: Setting, variations: Sequence[str]) -> list[Setting]:
    """A setting for each combination of the values.

    Args:
      setting: that has everything else.
      variations: "name=value,value,...": a gin setting and its values, which are gin's; a word is
        a text.

    Raises ConfigurationError for what is none.
    """
    axes = [list(_variation(text)) for text in variations]
    return [
        setting._replace(
            label=", ".join(label for label, _ in chosen),
            gin_bindings=(*setting.gin_bindings, *(binding for _, binding in chosen)),
        )
        for chosen in itertools.product(*axes)
    ]


def _variation(text: str) -> Iterator[tuple[str, str]]:
    """(label, binding) of each value."""
    name, equals, values = text.partition("=")
    name = name.strip()
    parts = [part.strip() for part in _split(values)]
    if not equals or "." not in name or not all(parts):
        raise ConfigurationError(
            f"--vary={text!r}: write a setting and its values, such as "
            "--vary='VTraceAgent.correction=none,vtrace' or --vary='a3c.workers=1,2,4'"
        )
    _check_is_free(f"--vary={text!r}", name)
    values = {configuration.meaning(part): part for part in reversed(parts)}
    if len(values) < 2:
        raise ConfigurationError(f"--vary={text!r} has nothing to compare: give two values or more")
    for part in reversed(values.values()):
        yield f"{name.rpartition('.')[2]} = {part}", f"{name} = {_gin_value(part)}"


def _split(text: str) -> list[str]:
    """At the commas that are in no brackets and no quotes."""
    depth, quote, parts = 0, "", [""]
    for character in text:
        if character in "'\"" and quote in ("", character):
            quote = "" if quote else character
        elif not quote:
            depth += (character in "([{") - (character in ")]}")
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _gin_value(text: str) -> str:
    if text[0] in "@%":
        return text
    try:
        ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return repr(text)
    return text


def _same_network(task: str, gin_file: str) -> Iterator[str]:
    used = configuration.check([gin_file], []).text
    return (line for line in _layers(task) if f"@{line.partition('.')[0]}" in used)


def _layers(task: str) -> Iterator[str]:
    return (f"{name} = {value}" for name, value in _SAME_NETWORK.get(task, {}).items())
