"""What is trained, and until when: the head of every gin file."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import gin

from tfdrl.errors import ConfigurationError, text_of

#: Seeds of environments and actors are some millions above; all must fit into 32 bits.
MAX_SEED = 2_000_000_000


@gin.configurable("experiment")
@dataclasses.dataclass(frozen=True)
class Experiment:
    """One training run. It ends at the first limit that it reaches; without one it runs on.

    Attributes:
      architecture: an object with `program() -> topology.Program`, such as `@apex()` in gin.
      seed: of everything random; from 0 to `MAX_SEED`.
      solved_return: ends when the mean return of an evaluation reaches it.
      evaluation_episodes: episodes of one evaluation.
      evaluation_policy: `policy(agent, num_envs, seed)` -> TFPolicy that plays them, such as
        @acting_policy; None: the agent's greedy policy, which is exported in any case.
      max_frames: ends after so many environment frames, summed over the actors.
      max_learner_steps: ends after so many gradient steps.
      max_minutes: ends after so many minutes of training since the start or restart: from the first
        frame or learner step on.
    """

    architecture: Any = gin.REQUIRED
    seed: int = 1
    solved_return: float | None = None
    evaluation_episodes: int = 100
    evaluation_policy: Callable | None = None
    max_frames: int | None = None
    max_learner_steps: int | None = None
    max_minutes: float | None = None

    def __post_init__(self) -> None:
        is_class = isinstance(self.architecture, type)
        if is_class or not callable(getattr(self.architecture, "program", None)):
            raise ConfigurationError(_not_an_architecture(self.architecture))
        in_range = lambda x: _whole(x) and 0 <= x <= MAX_SEED  # noqa: E731
        _require("seed", self.seed, f"a whole number from 0 to {MAX_SEED:,}", in_range)
        for name in ("max_frames", "max_learner_steps", "evaluation_episodes"):
            value = getattr(self, name)
            if value is not None or name == "evaluation_episodes":
                _require(name, value, "a whole number above 0", lambda x: _whole(x) and x > 0)
        if self.max_minutes is not None:
            _require("max_minutes", self.max_minutes, "a number above 0", lambda x: _real(x, 0))
        if self.solved_return is not None:
            _require("solved_return", self.solved_return, "a finite number", _real)

    @classmethod
    def from_gin(cls) -> Experiment:
        """The experiment that the loaded gin files describe.

        Raises:
          ConfigurationError: no architecture is bound, or something below it does not fit.
        """
        try:
            gin.query_parameter("experiment.architecture")
        except ValueError:
            raise ConfigurationError(
                "this gin file does not say which architecture; write "
                "experiment.architecture = @apex() or another one's name"
            ) from None
        try:
            return cls()
        except ConfigurationError as error:
            raise ConfigurationError(text_of(error)) from error
        except (RuntimeError, TypeError) as error:
            # Only gin's complaints about what the gin file lacks; other errors are faults.
            if "Required bindings for" in str(error) or "No values supplied by Gin" in str(error):
                raise ConfigurationError(str(error)) from error
            raise


def _not_an_architecture(value: Any) -> str:
    if callable(value):
        name = getattr(value, "__name__", "apex")
        return f"experiment.architecture = @{name} only names it; write @{name}() to make it"
    return (
        f"experiment.architecture must be an architecture such as @apex(), not {value!r}, "
        "which has no program()"
    )


def _require(name: str, value: Any, wanted: str, holds) -> None:
    if not holds(value):
        raise ConfigurationError(f"experiment.{name} must be {wanted}, not {value!r}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _real(value: Any, above: float = -math.inf) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and math.isfinite(value)
        and value > above
    )
