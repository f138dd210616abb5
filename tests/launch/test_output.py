"""Standard output that cannot encode, or can no longer be written to."""

import io
import os
import sys

from tfdrl.launch import output


def test_what_cannot_be_encoded_is_replaced(monkeypatch):
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(data, encoding="ascii"))
    with output.unfailing():
        print("█░ 50 %", flush=True)
    assert data.getvalue() == b"?? 50 %\n"


def test_a_pipe_without_a_reader(monkeypatch):
    read_end, write_end = os.pipe()
    stream = open(write_end, "w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", stream)
    with output.unfailing():
        print("one", flush=True)
        assert os.read(read_end, 10) == b"one\n"
        os.close(read_end)
        print("two", flush=True)
        print("three" * 10_000, flush=True)
        assert not sys.stdout.isatty()
    stream.close()  # nothing is left that could fail


def test_a_stream_that_was_closed(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    with output.unfailing():
        stream.close()
        print("nobody reads it", flush=True)
    assert sys.stdout is stream
