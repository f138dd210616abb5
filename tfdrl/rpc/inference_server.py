"""The learner's side of the inference service: streams in, checked steps to the player and back.

What is said on a stream is in inference.proto. Who computes the actions, and what he keeps of the
environments, is a `InferenceHandler`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Union

import grpc
import numpy as np

from tfdrl.rpc import grpc_server, inference_pb2, tensors
from tfdrl.rpc.environment_specs import EnvironmentSpecs, specs_fit, specs_in_words
from tfdrl.rpc.grpc_server import RefusedError
from tfdrl.rpc.inference_messages import (
    METHOD,
    PROTOCOL_VERSION,
    SERVICE,
    Steps,
    StepsValidator,
    max_hello_bytes,
    max_request_bytes,
    parse_request,
)
from tfdrl.rpc.run_server import MoreServices
from tfdrl.rpc.tensors import MessageError
from tfdrl.types import TimeSteps

#: What `inference_messages.parse_request` returns.
Request = Union[inference_pb2.Hello, Steps, None]
#: Beside those of every environment: actors that come back before their old stream has ended.
_MORE_STREAMS = 32


class TrainingIsOver(Exception):
    """Ends a stream with Stop and this reason."""


class StreamHandler(Protocol):
    """The place of one stream at the player's table. All calls are from the server's event loop."""

    next_index: int

    async def act(
        self, index: int, steps: TimeSteps, message: inference_pb2.Steps
    ) -> Sequence[np.ndarray]:
        """The actions for the next steps of N environments, leaves of [N, ...].

        If it is cancelled, since the stream broke, the same step may come on another stream.
        """

    def leave(self) -> None:
        """The stream ended."""


class InferenceHandler(Protocol):
    """Gives actions to environments."""

    def join(self, hello: inference_pb2.Hello) -> StreamHandler:
        """A stream for the environments of `hello`. Raises RefusedError."""


class InferenceService:
    """Handlers of the `Inference` service.

    Args:
      player: computes the actions.
      experiment: digest of the configuration.
      specs: of one environment.
    """

    def __init__(self, player: InferenceHandler, experiment: str, specs: EnvironmentSpecs):
        self._player, self._experiment, self._specs = player, experiment, specs
        self._max_hello_bytes = max_hello_bytes(specs)
        self._refuse = grpc_server.RefusalLog()

    def served_for(self, environments: int) -> MoreServices:
        """What a server is told to serve up to as many streams, and a few that it refuses."""
        handler = grpc.stream_stream_rpc_method_handler(self._act)
        return MoreServices(
            {SERVICE: {METHOD: handler}},
            streams=environments + _MORE_STREAMS,
            max_receive_bytes=max_request_bytes(self._specs, environments),
        )

    async def _act(self, data: bytes, context: grpc.aio.ServicerContext) -> None:
        stream = None
        try:
            if len(data) > self._max_hello_bytes:
                raise MessageError(
                    f"a stream begins with Hello, of at most {self._max_hello_bytes} bytes here; "
                    f"{len(data)} bytes came"
                )
            stream, validator = self._open(parse_request(data))
            max_bytes = max_request_bytes(self._specs, validator.environments)
            welcome = inference_pb2.Welcome(next_index=stream.next_index)
            await context.write(inference_pb2.ActReply(welcome=welcome).SerializeToString())
            while (data := await context.read()) is not grpc.aio.EOF:
                if len(data) > max_bytes:
                    raise MessageError(
                        f"{len(data)} bytes for a step of {validator.environments} environments; "
                        f"at most {max_bytes}"
                    )
                request = parse_request(data)
                await context.write(await _answer(stream, validator, request))
        except TrainingIsOver as over:
            stop = inference_pb2.Stop(reason=str(over))
            await context.write(inference_pb2.ActReply(stop=stop).SerializeToString())
        except (MessageError, RefusedError) as error:
            await self._refuse(context, error)
        finally:
            if stream is not None:
                stream.leave()

    def _open(self, hello: Request) -> tuple[StreamHandler, StepsValidator]:
        if not isinstance(hello, inference_pb2.Hello):
            raise MessageError("a stream begins with Hello")
        if hello.protocol_version != PROTOCOL_VERSION:
            raise _mismatch(
                "protocol version",
                hello.protocol_version,
                PROTOCOL_VERSION,
                "install the same version of tfdrl",
            )
        theirs = hello.sender.experiment
        if theirs and theirs != self._experiment:
            raise _mismatch(
                "experiment",
                theirs[:200],
                self._experiment,
                "start learner and actors with the same gin file and bindings",
            )
        if not specs_fit(self._specs, hello):
            raise _mismatch(
                "specs",
                specs_in_words(hello),
                str(self._specs),
                "give both the same environment",
            )
        stream = self._player.join(hello)
        return stream, StepsValidator(self._specs, hello.environments)


async def _answer(stream: StreamHandler, validator: StepsValidator, request: Request) -> bytes:
    if not isinstance(request, Steps):
        raise MessageError("after Hello a stream has Steps only")
    message = request.message
    actions = await stream.act(message.index, validator.time_steps(request), message)
    reply = inference_pb2.ActReply()
    reply.actions.index = message.index
    for leaf in actions:
        reply.actions.action.append(tensors.encode(leaf))
    return reply.SerializeToString()


def _mismatch(what: str, theirs: object, ours: object, cure: str) -> RefusedError:
    return RefusedError(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"{what} mismatch: the actor's is {theirs}, the learner's is {ours}; {cure}",
    )
