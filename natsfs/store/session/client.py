"""How one nats-py client is made: address, credentials, TLS, and one clear sentence on failure.

Runs in the asyncio thread.  Every client is made for one connection and never reconnects by itself:
nats-py carries half-sent messages and stale requests over into the next connection, and closes for
good on the protocol error that follows (faults.md).  `connection` replaces the whole client.
"""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client, RawCredentials
from nats.aio.subscription import Subscription

from natsfs.config import Proxy, ServerConfig
from natsfs.errors import ConnectFailed
from natsfs.store.session.proxied import transport_through

DEFAULT_PORT = 4222

#: What nats-py is told to wait between its two tries of one address: as good as nothing, because
#: `connection` does the waiting.
_NO_WAIT = 0

#: Seconds for an abandoned client to end its tasks.
CLOSE_TIMEOUT = 1.0


@dataclass(frozen=True, slots=True)
class Address:
    """One server, without secrets, so that it can be shown."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Login:
    """User and password or token that stood in a URL; `repr` does not show the secret ones."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came: *block* is its header block, empty when it has none."""

    subject: str
    reply: str
    block: bytes
    data: bytes | bytearray | memoryview

    @property
    def status(self) -> int:
        """The number of an inline status (404, 503, …), 0 for an ordinary message."""
        digits = self.block[9:12]
        return int(digits) if self.block[8:9] == b" " and digits.isdigit() else 0


Sink = Callable[[Message], None]


class RawClient(Client):
    """nats-py's client with four places changed that it offers no other way to change.

    It goes through a proxy, and lives on when an answer to a ping comes that nobody waits for.  It
    never sends a login in clear text where TLS was asked for.  And it hands messages to the sink of
    their subscription at once and unparsed: the queue, task and header dictionary that nats-py
    makes for every message cost three times what the rest of receiving does, and its queue drops
    messages when it is full.  A sink must not raise: that would end nats-py's read loop.
    """

    insist_on_tls = False
    proxy: Proxy | None = None

    def __init__(self) -> None:
        super().__init__()
        self._sinks: dict[int, Sink] = {}

    async def tap(self, subject: str, sink: Sink) -> Subscription:
        """Subscribe with a sink.  Messages that come before this returns may be lost."""
        subscription = await self.subscribe(subject)
        self._sinks[subscription._id] = sink
        return subscription

    async def untap(self, subscription: Subscription) -> None:
        """End a subscription that `tap` made."""
        self._sinks.pop(subscription._id, None)
        await subscription.unsubscribe()

    @property
    def reads(self) -> bool:
        """Whether the read loop runs.  It ends on an unforeseen error without closing the client
        (protocol.md 6)."""
        return self._reading_task is not None and not self._reading_task.done()

    @property
    def login_required(self) -> bool:
        """Whether the server's greeting asked for a login."""
        return bool(self._server_info.get("auth_required"))

    async def _connect_to_server(self, s: Any) -> None:
        if self.proxy is None:
            await super()._connect_to_server(s)
            return
        self._transport = await transport_through(self.proxy, s.uri.hostname, s.uri.port)

    def _connect_command(self) -> bytes:
        # nats-py upgrades to TLS when the server demands it, and otherwise ignores `tls://`.
        if self.insist_on_tls and not self._server_info.get("tls_required"):
            raise nats.errors.SecureConnWantedError
        return super()._connect_command()

    async def _process_pong(self) -> None:
        # Its read loop ends over a pong whose ping was given up, as it is when a session ends.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        sink = self._sinks.get(sid)
        if sink is not None:
            sink(Message(subject.decode(), reply.decode(), headers or b"", data))


def parse_url(url: str) -> tuple[Address, Login]:
    """The address and the login in *url*; `nats://` and port 4222 go without saying.

    Errors: `ConnectFailed` for another scheme, no host, or a port that is no number.
    """
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError:
        raise ConnectFailed(f"{_without_login(url)!r} is no server address") from None
    if parts.scheme not in ("nats", "tls") or not host:
        raise ConnectFailed(
            f"{_without_login(url)!r} is no server address: it should look like nats://host:port"
        )
    address = Address(parts.scheme, host, port)
    if parts.username and parts.password is None:
        return address, Login(token=parts.username)
    return address, Login(user=parts.username, password=parts.password)


