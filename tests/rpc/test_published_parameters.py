"""Published parameters: the bytes are protobuf's own; arrays are copied once, and read in place."""

import tracemalloc

import numpy as np
import pytest
from google.protobuf import message as protobuf

from tfdrl.errors import ConfigurationError
from tfdrl.rpc import parameter_messages, tensors, training_pb2
from tfdrl.rpc.published_parameters import PublishedParameters

_FLOATS = np.arange(24, dtype=np.float32).reshape(4, 6)


def published(arrays, max_message_bytes=1 << 30):
    parameters = PublishedParameters(max_message_bytes)
    parameters.publish(7, arrays)
    return parameters.reply_to(-1)


@pytest.mark.parametrize(
    "arrays",
    [
        [np.zeros((2, 3), dtype) for dtype in sorted(tensors.DTYPES)],
        [np.float32(3.5), np.array(True), np.int64(-1)],
        [_FLOATS.T, _FLOATS[::2, ::-1], np.asfortranarray(_FLOATS), _FLOATS.astype(">f4")],
        [np.arange(200, dtype=np.int64), np.ones((1,) * tensors.MAX_RANK), np.ones(1 << 16)],
    ],
    ids=["dtypes", "scalars", "layouts", "sizes"],
)
def test_the_reply_is_the_message_that_protobuf_writes(arrays):
    expected = training_pb2.ParametersReply(
        modified=True, version=7, tensors=[tensors.encode(array) for array in arrays]
    )
    assert published(arrays) == expected.SerializeToString()


@pytest.mark.parametrize("count", [0, 3, 5000])
def test_what_is_read_is_what_was_published(count):
    arrays = [np.full((2, i % 3), i, np.float64) for i in range(count)]
    version, found = parameter_messages.read(published(arrays))
    assert version == 7 and len(found) == count
    for left, right in zip(found, arrays):
        assert left.dtype == right.dtype and left.shape == right.shape
        np.testing.assert_array_equal(left, right)


def test_what_is_read_is_not_copied():
    reply = published([_FLOATS, np.ones(1 << 16)])
    _, found = parameter_messages.read(reply)
    for array in found:
        assert np.shares_memory(array, np.frombuffer(reply, np.uint8))
        assert not array.flags.writeable


def test_a_reply_without_parameters_is_none():
    parameters = PublishedParameters(1 << 20)
    assert parameter_messages.read(parameters.reply_to(-1)) is None
    parameters.publish(3, [_FLOATS])
    assert parameter_messages.read(parameters.reply_to(3)) is None


@pytest.mark.parametrize("cut", [1, 50, 97])
def test_a_broken_reply_is_refused(cut):
    with pytest.raises((tensors.MessageError, protobuf.DecodeError)):
        parameter_messages.read(published([_FLOATS])[:-cut])


def test_large_arrays_are_copied_once():
    """The protobuf library copies them four times."""
    arrays = [np.ones(1 << 20, np.float32), np.ones((512, 2048), np.float32)]
    tracemalloc.start()
    try:
        reply = published(arrays)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(reply) <= peak_bytes < 1.1 * len(reply)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ([_FLOATS, np.array(["text"])], "parameter 1 has dtype 'str"),
        ([np.zeros((1,) * 9)], "parameter 0 has 9 dimensions; at most 8 may travel"),
        ([np.zeros(1000)], "parameters of 8000 bytes cannot be published: max_message_bytes"),
    ],
)
def test_what_cannot_travel_is_not_published(arrays, words):
    with pytest.raises(ConfigurationError, match=words):
        published(arrays, max_message_bytes=5000)
