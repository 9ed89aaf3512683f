"""From a server's address to a link's transport: greeting, TLS, login, subscription.

Nothing of the login is decided here: it comes from the session, which is logged in already.

Concurrency: `open_transport` belongs to one task.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from typing import Any

import trio

from natsfs.errors import ConnectFailed
from natsfs.store.link.outbox import Outbox
from natsfs.store.link.receiver import Control, ProtocolError, Receiver
from natsfs.store.link.transport import BROKEN, PlainTransport, Transport
from natsfs.store.session import Access
from natsfs.store.socks import handshake

#: Bytes of a message when the server does not say its limit: its default.
DEFAULT_MAX_PAYLOAD = 1024 * 1024

#: The number of a link's only subscription.
_ID = 1


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection that is logged in and subscribed to one subject."""

    transport: Transport
    receiver: Receiver
    max_payload: int


async def open_transport(access: Access, subject: str, timeout: float) -> Opened:
    """Connect as *access* says and subscribe to *subject*, within *timeout* seconds.

    Errors: `ConnectFailed`.
    """
    try:
        with trio.fail_after(timeout):
            plain = PlainTransport(await _reach(access))
            try:
                return await _log_in(plain, Receiver(), access, subject)
            except BaseException:
                plain.close()
                raise
    except trio.TooSlowError:
        raise ConnectFailed(f"{access.address} did not answer within {timeout:.3g} s") from None
    except (*BROKEN, ProtocolError, ssl.SSLError) as error:
        raise ConnectFailed(f"cannot open a link to {access.address}: {error}") from error
    except MemoryError as error:
        raise ConnectFailed(f"no memory for a link to {access.address}") from error


async def _reach(access: Access) -> trio.SocketStream:
    """A connection to the server, by way of its proxy if it has one.

    Errors: `OSError`, those of `BROKEN`, `ConnectFailed`.
    """
    stream = await trio.open_tcp_stream(*access.peer)
    if access.proxy is None:
        return stream
    steps = handshake(access.proxy, access.address.host, access.address.port)
    try:
        data, count = next(steps)
        while True:
            await stream.send_all(data)
            data, count = steps.send(await _exactly(stream, count))
    except StopIteration:
        return stream
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def _exactly(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = await stream.receive_some(count - len(data))
        if not more:
            raise trio.BrokenResourceError("the proxy hung up")
        data += more
    return data


async def _log_in(
    plain: PlainTransport, receiver: Receiver, access: Access, subject: str
) -> Opened:
    transport: Transport = plain
    if access.tls is not None and access.tls_first:
        transport = await plain.start_tls(access.tls, access.address.host)
    info = parse_info(await _control(transport, receiver, b"INFO"))
    if access.tls is None and info.get("tls_required"):
        raise ProtocolError("it demands TLS, of the session it did not")
    if access.tls is not None and not access.tls_first:
        if not info.get("tls_required"):
            raise ProtocolError("it offers no TLS, the session has it")
        transport = await plain.start_tls(access.tls, access.address.host)
    outbox = Outbox()
    outbox.add([access.greet(info), f"SUB {subject} {_ID}\r\nPING\r\n".encode()])
    await transport.drain(outbox)
    await _control(transport, receiver, b"PONG")
    return Opened(transport, receiver, max_payload_of(info))


async def _control(transport: Transport, receiver: Receiver, verb: bytes) -> bytes:
    """The text of the next *verb* that the server says.  Errors: `ProtocolError` if it complains
    before, those of `Transport.receive`."""
    while True:
        for event in await transport.receive(receiver):
            if not isinstance(event, Control):
                continue
            if event.verb == b"-ERR":
                raise ProtocolError(event.text.decode("utf-8", "replace").strip("'"))
            if event.verb == verb:
                return event.text


def parse_info(text: bytes) -> dict[str, Any]:
    """What a server says of itself in INFO.  Errors: `ProtocolError`."""
    try:
        info = json.loads(text)
    except (ValueError, RecursionError):
        info = None
    if not isinstance(info, dict):
        raise ProtocolError(f"unreadable greeting {text[:40]!r}")
    return info


def max_payload_of(info: dict[str, Any]) -> int:
    """Bytes of headers and data that the server which sent *info* takes in one message."""
    limit = info.get("max_payload")
    return limit if isinstance(limit, int) and limit > 0 else DEFAULT_MAX_PAYLOAD