def _without_login(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return scheme + separator + rest.rpartition("@")[2]


async def connect(
    client: RawClient,
    address: Address,
    login: Login,
    config: ServerConfig,
    timeout: float,
    on_error: Callable[[Exception], Awaitable[None]],
    on_closed: Callable[[], Awaitable[None]],
) -> None:
    """Connect a fresh *client* to *address* within *timeout* seconds.

    Errors: `ConnectFailed`, with one sentence that names the address and the reason.
    """
    tls = _tls_context(address, config)
    client.insist_on_tls = tls is not None
    client.proxy = config.proxy
    seen: list[Exception] = []

    async def note_error(error: Exception) -> None:
        seen.append(error)
        await on_error(error)

    try:
        async with asyncio.timeout(timeout):
            await client.connect(
                servers=[str(address)],
                name=config.name,
                error_cb=note_error,
                closed_cb=on_closed,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=_NO_WAIT,
                connect_timeout=math.ceil(timeout),
                pending_size=0,
                tls=tls,
                tls_hostname=address.host if tls else None,
                tls_handshake_first=config.tls_first,
                **_credentials(login, config),
            )
    except ConnectFailed:
        raise
    except Exception as error:
        # Of many kinds: nats-py, sockets, TLS, and whatever nkeys finds wrong with a seed.
        await discard(client)
        cause = seen[-1] if seen else error
        if isinstance(cause, ConnectionError) and client.login_required:
            # The server resets the connection after its refusal, and that can overtake it.
            cause = nats.errors.AuthorizationError()
        raise ConnectFailed(_sentence(address, cause, timeout)) from error
    except asyncio.CancelledError:
        await discard(client)
        raise


async def discard(client: RawClient) -> None:
    """End a client at once and drop what it has not sent: its callers have been told that their
    answers are lost, so nothing of theirs may be executed later."""
    if client._transport is None:
        return
    writer = getattr(client._transport, "_io_writer", None)
    if writer is not None:
        connection = writer.get_extra_info("socket")
        if connection is not None:
            # Linger 0: closing resets the connection and empties the kernel's send buffer too.
            with suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    with suppress(OSError, nats.errors.Error, TimeoutError):
        async with asyncio.timeout(CLOSE_TIMEOUT):
            await client.close()


# -- credentials and TLS --------------------------------------------------------------------------


def _credentials(login: Login, config: ServerConfig) -> dict[str, Any]:
    """Arguments of nats-py's connect.  What was configured wins over what stood in the URL."""
    who = config if config.user or config.token else login
    arguments: dict[str, Any] = {"user": who.user, "password": who.password, "token": who.token}
    if config.creds is not None:
        arguments["user_credentials"] = RawCredentials(_read_creds(config.creds))
    elif config.creds_text is not None:
        arguments["user_credentials"] = RawCredentials(_checked_creds(config.creds_text, "that"))
    elif config.nkey is not None:
        arguments["nkeys_seed_str"] = _seed(_read(config.nkey, "nkey"))
    elif config.nkey_text is not None:
        arguments["nkeys_seed_str"] = _seed(config.nkey_text)
    elif config.bearer is not None:
        arguments.update(_bearer(config.bearer))
    if config.inbox_prefix:
        arguments["inbox_prefix"] = config.inbox_prefix
    return {key: value for key, value in arguments.items() if value is not None}


def _read_creds(path: Path) -> str:
    """The text of a credentials file.  Checked here: nats-py reads one without a JWT for ever."""
    return _checked_creds(_read(path, "credentials"), str(path))


def _checked_creds(text: str, shown: str) -> str:
    if "BEGIN NATS USER JWT" not in text or "BEGIN USER NKEY SEED" not in text:
        raise ConnectFailed(f"{shown} is no NATS credentials file: it needs a user JWT and a seed")
    return text


def _seed(text: str) -> str:
    """The seed in *text*, which may have lines around it as a credentials file does (the Go client
    reads both)."""
    lines = text.strip().splitlines()
    bare = (line.strip() for line in lines if line.startswith("S"))
    return next(bare, "") if len(lines) > 1 else text.strip()


def _bearer(token: str) -> dict[str, Any]:
    """For a JWT that stands for itself: the server asks for no valid signature."""
    return {"user_jwt_cb": token.encode, "signature_cb": lambda _nonce: b""}


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConnectFailed(f"cannot read the {what} file {path}: {reason}") from error


def _tls_context(address: Address, config: ServerConfig) -> ssl.SSLContext | None:
    """The context for *address*, None where neither its scheme nor a setting asks for TLS."""
    wanted = config.tls_ca or config.tls_cert or config.tls_first
    if address.scheme != "tls" and not wanted:
        return None
    try:
        context = ssl.create_default_context(cafile=config.tls_ca)
        if config.tls_cert is not None:
            context.load_cert_chain(config.tls_cert, config.tls_key)
    except OSError as error:
        files = ", ".join(str(f) for f in (config.tls_ca, config.tls_cert, config.tls_key) if f)
        raise ConnectFailed(f"cannot use the TLS files {files}: {error}") from error
    return context


# -- the sentence ---------------------------------------------------------------------------------


def _sentence(address: Address, error: Exception, timeout: float) -> str:
    match error:
        case ConnectFailed():
            return str(error)
        case ConnectionRefusedError():
            return f"no server listens at {address} (connection refused)"
        case socket.gaierror():
            return f"the host name {address.host!r} of {address} cannot be resolved"
        case ssl.SSLCertVerificationError():
            return f"the TLS certificate of {address} is not trusted: {error.verify_message}"
        case ssl.SSLError():
            return f"TLS with {address} failed: {error.reason or error}"
        case nats.errors.SecureConnWantedError():
            return f"{address} offers no TLS"
        case TimeoutError():
            return f"{address} did not answer like a NATS server within {timeout:.3g} s"
        case nats.errors.AuthorizationError():
            return f"{address} refused the credentials (or the lack of them)"
        case OSError():
            return f"cannot connect to {address}: {error.strerror or error}"
    return _protocol_sentence(address, str(error))


def _protocol_sentence(address: Address, text: str) -> str:
    """For errors that nats-py tells apart by their text only, the server's words among them."""
    lowered = text.lower()
    if "authorization" in lowered or "authentication" in lowered:
        return f"{address} refused the credentials (or the lack of them)"
    if "info message" in lowered:
        return f"what answers at {address} is not a NATS server"
    return f"cannot connect to {address}: {text.removeprefix('nats: ')}"
