"""Checkpoints of a learner: at least two, the older one used if the newest is damaged."""

from __future__ import annotations

import json
import logging
import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfdrl.errors import ConfigurationError, TfdrlError

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

    One process may use the directory at a time. A checkpoint counts from one rename on, that of
    the directory it was written in: one of the same step is replaced as a whole or not at all.

    Args:
      directory: for the checkpoints.
      objects: name -> trackable (agent, generator, ...).
      keep: how many to keep, at least 2.
    """

    def __init__(self, directory: pathlib.Path, objects: Mapping[str, Any], keep: int = 3):
        self.counters = Counters()
        self._directory = pathlib.Path(directory)
        self._partial = self._directory / "partial"
        self._written = self._directory / "written"
        self._keep = max(keep, 2)
        self._checkpoint = tf.train.Checkpoint(counters=self.counters, **objects)

    def restore(self) -> int | None:
        """Restores the newest checkpoint that can be read; returns its step.

        Returns None if there is none at all.

        Raises:
          ConfigurationError: the newest that can be read is of other objects than these.
          TfdrlError: there are checkpoints, and none can be read: never a silent fresh start.
        """
        self._move_into_place()
        paths = self._paths()
        for number, path in enumerate(reversed(paths)):
            try:
                self._checkpoint.read(str(path)).assert_existing_objects_matched()
            except Exception as error:  # what damaged bytes raise depends on where the damage is
                if _is_whole(path):
                    raise ConfigurationError(
                        f"the checkpoint {path} is whole, but not of these settings "
                        f"({_first_line(error)}): set back what was changed of the agent, its "
                        "network or its optimizer, or use another --root_dir to start afresh"
                    ) from None
                logging.warning("the checkpoint %s cannot be read: %s", path, _first_line(error))
                continue
            if number:
                logging.warning("restored an older checkpoint, %s", path)
            return _step(path)
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
            self._move_into_place()
            self._remove_partial()  # of a process that was killed while it wrote
            self._partial.mkdir(parents=True)
            self._checkpoint.write(str(self._partial / f"{_PREFIX}-{step}"))
            self._partial.rename(self._written)
            self._move_into_place()
            self._remove_old()
        except (tf.errors.OpError, OSError) as error:
            logging.error(
                "THE CHECKPOINT COULD NOT BE WRITTEN to %s (%s). Training goes on, the last good "
                "checkpoint is kept, and it will be tried again.",
                self._directory,
                _first_line(error),
            )
            self._remove_partial()
            return False
        return True

    def _paths(self) -> list[pathlib.Path]:
        """Complete checkpoints, oldest first: the index is the last file to get its place."""
        files = self._directory.glob(f"{_PREFIX}-*.index")
        return sorted({path.with_suffix("") for path in files if _is_ours(path)}, key=_step)

    def _move_into_place(self) -> None:
        """Of the newest checkpoint what is not there yet, also of a process that was killed."""
        if self._written.is_dir():
            for path in sorted(self._written.glob(f"{_PREFIX}-*"), key=_is_index):
                path.replace(self._directory / path.name)
            shutil.rmtree(self._written)

    def _remove_old(self) -> None:
        kept = {path.name for path in self._paths()[-self._keep :]}
        files = self._directory.glob(f"{_PREFIX}-*")
        for path in sorted(files, key=_is_index, reverse=True):
            if path.stem not in kept and _is_ours(path):
                path.unlink()

    def _remove_partial(self) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)


def _is_ours(path: pathlib.Path) -> bool:
    """Whether it is a file of a checkpoint: what else lies there is somebody else's."""
    return re.fullmatch(rf"{_PREFIX}-[0-9]+\.(index|data-[0-9]+-of-[0-9]+)", path.name) is not None


def _is_whole(path: pathlib.Path) -> bool:
    """Whether all that it holds can be read: each tensor has a checksum."""
    try:
        reader = tf.train.load_checkpoint(str(path))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except Exception:  # as above
        return False
    return True


def _step(path: pathlib.Path) -> int:
    return int(path.name.rpartition("-")[2])


def _is_index(path: pathlib.Path) -> bool:
    return path.suffix == ".index"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
