"""Published parameters: the bytes are protobuf's own, and the arrays are copied once."""

import time

import numpy as np
import pytest

from tfdrl.errors import ConfigurationError
from tfdrl.rpc import tensors, training_pb2
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


def test_arrays_without_elements_arrive_as_such():
    reply = training_pb2.ParametersReply.FromString(published([np.zeros((2, 0, 4)), _FLOATS]))
    empty, floats = map(tensors.decode, reply.tensors)
    assert empty.shape == (2, 0, 4) and empty.dtype == np.float64
    np.testing.assert_array_equal(floats, _FLOATS)


def cpu_secs(work):
    """The least of some turns."""
    found = []
    for _ in range(9):
        start_secs = time.thread_time()
        work()
        found.append(time.thread_time() - start_secs)
    return min(found)


def test_large_arrays_are_copied_once():
    """The protobuf library copies them four times."""
    arrays = [np.ones(1 << 20, np.float32), np.ones((512, 2048), np.float32)]
    copying_secs = cpu_secs(lambda: b"".join(array.data.cast("B") for array in arrays))
    assert cpu_secs(lambda: published(arrays)) < 2.5 * copying_secs


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
