"""What is said to a role that belongs to another run, or has another environment."""

from __future__ import annotations

import grpc

from tfdrl.rpc import grpc_server, training_pb2
from tfdrl.rpc import run_messages as messages

#: gRPC carries a refusal's text in a header of 8 KB.
MAX_SHOWN_CHARACTERS = 1000


def mismatch(what: str, theirs: object, ours: object, cure: str) -> grpc_server.RefusedError:
    """The refusal of a role whose `what` is not the learner's."""
    return grpc_server.RefusedError(
        grpc.StatusCode.FAILED_PRECONDITION,
        f"{what} mismatch: yours is {theirs!r}, the learner's is {ours!r}; {cure}",
    )


def difference(theirs: str, ours: str) -> tuple[str, str]:
    """Both texts, or, of long ones, what follows from the first difference."""
    if max(len(theirs), len(ours)) <= MAX_SHOWN_CHARACTERS:
        return theirs, ours
    pairs = enumerate(zip(theirs, ours))
    shorter = min(len(theirs), len(ours))
    first = next((i for i, (a, b) in pairs if a != b), shorter)
    # From the start of the line, so that the name of what differs is shown.
    start = max(theirs.rfind("\n", 0, first) + 1, first - MAX_SHOWN_CHARACTERS // 2)
    end = start + MAX_SHOWN_CHARACTERS
    return theirs[start:end], ours[start:end]


def check_experiment(sender: training_pb2.Sender, ours: str) -> None:
    """Raises RefusedError for a role of another experiment."""
    if sender.experiment != ours:
        raise mismatch(
            "experiment",
            sender.experiment[:MAX_SHOWN_CHARACTERS],
            ours[:MAX_SHOWN_CHARACTERS],
            "start every role with the same gin file and bindings",
        )


def check_join(request: training_pb2.JoinRequest, experiment: str, specs: str) -> None:
    """Raises RefusedError for a role that belongs to another run, or has other specs."""
    if request.protocol_version != messages.PROTOCOL_VERSION:
        raise mismatch(
            "protocol version",
            request.protocol_version,
            messages.PROTOCOL_VERSION,
            "install the same version of tfdrl",
        )
    check_experiment(request.sender, experiment)
    if request.specs and specs and request.specs != specs:
        raise mismatch(
            "specs",
            *difference(request.specs, specs),
            "give every role the same environment and network",
        )
