"""The specs of an environment, as an actor tells them to the inference service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tfdrl.rpc import inference_pb2
from tfdrl.types import ArraySpec, Nest, map_specs


class EnvironmentSpecs(NamedTuple):
    """What one environment's data look like on the wire.

    observation  specs of an observation's arrays, in order
    action       of an action's
    frame_stack  k frames in the last axis of the only observation, of which one travels; else 1
    observation_nest, action_nest  specs with their structure, which the wire does not know
    """

    observation: tuple[ArraySpec, ...]
    action: tuple[ArraySpec, ...]
    frame_stack: int
    observation_nest: Nest
    action_nest: Nest

    def __str__(self) -> str:
        parts = [
            "observation " + ", ".join(map(_spec_text, self.observation)),
            "action " + ", ".join(map(_spec_text, self.action)),
        ]
        if self.frame_stack > 1:
            parts.append(f"the newest of {self.frame_stack} stacked frames travels")
        return "; ".join(parts)


def environment_specs(environment: Any) -> EnvironmentSpecs:
    """The specs of a `BatchedEnvironment`."""
    return EnvironmentSpecs(
        tuple(flatten(environment.observation_spec)),
        tuple(flatten(environment.action_spec)),
        environment.frame_stack,
        environment.observation_spec,
        environment.action_spec,
    )


def flatten(specs: Nest, values: Nest = None) -> list:
    """The leaves of a nest of specs, or of values with this structure; keys in sorted order."""
    leaves: list = []
    if values is None:
        map_specs(leaves.append, specs)
    else:
        map_specs(lambda spec, value: leaves.append(value), specs, values)
    return leaves


def pack(specs: Nest, leaves: Sequence[np.ndarray]) -> Nest:
    """The nest of `leaves`, which are in the order of `flatten(specs)`."""
    iterator = iter(leaves)
    return map_specs(lambda spec: next(iterator), specs)


def specs_to_message(specs: EnvironmentSpecs, hello: inference_pb2.Hello) -> None:
    """Writes the specs into a Hello."""
    hello.frame_stack = specs.frame_stack
    hello.observation.extend(map(_spec_message, specs.observation))
    hello.action.extend(map(_spec_message, specs.action))


def specs_fit(specs: EnvironmentSpecs, hello: inference_pb2.Hello) -> bool:
    """Whether a Hello's specs are these. Compares lengths first: converting them takes a while."""
    theirs, ours = (hello.observation, hello.action), (specs.observation, specs.action)
    if [*map(len, theirs)] != [*map(len, ours)]:
        return False
    wanted = inference_pb2.Hello()
    specs_to_message(specs, wanted)
    return (
        list(wanted.observation) == list(hello.observation)
        and list(wanted.action) == list(hello.action)
        and wanted.frame_stack == max(hello.frame_stack, 1)
    )


def specs_in_words(hello: inference_pb2.Hello, limit: int = 1000) -> str:
    """A Hello's specs as `EnvironmentSpecs` prints them, cut if a stranger sent a book."""
    specs = EnvironmentSpecs(
        tuple(map(_spec_from_message, hello.observation[:50])),
        tuple(map(_spec_from_message, hello.action[:50])),
        max(hello.frame_stack, 1),
        None,
        None,
    )
    return str(specs)[:limit]


def _spec_message(spec: ArraySpec) -> inference_pb2.ArraySpec:
    values = spec.num_values if spec.is_discrete and not spec.shape else 0
    return inference_pb2.ArraySpec(dtype=spec.dtype.name, shape=spec.shape, num_values=values)


class _Written(NamedTuple):
    """An ArraySpec message, for `_spec_text`."""

    dtype: str
    shape: tuple[int, ...]
    num_values: int


def _spec_from_message(message: inference_pb2.ArraySpec) -> _Written:
    return _Written(message.dtype[:20], tuple(message.shape[:10]), message.num_values)


def _spec_text(spec: ArraySpec | _Written) -> str:
    if isinstance(spec, ArraySpec):
        spec = _spec_from_message(_spec_message(spec))
    values = f" of {spec.num_values} values" if spec.num_values else ""
    return f"{spec.dtype}{list(spec.shape)}{values}"
