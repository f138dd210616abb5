"""The exported policy: a SavedModel under root_dir/policy, replaced as a whole."""

from __future__ import annotations

import logging
import pathlib
import shutil

import tensorflow as tf
from tf_agents.policies import policy_saver


class PolicyExport:
    """Exports a policy each time it is better than before.

    Args:
      policy: a TFPolicy.
      directory: of the SavedModel.
    """

    def __init__(self, policy, directory: pathlib.Path):
        self._policy, self._directory = policy, pathlib.Path(directory)
        self._saver = None  # tracing it takes seconds: only when there is something to save

    def save(self) -> bool:
        """Writes the policy beside the old one, then swaps them; False with a warning if not."""
        temporary = self._directory.with_name(self._directory.name + ".new")
        try:
            if self._saver is None:
                self._saver = policy_saver.PolicySaver(self._policy, batch_size=None)
            shutil.rmtree(temporary, ignore_errors=True)
            self._saver.save(str(temporary))
            shutil.rmtree(self._directory, ignore_errors=True)
            temporary.rename(self._directory)
        except (OSError, tf.errors.OpError) as error:
            logging.warning("the policy could not be exported to %s: %s", self._directory, error)
            shutil.rmtree(temporary, ignore_errors=True)
            return False
        return True
