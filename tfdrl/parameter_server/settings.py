"""How the parameter servers update and guard the global parameters: one block of a gin file.

Nothing here imports TensorFlow, so that a wrong setting is refused before any process starts.
"""

from __future__ import annotations

import dataclasses
import math

import gin

from tfdrl.errors import ConfigurationError

RULES = ("sgd", "adagrad", "rmsprop", "adam")
_EPSILON = {"sgd": 0.0, "adagrad": 1e-8, "rmsprop": 0.1, "adam": 1e-8}


@gin.configurable("parameter_server")
@dataclasses.dataclass(frozen=True)
class ParameterServerSettings:
    """Settings of every shard of the parameter server.

    Attributes:
      rule: "sgd", "adagrad" (Gorila), "rmsprop" (A3C: one average of squares for all workers,
        non-centred, epsilon inside the root) or "adam".
      learning_rate: of the first update.
      anneal_steps: the learning rate falls linearly to 0 over so many global steps (A3C); agent
        steps, summed over all workers. None: it stays.
      decay: of RMSProp's average of squares.
      epsilon: None: 0.1 for RMSProp, inside the root; 1e-8 for AdaGrad and Adam, outside of it.
      initial_accumulator: of AdaGrad's sums of squares; the paper's rule starts at 0.
      beta_1, beta_2: of Adam.
      max_gradient_age: updates that may come between the parameters that a gradient was computed
        from and its arrival; older ones are rejected (Nair 2015, section 5). None: all are taken.
      snapshots: how many the ring holds; 0: no rollback.
      snapshot_period_updates: updates of a shard between two snapshots.
      checkpoint_period_secs: between checkpoints; 0: only at the end.
      rollback_loss_factor: goes back to a snapshot if the mean |loss| of a second exceeds so many
        times the mean of those before (since the server's start, and 200 updates at the least);
        what a rollback has discarded does not count, as far as 200 are left. None: never.
      rollback_nonfinite: the same after so many gradients in a row that were not finite; None.
      max_rollbacks: automatic ones in a run; one more would be exit code 3, training diverged.
    """

    rule: str = "rmsprop"
    learning_rate: float = 7e-4
    anneal_steps: int | None = None
    decay: float = 0.99
    epsilon: float | None = None
    initial_accumulator: float = 0.0
    beta_1: float = 0.9
    beta_2: float = 0.999
    max_gradient_age: int | None = None
    snapshots: int = 5
    snapshot_period_updates: int = 1000
    checkpoint_period_secs: float = 60.0
    rollback_loss_factor: float | None = None
    rollback_nonfinite: int | None = 20
    max_rollbacks: int = 3

    def __post_init__(self):
        if self.rule not in RULES:
            raise ConfigurationError(
                f"parameter_server.rule = {self.rule!r} is unknown; use one of {', '.join(RULES)}"
            )
        self._require("learning_rate", "a finite number above 0", lambda x: 0 < x < math.inf)
        for name in ("decay", "beta_1", "beta_2"):
            self._require(name, "at least 0 and below 1", lambda x: 0 <= x < 1)
        self._require("initial_accumulator", "0 or more", lambda x: x >= 0)
        self._require("snapshot_period_updates", "1 or more", lambda x: x >= 1)
        for name in ("snapshots", "checkpoint_period_secs", "max_rollbacks"):
            self._require(name, "0 or more", lambda x: x >= 0)
        optional = {
            "anneal_steps": ("1 or more, or None", lambda x: x >= 1),
            "epsilon": ("above 0, or None", lambda x: x > 0),
            "max_gradient_age": ("0 or more, or None", lambda x: x >= 0),
            "rollback_loss_factor": ("above 1, or None", lambda x: x > 1),
            "rollback_nonfinite": ("1 or more, or None", lambda x: x >= 1),
        }
        for name, (wanted, holds) in optional.items():
            if getattr(self, name) is not None:
                self._require(name, wanted, holds)

    @property
    def rule_epsilon(self) -> float:
        """The rule's epsilon: the one set, or the rule's own."""
        return _EPSILON[self.rule] if self.epsilon is None else self.epsilon

    def _require(self, name: str, wanted: str, holds) -> None:
        value = getattr(self, name)
        if not holds(value):
            raise ConfigurationError(f"parameter_server.{name} = {value} must be {wanted}")
