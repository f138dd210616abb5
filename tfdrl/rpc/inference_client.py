"""An actor's side of the inference service: steps up, actions down, over one stream."""

from __future__ import annotations

import logging
import random
import threading
import time

import grpc
from google.protobuf import message as protobuf

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.rpc import channels, inference_pb2, tensors, training_pb2, usage
from tfdrl.rpc.client_stream import Stream, open_stream
from tfdrl.rpc.environment_specs import EnvironmentSpecs, pack, specs_to_message
from tfdrl.rpc.inference_messages import (
    METHOD,
    PROTOCOL_VERSION,
    SERVICE,
    StepsEncoder,
    max_request_bytes,
)
from tfdrl.rpc.run_messages import finite_episodes
from tfdrl.rpc.security import Security
from tfdrl.topology import Address
from tfdrl.types import Episodes, Nest, TimeSteps

_LOG = logging.getLogger(__name__)
_METHOD = f"/{SERVICE}/{METHOD}"
_PAUSE_SECS = (0.25, 2.0)  # between two tries, first and longest
_LOG_SECS = 5.0
#: Another stream may hold the environments until the learner notices that its host is gone.
_WORTH_ANOTHER_TRY = (
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
)


class ActorStoppedError(Exception):
    """The learner said that training is over, or this process was told to stop."""


class LearnerRestartedError(Exception):
    """The learner does not know this run: reset the environments and begin at index 0."""


