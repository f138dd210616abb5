"""TLS and a shared token for tfdrl's own services, and for the channels to them."""

from __future__ import annotations

import dataclasses
import hmac
import os
import pathlib
import ssl
import time
from collections.abc import Iterable, Mapping

import grpc

from tfdrl.errors import ConfigurationError
from tfdrl.rpc import channels
from tfdrl.topology import Address, Context

TOKEN_VARIABLE = "TFDRL_TOKEN"
_HEADER = "authorization"
_MIN_TOKEN_CHARACTERS = 16
_MAX_FILE_BYTES = 1 << 20
_POLL_SECS = 0.3  # a little more than grpc's own


@dataclasses.dataclass(frozen=True)
class Security:
    """What a process shows and what it asks for. Without anything: no encryption, no questions.

    Attributes:
      certificate, key: PEM, of this process; a server needs them for TLS, a client where the
        server asks for them.
      authority: PEM certificates that the other side's must be signed by. A client needs it for
        TLS; a server that has it asks every client for a certificate (mutual TLS).
      token: that every call carries: over TLS, or on this machine.
    """

    certificate: bytes = b""
    key: bytes = dataclasses.field(default=b"", repr=False)
    authority: bytes = b""
    token: str = dataclasses.field(default="", repr=False)

    def __post_init__(self):
        if bool(self.certificate) != bool(self.key):
            raise ConfigurationError("--tls_certificate and --tls_key belong together; give both")
        if not self.token:
            return
        if len(self.token) < _MIN_TOKEN_CHARACTERS or not self.token.isascii():
            raise ConfigurationError(
                f"the token has {len(self.token)} characters; it needs {_MIN_TOKEN_CHARACTERS} or "
                "more, ASCII only, such as the output of `openssl rand -hex 32`"
            )

    @classmethod
    def from_files(
        cls,
        certificate: str = "",
        key: str = "",
        authority: str = "",
        token_file: str = "",
        environment: Mapping[str, str] = os.environ,
    ) -> Security:
        """Reads the files of the flags; with TLS, the token from `TFDRL_TOKEN` without a file.

        Raises ConfigurationError that names the flag of a file that cannot be read, or is none.
        """
        found = cls(
            _read("tls_certificate", certificate),
            _read("tls_key", key),
            _read("tls_ca", authority),
            _read("token_file", token_file).decode("utf-8", "replace").strip(),
        )
        if token_file and not found.token:
            raise ConfigurationError(f"--token_file={token_file} is empty")
        _check_files(certificate, key, authority)
        if found.is_given and not found.token:
            found = dataclasses.replace(found, token=environment.get(TOKEN_VARIABLE, ""))
        return found

    @property
    def is_given(self) -> bool:
        """Whether there is any TLS."""
        return bool(self.certificate or self.authority)

    @property
    def can_serve_encrypted(self) -> bool:
        """Whether a server of this process has TLS."""
        return bool(self.certificate)

    def check_listener(self, address: Address) -> None:
        """Raises ConfigurationError if the token would come here in the clear from elsewhere."""
        if self.token and not (self.can_serve_encrypted or address.is_loopback):
            raise _in_the_clear(address)

    def check_peer(self, address: Address) -> None:
        """Raises ConfigurationError if the token would travel there in the clear."""
        if self.token and not (self.authority or address.is_loopback):
            raise _in_the_clear(address)

    def listen(self, server: grpc.aio.Server, address: Address) -> int:
        """Opens the server's port, with TLS if it can; returns it. Raises as grpc does."""
        self.check_listener(address)
        if not self.can_serve_encrypted:
            return server.add_insecure_port(str(address))
        credentials = grpc.ssl_server_credentials(
            [(self.key, self.certificate)],
            root_certificates=self.authority or None,
            require_client_auth=bool(self.authority),
        )
        return server.add_secure_port(str(address), credentials)

    def channel(self, address: Address, options: channels.Options) -> grpc.Channel:
        """A channel, with TLS if an authority is known."""
        self.check_peer(address)
        if not self.authority:
            return grpc.insecure_channel(str(address), options)
        credentials = grpc.ssl_channel_credentials(
            self.authority, self.key or None, self.certificate or None
        )
        channel = grpc.secure_channel(str(address), credentials, options)
        # A channel makes progress while somebody waits for it. A handshake, unlike a plain connect,
        # needs some: between two short calls it would never end.
        channel.subscribe(_go_on, try_to_connect=True)
        return channel

    def close(self, channel: grpc.Channel) -> None:
        """Closes what `channel` returned."""
        if self.authority:
            channel.unsubscribe(_go_on)
            time.sleep(_POLL_SECS)  # grpc's waiting thread complains of a closed channel
        channel.close()

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a client sends with every call."""
        return ((_HEADER, f"Bearer {self.token}"),) if self.token else ()

    def lets_in(self, metadata: Iterable[tuple[str, str | bytes]]) -> bool:
        """Whether a call with this metadata has the token. Takes the same time if it has not."""
        if not self.token:
            return True
        wanted = f"Bearer {self.token}".encode()
        found = b""
        for name, value in metadata:
            if name == _HEADER:
                found = value.encode() if isinstance(value, str) else value
        return hmac.compare_digest(found, wanted)


def _in_the_clear(address: Address) -> ConfigurationError:
    return ConfigurationError(
        f"a token would travel in the clear, at {address}: give --tls_certificate and --tls_key to "
        "the learner and --tls_ca to the others, or no --token_file"
    )


def of(context: Context) -> Security:
    """The security of a role's process."""
    return context.security or Security()


def _go_on(connectivity: grpc.ChannelConnectivity) -> None:
    """Waits with a channel; see `Security.channel`."""


def _check_files(certificate: str, key: str, authority: str) -> None:
    # gRPC finds out at the first connection, and then says little.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if certificate:
            context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"--tls_certificate={certificate} and --tls_key={key} are no pair of a certificate "
            f"and its private key in PEM format: {error.reason or error}"
        ) from None
    try:
        if authority:
            context.load_verify_locations(authority)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"--tls_ca={authority} holds no certificates in PEM format: {error.reason or error}"
        ) from None


def _read(flag: str, path: str) -> bytes:
    if not path:
        return b""
    try:
        with pathlib.Path(path).open("rb") as file:
            return file.read(_MAX_FILE_BYTES)
    except OSError as error:
        raise ConfigurationError(f"--{flag}={path} cannot be read: {error.strerror}") from None
