"""What an actor and the inference service say to each other, checked at the door."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from google.protobuf import message as protobuf

from tfdrl.rpc import inference_pb2, protobuf_views, tensors, training_pb2
from tfdrl.rpc.array_reader import ArrayReader
from tfdrl.rpc.environment_specs import EnvironmentSpecs, flatten, specs_to_message
from tfdrl.rpc.tensors import MessageError
from tfdrl.types import FIRST, LAST, MID, TimeSteps, stack_starts

SERVICE = "tfdrl.v1.Inference"
METHOD = "Act"
#: Changes when an old actor and a new learner would misunderstand each other.
PROTOCOL_VERSION = 1
#: Beside the observations: rewards, the episodes that ended, lengths of fields.
_OVERHEAD_BYTES = 1 << 20
#: Beside the specs: the sender.
_HELLO_BYTES = 4 << 10
#: Numbers of fields whose values are not copied: of ActRequest and of Steps.
_HELLO, _STEPS = 1, 2
_STEP_TYPE, _REWARD, _DISCOUNT, _OBSERVATION = 2, 3, 4, 5
_UINT8, _FLOAT32 = np.dtype(np.uint8), np.dtype(np.float32)
_STEP_TYPES = bytes([FIRST, MID, LAST])
#: An array that is missing.
_NOTHING = memoryview(b"")


def max_hello_bytes(specs: EnvironmentSpecs) -> int:
    """The size that a Hello can have: these specs, twice, and a few kB."""
    hello = inference_pb2.Hello()
    specs_to_message(specs, hello)
    return 2 * hello.ByteSize() + _HELLO_BYTES


def max_request_bytes(specs: EnvironmentSpecs, environments: int) -> int:
    """The size that a message with a step of so many environments can have."""
    one = sum(int(np.prod(spec.shape)) * spec.dtype.itemsize for spec in specs.observation)
    return environments * (one + 16) + _OVERHEAD_BYTES


class Steps(NamedTuple):
    """A `Steps` message whose arrays are views of the bytes that came, Tensor messages each.

    message      everything else of it
    arrays       by number: step_type, reward, discount
    observation  leaves
    """

    message: inference_pb2.Steps
    arrays: dict[int, memoryview]
    observation: list[memoryview]


def _sent_shapes(specs: EnvironmentSpecs, environments: int) -> list[tuple[int, ...]]:
    """Of the arrays of N environments' observations: of stacked frames the newest travels."""
    shapes = (spec.shape for spec in specs.observation)
    if specs.frame_stack > 1:
        shapes = ((*shape[:-1], 1) for shape in shapes)
    return [(environments, *shape) for shape in shapes]


class StepsEncoder:
    """Writes ActRequests with one step of N environments; stacked frames shrink to the newest.

    What does not change from step to step is written once.

    Args:
      specs: of one environment.
      environments: N.
    """

    def __init__(self, specs: EnvironmentSpecs, environments: int):
        self._specs = specs
        zeros = np.zeros(environments, np.float32)
        self._small = inference_pb2.Steps(
            step_type=tensors.encode(zeros.astype(np.uint8)),
            reward=tensors.encode(zeros),
            discount=tensors.encode(zeros),
        )
        self._shapes, self._dtypes, self._heads = [], [], []
        self._large_bytes = 0
        for spec, shape in zip(specs.observation, _sent_shapes(specs, environments)):
            dtype = tensors.DTYPES[tensors.name_of(spec.dtype)]
            self._shapes.append(shape)
            self._dtypes.append(dtype)
            self._heads.append(protobuf_views.tensor_head(_OBSERVATION, dtype, shape))
            self._large_bytes += len(self._heads[-1]) + int(np.prod(shape)) * dtype.itemsize

    def encode(
        self, index: int, steps: TimeSteps, frames: int, episodes: training_pb2.Episodes | None
    ) -> bytes:
        """The message of step `index`. Raises ValueError if arrays are not of the specs' shapes."""
        # A message of its own for each step: one that is used again keeps every value it ever had.
        small = inference_pb2.Steps()
        small.CopyFrom(self._small)
        small.index, small.frames = index, frames
        small.step_type.data = steps.step_type.astype(np.uint8).tobytes()
        small.reward.data = steps.reward.tobytes()
        small.discount.data = steps.discount.tobytes()
        if episodes is not None:
            small.episodes.CopyFrom(episodes)
        leaves = flatten(self._specs.observation_nest, steps.observation)
        if self._specs.frame_stack > 1:
            small.stack_starts = stack_starts(steps.step_type, leaves[0]).tobytes()
            leaves = [leaves[0][..., -1:]]
        small_bytes = small.SerializeToString()
        parts = [protobuf_views.head(_STEPS, len(small_bytes) + self._large_bytes), small_bytes]
        for leaf, shape, dtype, head in zip(leaves, self._shapes, self._dtypes, self._heads):
            if leaf.shape != shape:
                raise ValueError(f"an observation array has shape {leaf.shape}; expected {shape}")
            parts += [head, np.ascontiguousarray(leaf, dtype).data]
        return b"".join(parts)


