"""Checkpoints of a learner: at least two, the older one used if the newest is damaged."""

from __future__ import annotations

import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfdrl.errors import TfdrlError

_PREFIX = "checkpoint"


class Counters(tf.train.experimental.PythonState):
    """Plain numbers and texts inside a checkpoint, as JSON: nothing is unpickled."""

    def __init__(self):
        self.values: dict[str, Any] = {}

    def serialize(self) -> str:
        return json.dumps(self.values)

    def deserialize(self, string_value: str) -> None:
        self.values = json.loads(string_value)


class Checkpoints:
    """Saves and restores trackable objects and counters under root_dir/checkpoints.

    Args:
      directory: for the checkpoints.
      objects: name -> trackable (agent, generator, ...).
      keep: how many to keep, at least 2.
    """

    def __init__(self, directory: pathlib.Path, objects: Mapping[str, Any], keep: int = 3):
        self.counters = Counters()
        self._directory = pathlib.Path(directory)
        self._checkpoint = tf.train.Checkpoint(counters=self.counters, **objects)
        self._manager = tf.train.CheckpointManager(
            self._checkpoint, str(directory), max_to_keep=max(keep, 2), checkpoint_name=_PREFIX
        )

    def restore(self) -> int | None:
        """Restores the newest checkpoint that can be read; returns its step.

        Returns None if there is none at all.

        Raises:
          TfdrlError: there are checkpoints, and none can be read: never a silent fresh start.
        """
        paths = self._paths()
        for number, path in enumerate(reversed(paths)):
            try:
                self._checkpoint.restore(str(path)).assert_existing_objects_matched()
            except (tf.errors.OpError, ValueError, AssertionError) as error:
                text = str(error).splitlines()[0]
                logging.warning("the checkpoint %s cannot be read: %s", path, text)
                continue
            if number:
                logging.warning("restored an older checkpoint, %s", path)
            return int(path.name.rpartition("-")[2])
        if paths:
            raise TfdrlError(
                f"none of the {len(paths)} checkpoints in {self._directory} can be read; to start "
                "afresh, use another --root_dir"
            )
        return None

    def save(self, step: int, counters: Mapping[str, Any]) -> bool:
        """Saves now; False, with a warning, where it cannot be written (training goes on)."""
        self.counters.values = dict(counters)
        try:
            self._manager.save(checkpoint_number=step)
            return True
        except (tf.errors.OpError, OSError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            logging.error(
                "THE CHECKPOINT COULD NOT BE WRITTEN to %s (%s). Training goes on, the last good "
                "checkpoint is kept, and it will be tried again.",
                self._directory,
                text,
            )
            self._remove_partial(step)
            return False

    def _paths(self) -> list[pathlib.Path]:
        """Complete checkpoints, oldest first: the index file is the last that TensorFlow writes."""
        names = [path.with_suffix("") for path in self._directory.glob(f"{_PREFIX}-*.index")]
        return sorted(names, key=lambda path: int(path.name.rpartition("-")[2]))

    def _remove_partial(self, step: int) -> None:
        for path in [
            *self._directory.glob(f"{_PREFIX}-{step}.*"),
            *self._directory.glob(f"{_PREFIX}-{step}_temp"),
            *self._directory.glob("*.tmp*"),
        ]:
            try:
                path.rmdir() if path.is_dir() else path.unlink()
            except OSError as error:
                logging.warning("%s could not be removed: %s", path, error)