class InferenceClient:
    """Plays N environments by the learner's actions. For one thread.

    A stream that breaks is connected again, with growing pauses; what was not answered is sent
    once more and counted once.

    Args:
      address: where the learner listens.
      experiment: digest of the configuration.
      task: the actor's number; it plays environments task * N to task * N + N - 1.
      environments: N.
      specs: of one environment.
      timeout_secs: how long the learner may give no answer.
      stop: ends every wait.
      security: of the channel.
    """

    def __init__(
        self,
        address: Address,
        *,
        experiment: str,
        task: int,
        environments: int,
        specs: EnvironmentSpecs,
        timeout_secs: float,
        stop: threading.Event,
        security: Security = Security(),  # noqa: B008  (immutable)
    ):
        """Connects with the first step."""
        self._name, self._server_name = f"actor {task}", f"the learner at {address}"
        self._address, self._specs, self._stop = address, specs, stop
        self._environments, self._timeout_secs = environments, timeout_secs
        self._encoder = StepsEncoder(specs, environments)
        self._sender = {"experiment": experiment, "role": "actor", "task": task}
        self._task = task
        self._security = security
        self._channel = security.channel(
            address,
            channels.channel_options(64 << 20, max_request_bytes(specs, environments)),
        )
        self._stream: Stream | None = None
        self.begin_run()

    def act(self, steps: TimeSteps, frames: int, episodes: Episodes) -> Nest:
        """Sends what the environments show; returns the learner's actions, nest of [N, ...].

        Args:
          steps: of the N environments, FIRST in a new run.
          frames: environment frames of this run so far.
          episodes: that ended since the last call.

        Raises:
          ActorStoppedError: training is over, or `stop` is set.
          LearnerRestartedError: see there; a new run has begun.
          UnavailableError: no answer for `timeout_secs`.
          ConfigurationError: the learner refused this actor.
        """
        request = self._encoder.encode(self._index, steps, frames, self._episodes(episodes))
        actions = self._actions(self._exchange(request))
        self._index += 1
        return actions

    def begin_run(self) -> None:
        """Ends the run, whose partial unrolls the learner drops; the next steps are a new one's."""
        self._drop()
        self._run_id = random.SystemRandom().getrandbits(63)
        self._index = self._sent_episodes = 0

    def close(self) -> None:
        """Ends the stream. May be called twice."""
        self._drop()
        self._security.close(self._channel)

    def _episodes(self, episodes: Episodes) -> training_pb2.Episodes | None:
        if not len(episodes.returns):
            return None
        episodes, first = finite_episodes(episodes), self._sent_episodes
        self._sent_episodes += len(episodes.returns)
        return training_pb2.Episodes(
            first=first,
            returns=episodes.returns.tolist(),
            length_frames=episodes.length_frames.tolist(),
        )

    def _exchange(self, request: bytes) -> inference_pb2.ActReply:
        """Sends until there is an answer."""
        deadline = time.monotonic() + self._timeout_secs
        logged_secs, pause_secs = time.monotonic(), _PAUSE_SECS[0]
        while True:
            try:
                if self._stream is None:
                    self._connect(deadline)
                return self._ask(request, deadline)
            except _Broken as broken:
                self._drop()
                now_secs = time.monotonic()
                if now_secs > deadline:
                    raise UnavailableError(
                        f"{self._name}: {self._server_name} gave no answer for "
                        f"{self._timeout_secs:g} s: {broken}"
                    ) from None
                if now_secs - logged_secs > _LOG_SECS:
                    logged_secs = now_secs
                    _LOG.warning("%s waits for %s: %s", self._name, self._server_name, broken)
                if self._stop.wait(pause_secs * random.uniform(0.5, 1.0)):
                    raise ActorStoppedError("told to stop") from None
                pause_secs = min(2 * pause_secs, _PAUSE_SECS[1])

    def _connect(self, deadline: float) -> None:
        metadata = self._security.metadata
        self._stream = open_stream(self._channel, _METHOD, metadata, self._stop)
        hello = inference_pb2.Hello(
            sender=training_pb2.Sender(run_id=self._run_id, **self._sender),
            protocol_version=PROTOCOL_VERSION,
            first_environment=self._task * self._environments,
            environments=self._environments,
        )
        specs_to_message(self._specs, hello)
        request = inference_pb2.ActRequest(hello=hello)
        reply = self._ask(request.SerializeToString(), deadline)
        if not reply.HasField("welcome"):
            raise self._nonsense("no Welcome after Hello")
        if reply.welcome.next_index not in (self._index, self._index + 1):
            self.begin_run()
            raise LearnerRestartedError

    def _ask(self, request: bytes, deadline: float) -> inference_pb2.ActReply:
        usage.count_messages(self._address)
        data = self._stream.ask(request, deadline)
        if self._stop.is_set():
            raise ActorStoppedError("told to stop")
        if data is None:
            raise _Broken("it does not answer")
        if isinstance(data, grpc.RpcError):
            raise self._error(data)
        try:
            reply = inference_pb2.ActReply.FromString(data)
        except protobuf.DecodeError:
            raise self._nonsense(f"{len(data)} bytes that cannot be parsed") from None
        if reply.HasField("stop"):
            raise ActorStoppedError(reply.stop.reason)
        return reply

    def _actions(self, reply: inference_pb2.ActReply) -> Nest:
        specs = self._specs.action
        if reply.actions.index != self._index:
            raise self._nonsense(f"actions for step {reply.actions.index}, not {self._index}")
        if len(reply.actions.action) != len(specs):
            raise self._nonsense(f"{len(reply.actions.action)} action arrays, not {len(specs)}")
        try:
            leaves = [
                tensors.decode(
                    tensor, "action", dtype=spec.dtype, shape=(self._environments, *spec.shape)
                )
                for tensor, spec in zip(reply.actions.action, specs)
            ]
        except tensors.MessageError as error:
            raise self._nonsense(str(error)) from None
        return pack(self._specs.action_nest, leaves)

    def _drop(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _error(self, error: grpc.RpcError) -> Exception:
        too_large = "larger than max" in (error.details() or "")
        if error.code() in _WORTH_ANOTHER_TRY and not too_large:
            return _Broken(f"{error.code().name}: {error.details()}")
        return channels.to_tfdrl_error(
            error, self._name, self._server_name, METHOD, self._timeout_secs
        )

    def _nonsense(self, details: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self._name}: {self._server_name} answered with nonsense ({details}); is it a tfdrl "
            "SEED learner of this version?"
        )


class _Broken(Exception):
    """The stream is of no use any more; another one may be."""
