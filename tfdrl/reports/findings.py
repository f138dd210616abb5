"""What a run's numbers say, in words: each sentence by a rule, and none without its numbers."""

from __future__ import annotations

from typing import NamedTuple

from tfdrl.reports import words
from tfdrl.reports.measured import Numbers
from tfdrl.reports.run import Run

#: Shares of time that differ by less say nothing about who waits for whom.
CLEAR = 0.1
#: With one share alone: above it somebody mostly waits, below `CLEAR` hardly ever.
MOSTLY = 0.5
#: Part of a machine's cores from which on they are all in use.
FULL = 0.9


class Bottleneck(NamedTuple):
    """The role that the others wait for, "" if there is none, and the sentence that says so."""

    role: str
    words: str


def bottleneck(run: Run, numbers: Numbers) -> Bottleneck:
    """Whom the others wait for, as far as the waiting was measured."""
    if len(run.program.roles) == 1:
        return Bottleneck("", "One process acts and learns in turn: nobody waits for another.")
    shares = {name: role.waiting_share for name, role in numbers.roles.items()}
    acting, learning = shares.get("actor"), shares.get("learner")
    if acting is not None and learning is not None:
        return _of_two(acting, learning)
    if learning is not None:
        return _of_learner(learning)
    if shares.get("worker") is not None:
        return _of_workers(shares["worker"])
    return Bottleneck("", "Who waited for whom was not measured in this run.")


def _of_two(acting: float, learning: float) -> Bottleneck:
    facts = (
        f"The learner waited {words.share(learning)} of the time, the actors {words.share(acting)}"
    )
    if acting - learning >= CLEAR:
        return Bottleneck("learner", f"{facts}: the learner is the bottleneck.")
    if learning - acting >= CLEAR:
        return Bottleneck("actor", f"{facts}: acting is the bottleneck.")
    return Bottleneck("", f"{facts}: neither is clearly the bottleneck.")


def _of_learner(learning: float) -> Bottleneck:
    facts = f"The learner waited {words.share(learning)} of the time for experience"
    if learning >= MOSTLY:
        return Bottleneck("actor", f"{facts}: acting is the bottleneck.")
    if learning <= CLEAR:
        return Bottleneck("learner", f"{facts}: training is the bottleneck.")
    return Bottleneck("", f"{facts}: neither acting nor training is clearly the bottleneck.")


def _of_workers(share: float) -> Bottleneck:
    facts = f"The workers spent {words.share(share)} of the time on exchanges with the servers"
    if share >= MOSTLY:
        return Bottleneck("parameter_server", f"{facts}: the parameter servers hold them up.")
    if share <= CLEAR:
        return Bottleneck("worker", f"{facts}: their own computing is the bottleneck.")
    return Bottleneck("", f"{facts}: neither these nor computing is clearly the bottleneck.")


def findings(run: Run, numbers: Numbers) -> list[str]:
    """All sentences about one run."""
    found = [
        _outcome(run, numbers),
        bottleneck(run, numbers).words,
        _cores(numbers),
        _staleness(numbers),
        _dropped(numbers),
        _bytes(numbers),
    ]
    return [sentence for sentence in found if sentence]


def _outcome(run: Run, numbers: Numbers) -> str:
    if not run.evaluations:
        return "No evaluation was made, so that nothing is known of how good the policy is."
    target, best = run.facts.solved_return, max(row["mean"] for row in run.evaluations)
    reached = first_reached(run, target)
    if reached is not None:
        return (
            f"It reached a mean return of {words.number(target)} after "
            f"{reached['frames']:,.0f} frames and {words.duration(reached['seconds'])} of training."
        )
    last = f"after {numbers.frames:,.0f} frames" if numbers.frames else "so far"
    goal = "" if target is None else f"; the target is {words.number(target)}"
    return f"Its best mean return was {words.number(best)} {last}{goal}."


def first_reached(run: Run, target: float | None) -> dict[str, float] | None:
    """The first evaluation whose mean return is the target at least; None without one."""
    if target is None:
        return None
    return next((row for row in run.evaluations if row["mean"] >= target), None)


def _cores(numbers: Numbers) -> str:
    used = numbers.cpu_cores
    if used is None:
        return ""
    facts = f"All roles together used {used:.1f} of {numbers.cores} cores"
    if used >= FULL * numbers.cores:
        return f"{facts}: the machine was full, and each role took time from the others."
    return f"{facts}."


def _staleness(numbers: Numbers) -> str:
    if numbers.policy_lag is not None:
        age = numbers.sample_age_secs
        seconds = "" if age is None else f" ({words.number(age)} s)"
        lag = words.number(numbers.policy_lag)
        return f"What was trained on was acted {lag} learner steps before{seconds}, on average."
    if numbers.gradient_age is not None:
        age = words.number(numbers.gradient_age)
        return f"A gradient was {age} updates old when it was applied, on average."
    return ""


def _dropped(numbers: Numbers) -> str:
    applied, dropped = numbers.gradients_rate, numbers.dropped_rate
    if not applied or dropped is None:
        return ""
    share = dropped / (applied + dropped)
    return f"Of the gradients {100 * share:.1f} % were dropped, as too old or as outliers."


def _bytes(numbers: Numbers) -> str:
    each = numbers.bytes_per_frame
    if each is None:
        return ""
    return f"For each environment frame {words.number(each)} bytes passed between roles."