def parse_request(data: bytes) -> inference_pb2.Hello | Steps | None:
    """What an ActRequest says; None if it says nothing. Raises MessageError."""
    found = None
    try:
        for number, kind, _, value in protobuf_views.fields(memoryview(data)):
            if kind == protobuf_views.LENGTH_DELIMITED and number == _HELLO:
                found = inference_pb2.Hello.FromString(bytes(value))
            elif kind == protobuf_views.LENGTH_DELIMITED and number == _STEPS:
                found = _parse_steps(value)
    except (protobuf.DecodeError, UnicodeDecodeError, MessageError) as error:
        raise MessageError(
            f"{len(data)} bytes that are not a tfdrl.v1.ActRequest message: {error}"
        ) from None
    return found


def _parse_steps(message: memoryview) -> Steps:
    rest, arrays, observation = [], {}, []
    for number, kind, field, value in protobuf_views.fields(message):
        if kind != protobuf_views.LENGTH_DELIMITED:
            rest.append(field)
        elif number == _OBSERVATION:
            observation.append(value)
        elif number in (_STEP_TYPE, _REWARD, _DISCOUNT):
            arrays[number] = value
        else:
            rest.append(field)
    return Steps(inference_pb2.Steps.FromString(b"".join(rest)), arrays, observation)


class StepsValidator:
    """Lets steps of N environments in, if they are what they should be.

    Args:
      specs: of one environment.
      environments: N; also an attribute.
    """

    def __init__(self, specs: EnvironmentSpecs, environments: int):
        self.environments, one_each = environments, (environments,)
        self._zeros = np.zeros(environments, np.float32)
        self._ones = np.ones(environments, np.float32).tobytes()
        self._step_type = ArrayReader(_UINT8, one_each, "step_type")
        self._reward = ArrayReader(_FLOAT32, one_each, "reward")
        self._discount = ArrayReader(_FLOAT32, one_each, "discount")
        shapes = enumerate(zip(specs.observation, _sent_shapes(specs, environments)))
        self._observation = [
            ArrayReader(spec.dtype, shape, f"observation {i}") for i, (spec, shape) in shapes
        ]

    def time_steps(self, steps: Steps) -> TimeSteps:
        """The steps; the observation is a list of leaves, as they travelled.

        Raises MessageError for wrong dtypes, shapes, step types, or numbers that are not finite.
        """
        arrays = steps.arrays
        step_type = self._step_type.read(arrays.get(_STEP_TYPE, _NOTHING))
        # Deletes what may be there: one call on bytes takes a fifth of a numpy reduction.
        if step_type.tobytes().translate(None, _STEP_TYPES):
            raise MessageError(f"a step_type is {step_type.max()}; it is 0 FIRST, 1 MID or 2 LAST")
        reward = self._reward.read(arrays.get(_REWARD, _NOTHING))
        # Zero times anything finite is zero: one call where isfinite needs two.
        if reward.dot(self._zeros) != 0:
            raise MessageError("reward has a number that is not finite")
        discount = self._discount.read(arrays.get(_DISCOUNT, _NOTHING))
        is_usual = discount.tobytes() == self._ones
        if not is_usual and not (discount.min() >= 0 and discount.max() <= 1):
            raise MessageError("a discount is outside 0 to 1")
        starts = steps.message.stack_starts
        if starts and (len(starts) != self.environments or starts.strip(b"\0\1")):
            raise MessageError(
                f"stack_starts has {len(starts)} bytes; a 0 or 1 for each of {self.environments} "
                "environments is needed, or nothing"
            )
        if len(steps.observation) != len(self._observation):
            raise MessageError(
                f"{len(steps.observation)} observation arrays; expected {len(self._observation)}"
            )
        leaves = []
        for i, (reader, tensor) in enumerate(zip(self._observation, steps.observation)):
            leaf = reader.read(tensor)
            if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
                raise MessageError(f"observation {i} has a number that is not finite")
            leaves.append(leaf)
        return TimeSteps(step_type.astype(np.int32), reward, discount, leaves)


def check_order(step_type: np.ndarray, before: np.ndarray | None) -> None:
    """Raises MessageError unless episodes follow each other: FIRST after LAST and only there.

    Args:
      step_type: <int32>[N].
      before: those of the step before; None at index 0, where all are FIRST.
    """
    first = step_type == FIRST
    if before is None:
        if not first.all():
            raise MessageError("the steps of index 0 must be FIRST: reset all environments")
    elif (first ^ (before == LAST)).any():
        wrong = int(np.flatnonzero(first != (before == LAST))[0])
        raise MessageError(
            f"environment {wrong} of the block went from step_type {before[wrong]} to "
            f"{step_type[wrong]}; a FIRST step follows a LAST one and nothing else"
        )
