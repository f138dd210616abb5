"""The newest set of parameters, serialised once, however many roles pull it."""

from __future__ import annotations

import collections
import threading
from collections.abc import Sequence

import numpy as np

from tfdrl.errors import ConfigurationError
from tfdrl.rpc import parameter_messages, training_pb2
from tfdrl.rpc import run_messages as messages
from tfdrl.rpc.tensors import MessageError

#: What is evaluated takes a while: published once a second, a version is known for 18 hours.
_KEPT_VERSIONS = 1 << 16


class PublishedParameters:
    """What a training service answers to pulls: all of the old set or all of the new one.

    Args:
      max_message_bytes: a larger set is refused.

    Attributes:
      version: of the set; NO_VERSION before the first.
    """

    def __init__(self, max_message_bytes: int):
        self._max_message_bytes = max_message_bytes
        self._lock = threading.Lock()
        self.version = messages.NO_VERSION
        self._versions: collections.deque[int] = collections.deque(maxlen=_KEPT_VERSIONS)
        self._reply = b""  # a serialised ParametersReply, the same for every caller

    def publish(self, version: int, tensors: Sequence[np.ndarray]) -> None:
        """As `TrainingServer.publish`."""
        arrays = [np.asarray(tensor) for tensor in tensors]
        self._check_size(sum(array.nbytes for array in arrays))
        try:
            serialised = parameter_messages.written(version, arrays)
        except MessageError as error:
            raise ConfigurationError(f"parameters cannot be published: {error}") from None
        self._check_size(len(serialised))
        with self._lock:
            if version <= self.version:
                raise ValueError(f"version {version} does not follow version {self.version}")
            self.version, self._reply = version, serialised
            self._versions.append(version)

    def has_been(self, version: int) -> bool:
        """Whether this version was published, not too long ago."""
        with self._lock:
            return version in self._versions

    def reply_to(self, have_version: int) -> bytes:
        """A serialised ParametersReply for a role that has this version."""
        with self._lock:
            version, reply = self.version, self._reply
        # Not "newer than": after a restart from a checkpoint the learner's versions are smaller
        # than those its roles have, and the roles must get them.
        if version in (messages.NO_VERSION, have_version):
            return training_pb2.ParametersReply(version=version).SerializeToString()
        return reply

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_message_bytes:
            raise ConfigurationError(
                f"parameters of {size_bytes} bytes cannot be published: "
                f"max_message_bytes is {self._max_message_bytes}"
            )
