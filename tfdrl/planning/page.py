"""A plan as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tfdrl.planning.amounts import show_bytes
from tfdrl.planning.costs import Costs
from tfdrl.planning.prediction import Prediction

_MOST_SHOWN = 8


def as_text(
    name: str, found: Prediction, more: Mapping[str, float], costs: Costs, per_step: int
) -> str:
    """The page.

    Args:
      name: of the architecture.
      found: what is predicted.
      more: what one more machine of each group brings.
      costs: with those that were taken as nothing.
      per_step: environment frames of a step.
    """
    processes = ", ".join(f"{count} {role}" for role, count in found.replicas.items())
    rows = [
        ("processes", processes),
        ("environment frames", f"{found.frames_per_second:,.0f} frames/s ({per_step} a step)"),
        ("learner steps", f"{found.learner_steps_per_second:,.3g} learner steps/s"),
        ("bottleneck", f"{found.bottleneck}: {100 * found.use[found.bottleneck]:.0f} % in use"),
    ]
    for group, gain in more.items():
        rows.append((f"one more {group} machine", f"{100 * gain:+.1f} % frames/s"))
    if found.lag_steps is not None:
        rows.append(("policy lag", f"{found.lag_steps:,.1f} learner steps"))
    if found.replay_bytes is not None:
        rows.append(("a full replay", show_bytes(found.replay_bytes)))
    if found.dollars_per_billion_frames is not None:
        rows.append(("a billion frames", f"${found.dollars_per_billion_frames:,.0f}"))
    width = max(len(label) for label, _ in rows)
    lines = [f"Plan of {name}, costs {costs.source}"]
    lines += [f"  {label:<{width}}  {value}" for label, value in rows]
    lines += ["In use, of its time or of what it has"]
    lines += [
        f"  {100 * share:>4.0f} %  {station}"
        for station, share in list(found.use.items())[:_MOST_SHOWN]
    ]
    if costs.assumed:
        lines.append(f"Taken as nothing, for want of a cost: {', '.join(sorted(costs.assumed))}")
    lines.append(f"Simulated: {found.simulated_secs:,.3g} s")
    if not found.is_settled:
        lines.append("That is too short to rely on: raise --events")
    return "\n".join(lines)


def as_json(found: Prediction, more: Mapping[str, float], costs: Costs) -> dict:
    """For json.dump; times in seconds, sizes in bytes, gains as shares."""
    return {
        **found._asdict(),
        "one_more_machine": dict(more),
        "costs": costs.source,
        "taken_as_nothing": sorted(costs.assumed),
    }


def table(role: str, found: Sequence[tuple[int, Prediction]]) -> str:
    """Of a sweep."""
    head = f"{role + 's':>8}  {'frames/s':>12}  {'learner steps/s':>15}  {'lag':>8}  bottleneck"
    lines = [head]
    for count, one in found:
        lag = "-" if one.lag_steps is None else f"{one.lag_steps:,.1f}"
        share = 100 * one.use[one.bottleneck]
        lines.append(
            f"{count:>8}  {one.frames_per_second:>12,.0f}  {one.learner_steps_per_second:>15,.3g}"
            f"  {lag:>8}  {one.bottleneck} ({share:.0f} %)"
            + ("" if one.is_settled else ", too short to rely on: raise --events")
        )
    return "\n".join(lines)
