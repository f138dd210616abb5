"""The exported policy: a SavedModel that needs TensorFlow alone, replaced as a whole."""

from __future__ import annotations

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

    Attributes:
      best: mean return of the policy that is there; None if there is none that is known.
    """

    def __init__(self, policy, directory: pathlib.Path):
        self._policy, self._directory = policy, pathlib.Path(directory)
        self._saver = None  # tracing it takes seconds: only when there is something to save
        try:
            self.best = float(json.loads((self._directory / _EVALUATION).read_text())["mean"])
        except (OSError, ValueError, TypeError, KeyError):
            self.best = None

    def offer(self, evaluation: Evaluation) -> bool:
        """Exports the policy if this evaluation of it is the best; returns whether it did."""
        is_better = self.best is None or evaluation.mean > self.best
        return is_better and math.isfinite(evaluation.mean) and self._save(evaluation)

    def _save(self, evaluation: Evaluation) -> bool:
        """Writes the policy beside the old one, then swaps them; False with a warning if not.

        Training goes on in any case: a policy that cannot be exported can be trained.
        """
        temporary = self._directory.with_name(self._directory.name + ".new")
        try:
            if self._saver is None:
                self._saver = policy_saver.PolicySaver(
                    ActionsOnly(self._policy), batch_size=None, use_nest_path_signatures=False
                )
            shutil.rmtree(temporary, ignore_errors=True)
            self._saver.save(str(temporary))
            (temporary / _EVALUATION).write_text(json.dumps(evaluation._asdict(), indent=2))
            shutil.rmtree(self._directory, ignore_errors=True)
            temporary.rename(self._directory)
        except Exception as error:  # of the disk, or what a network or a spec makes of a SavedModel
            logging.warning("the policy could not be exported to %s: %s", self._directory, error)
            shutil.rmtree(temporary, ignore_errors=True)
            return False
        self.best = evaluation.mean
        return True
