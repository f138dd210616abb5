"""Finds out, before Reverb crashes, whether it would take two processes for one.

A Reverb server that is asked from 127.0.0.1 by a process with its own process id answers with
the address of its table in memory, and the sampler follows it. In containers that share a
network but not their process ids both are often process 1: the sampler would die of SIGSEGV.
"""

from __future__ import annotations

import os

import grpc

from tfdrl.errors import ConfigurationError
from tfdrl.rpc import channels
from tfdrl.topology import Address

_METHOD = "/deepmind.reverb.ReverbService/InitializeConnection"
_TIMEOUT_SECS = 5.0


def require_other_process(address: Address, table: str) -> None:
    """Raises ConfigurationError if the server takes this process for its own.

    A server that does not answer is no error here: whoever samples will wait for it.
    """
    options = channels.channel_options(1 << 20, 1 << 20)
    with grpc.insecure_channel(str(address), options=options) as channel:
        try:
            replies = channel.stream_stream(_METHOD)(
                iter([_request(os.getpid(), table)]), timeout=_TIMEOUT_SECS
            )
            shares_memory = any(replies)  # an empty message: address 0, another process
        except grpc.RpcError:
            return
    if shares_memory:
        raise ConfigurationError(
            f"the replay server at {address} has the same process id as this process, "
            f"{os.getpid()}, in another container: Reverb would take them for one process and "
            "crash. Reach it by an address that is not loopback, or let the containers share "
            "their process ids"
        )


def _request(pid: int, table: str) -> bytes:
    # InitializeConnectionRequest, written out: int64 pid = 1, string table_name = 2.
    name = table.encode()
    return b"\x08" + _varint(pid) + b"\x12" + _varint(len(name)) + name


def _varint(value: int) -> bytes:
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])
