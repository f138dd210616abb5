"""The exported policy: a SavedModel that needs TensorFlow alone, replaced as a whole."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import pathlib
import re
import shutil

import tensorflow as tf
from tf_agents.policies import policy_saver, tf_policy
from tf_agents.specs import tensor_spec
from tf_agents.utils import nest_utils

from tfdrl.rpc.run_messages import Evaluation

#: Of what is exported, beside the SavedModel's own files.
_EVALUATION = "evaluation.json"
_SIZE = "saved_model_bytes"  # in it: a part that is missing or cut short tells


class ActionsOnly(tf_policy.TFPolicy):
    """A policy without its distribution.

    With it, the SavedModel could be loaded only where TensorFlow Probability is imported. Its
    specs have the names of the signatures' arguments and results, after their paths.
    """

    def __init__(self, policy: tf_policy.TFPolicy):
        taken: set[str] = set()
        super().__init__(
            _named(policy.time_step_spec, "0", taken),
            _named(policy.action_spec, "action", taken),
            policy_state_spec=_named(policy.policy_state_spec, "1", taken),
            info_spec=_named(policy.info_spec, "info", taken),
            clip=False,
            automatic_state_reset=False,  # the wrapped policy does what it does
        )
        self._policy = policy

    def _variables(self):
        return self._policy.variables()

    def _get_initial_state(self, batch_size):
        return self._policy.get_initial_state(batch_size)

    def _action(self, time_step, policy_state, seed):
        return self._policy.action(time_step, policy_state, seed)

    def _distribution(self, time_step, policy_state):
        raise NotImplementedError("the exported policy has actions only")


def _named(specs, prefix: str, taken: set[str]):
    """The specs with names that are valid and unique, whatever the keys of their dicts are."""
    paths = nest_utils.flatten_with_joined_paths(specs)
    named = [
        _renamed(spec, _free_name("/".join((prefix, path)) if path else prefix, taken))
        for path, spec in paths
    ]
    return tf.nest.pack_sequence_as(specs, named)


def _free_name(path: str, taken: set[str]) -> str:
    words = re.sub(r"[^A-Za-z0-9_/]", "_", path).split("/")
    valid = "/".join(word or "_" for word in words)
    for name in itertools.chain([valid], (f"{valid}_{i}" for i in itertools.count(2))):
        # TensorFlow writes "_" for "/", and tells no capitals from small letters.
        seen = name.replace("/", "_").lower()
        if seen not in taken:
            taken.add(seen)
            return name
    raise AssertionError("numbers do not end")


def _renamed(spec: tf.TypeSpec, name: str) -> tf.TypeSpec:
    if isinstance(spec, tensor_spec.BoundedTensorSpec):
        return tensor_spec.BoundedTensorSpec(
            spec.shape, spec.dtype, spec.minimum, spec.maximum, name
        )
    return tf.TensorSpec(spec.shape, spec.dtype, name)


class PolicyExport:
    """Exports a policy each time it is better than what is there, also of an earlier start.

    Args:
      policy: a TFPolicy.
      directory: of the SavedModel; its evaluation.json says how good it was.

    A kill or a full disk at any moment leaves one that is whole, which the next start finds.

    Attributes:
      best: mean return of the policy that is there; None if there is none that is known.
    """

    def __init__(self, policy, directory: pathlib.Path):
        self._policy, self._directory = policy, pathlib.Path(directory)
        self._saver = None  # tracing it takes seconds: only when there is something to save
        self._new, self._old = (
            self._directory.with_name(self._directory.name + end) for end in (".new", ".old")
        )
        self.best = self._found()

    def offer(self, evaluation: Evaluation) -> bool:
        """Exports the policy if this evaluation of it is the best; returns whether it did."""
        is_better = self.best is None or evaluation.mean > self.best
        return is_better and math.isfinite(evaluation.mean) and self._save(evaluation)

    def _found(self) -> float | None:
        """How good the policy is that is there, or that a kill left on its way to it."""
        places = (self._directory, self._new, self._old)
        whole = {place: best for place in places if (best := _best(place)) is not None}
        if whole:
            place = max(whole, key=whole.get)
            with contextlib.suppress(OSError):  # a disk that cannot be written to: later
                self._move_into_place(place)
            return whole[place]
        if self._directory.exists():
            words = "%s is no whole policy with its evaluation; the next evaluation replaces it"
            logging.warning(words, self._directory)
        return None

    def _move_into_place(self, place: pathlib.Path) -> None:
        """There is a whole policy at any moment, if only under one of the other two names."""
        if place == self._new and self._directory.exists():
            shutil.rmtree(self._old, ignore_errors=True)
            self._directory.rename(self._old)
        if place == self._old:
            shutil.rmtree(self._directory, ignore_errors=True)
        if place != self._directory:
            place.rename(self._directory)
        for rest in (self._new, self._old):
            shutil.rmtree(rest, ignore_errors=True)

    def _save(self, evaluation: Evaluation) -> bool:
        """Writes the policy beside the old one, then swaps them; False with a warning if not.

        Training goes on in any case: a policy that cannot be exported can be trained.
        """
        try:
            if self._saver is None:
                self._saver = policy_saver.PolicySaver(
                    ActionsOnly(self._policy), batch_size=None, use_nest_path_signatures=False
                )
            shutil.rmtree(self._new, ignore_errors=True)
            self._saver.save(str(self._new))
            words = {**evaluation._asdict(), _SIZE: _saved_model_bytes(self._new)}
            (self._new / _EVALUATION).write_text(json.dumps(words, indent=2))
            self._move_into_place(self._new)
        except Exception as error:  # of the disk, or what a network or a spec makes of a SavedModel
            logging.warning("the policy could not be exported to %s: %s", self._directory, error)
            shutil.rmtree(self._new, ignore_errors=True)
            return False
        self.best = evaluation.mean
        return True


def _best(directory: pathlib.Path) -> float | None:
    """The mean return that a whole export says it has; None of any other directory."""
    try:
        found = json.loads((directory / _EVALUATION).read_text())
        size_bytes = _saved_model_bytes(directory)
        is_whole = size_bytes > 0 and found.get(_SIZE, size_bytes) == size_bytes
        return float(found["mean"]) if is_whole else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _saved_model_bytes(directory: pathlib.Path) -> int:
    """What the files of the SavedModel hold; 0 if one is missing that every export has."""
    index = directory / "variables" / "variables.index"
    if not (tf.saved_model.contains_saved_model(str(directory)) and index.is_file()):
        return 0
    files = [directory / "saved_model.pb", *index.parent.iterdir()]
    return sum(path.stat().st_size for path in files)
