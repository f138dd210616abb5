"""Which reports can be one program's: who sends them, and which evaluations count."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import grpc

from tfdrl.rpc import training_pb2
from tfdrl.rpc.grpc_server import RefusedError
from tfdrl.rpc.run_messages import Evaluation
from tfdrl.rpc.tensors import MessageError

if TYPE_CHECKING:
    from tfdrl.experiment import Experiment

_LOG = logging.getLogger(__name__)
#: Of a return, for what float32 rewards lose in a sum.
_TOLERANCE = 1e-3


class ReportRules(NamedTuple):
    """What reports of one program have in common. Without anything: everybody's are taken.

    Attributes:
      replicas: how many processes each role has, by its name; None: any.
      evaluators: roles whose evaluations count; None: any.
      evaluation_episodes: of each evaluation; None: any number.
      least_return, greatest_return: of an episode, as far as its environment says.
    """

    replicas: Mapping[str, int] | None = None
    evaluators: frozenset[str] | None = None
    evaluation_episodes: int | None = None
    least_return: float = -math.inf
    greatest_return: float = math.inf

    @classmethod
    def of(
        cls, experiment: Experiment, returns: tuple[float, float] = (-math.inf, math.inf)
    ) -> ReportRules:
        """The rules of an experiment's program.

        Args:
          experiment: whose architecture says which roles there are.
          returns: the least and the greatest return that an episode can have.
        """
        program = experiment.architecture.program()
        evaluators = frozenset(role.name for role in program.roles if role.exports)
        replicas = {role.name: role.replicas for role in program.roles} | dict(program.threads)
        # A program that exports nothing says of nobody that he evaluates.
        return cls(replicas, evaluators or None, experiment.evaluation_episodes, *returns)

    def has(self, role: str, task: int) -> bool:
        """Whether the program has this process."""
        return self.replicas is None or 0 <= task < self.replicas.get(role, 0)

    def check(self, request: training_pb2.ReportRequest) -> None:
        """Refuses a report that no process of the program sends.

        Raises RefusedError for an unknown sender, MessageError for an evaluation that is none.
        """
        sender = request.sender
        self.check_sender(sender)
        if request.HasField("evaluation"):
            self._check_evaluation(sender.role, request.evaluation)

    def check_sender(self, sender: training_pb2.Sender) -> None:
        """Raises RefusedError for a role or a task that the program has not."""
        if not self.has(sender.role, sender.task):
            there_are = ", ".join(f"{count} {name}" for name, count in self.replicas.items())
            raise RefusedError(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"{sender.role[:64]} {sender.task} is no process of this program, which has: "
                f"{there_are} (tasks count from 0)",
            )

    def why_not(self, evaluation: Evaluation) -> str:
        """Why the evaluation cannot be true; "" if it can."""
        least, greatest = self.least_return, self.greatest_return
        slack = self._slack()
        if least - slack <= evaluation.min and evaluation.max <= greatest + slack:
            return ""
        return (
            f"returns from {evaluation.min:g} to {evaluation.max:g}, where the environment says "
            f"that they lie between {least:g} and {greatest:g}"
        )

    def believed(
        self, evaluation: Evaluation | None, best: float | None
    ) -> tuple[Evaluation | None, float | None]:
        """The last evaluation and the best mean return of a checkpoint; None for what cannot be."""
        least, greatest = self.least_return, self.greatest_return
        if evaluation is not None:
            is_finite = all(map(math.isfinite, evaluation))
            why = self.why_not(evaluation) if is_finite else "a number that is not finite"
            if why:
                _LOG.error("THE CHECKPOINT HAS AN EVALUATION THAT CANNOT BE: %s; left out", why)
                evaluation = None
        slack = self._slack()
        if best is not None and not least - slack <= best <= greatest + slack:
            _LOG.error("THE CHECKPOINT HAS A BEST RETURN THAT CANNOT BE: %g; left out", best)
            best = None
        return evaluation, best

    def _slack(self) -> float:
        bounds = (abs(x) for x in (self.least_return, self.greatest_return) if math.isfinite(x))
        return _TOLERANCE * max(1.0, *bounds, 1.0)

    def _check_evaluation(self, role: str, evaluation: training_pb2.Evaluation) -> None:
        if self.evaluators is not None and role not in self.evaluators:
            evaluators = ", ".join(sorted(self.evaluators)) or "nobody"
            raise MessageError(f"an evaluation by {role}; here evaluates: {evaluators}")
        wanted = self.evaluation_episodes
        if wanted is not None and evaluation.episodes != wanted:
            raise MessageError(
                f"evaluation.episodes is {evaluation.episodes}; experiment.evaluation_episodes is "
                f"{wanted}"
            )
