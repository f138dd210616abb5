"""The answer to Status, whose size no number of reports can make grow beyond a few MB."""

from __future__ import annotations

from collections.abc import Sequence

from tfdrl.rpc import run_messages as messages
from tfdrl.rpc import training_pb2
from tfdrl.rpc.run_messages import Evaluation, RoleStatus

#: Metrics of all roles in one answer; of the roles after them the names alone are told.
MAX_ROLE_METRICS = 1 << 16


def add_roles(
    reply: training_pb2.StatusReply, roles: Sequence[RoleStatus], evaluation: Evaluation | None
) -> None:
    """Adds what roles have reported, and the last evaluation."""
    left = MAX_ROLE_METRICS
    for role in roles:
        left -= len(role.metrics)
        shown = role if left >= 0 else role._replace(metrics={})
        reply.roles.append(training_pb2.RoleStatus(**shown._asdict()))
    if evaluation is not None:
        reply.evaluation.CopyFrom(messages.evaluation_to_message(evaluation))
