"""Prometheus' way to the counters of a mount: `GET /metrics` on an address of its own.

As little of HTTP as that needs: one request for each connection, answered and hung up.

Concurrency: connections are tasks of their own.  The answer is put together in the mount's loop,
which it takes a few milliseconds, as often as somebody asks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from natsfs.errors import MountFailed
from natsfs.metrics import CONTENT_TYPE, Metrics

log = logging.getLogger(__name__)

#: Bytes of a request: that of Prometheus has some 300.
MAX_REQUEST = 8192

#: Seconds that a client has to say what it wants, and to take the answer.
PATIENCE = 10.0

#: Clients at a time; a mount has a few scrapers at most.
MAX_CLIENTS = 8


async def open_listeners(host: str, port: int) -> Sequence[trio.SocketListener]:
    """Listen on *host*, all of its addresses.  Errors: `MountFailed`."""
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as error:
        reason = error.strerror or error
        raise MountFailed(f"metrics cannot be offered on {host}:{port}: {reason}") from error


async def export(listeners: Sequence[trio.SocketListener], metrics: Metrics) -> None:
    """Answer on *listeners* until cancelled."""
    clients = trio.CapacityLimiter(MAX_CLIENTS)

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            # One that comes while all others are being slow is turned away.
            if clients.available_tokens:
                async with clients:
                    await _guarded(stream, metrics)

    await trio.serve_listeners(handle, list(listeners))


async def _guarded(stream: trio.SocketStream, metrics: Metrics) -> None:
    """Serve one client; nobody's counters are worth the mount."""
    try:
        with trio.move_on_after(PATIENCE):
            await _converse(stream, metrics)
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        log.debug("metrics: %s", error)
    except Exception:
        log.exception("metrics cannot be shown")


async def _converse(stream: trio.SocketStream, metrics: Metrics) -> None:
    request = bytearray()
    while b"\r\n\r\n" not in request and len(request) < MAX_REQUEST:
        data = await stream.receive_some()
        if not data:
            return
        request += data
    await stream.send_all(_answer(bytes(request), metrics))


def _answer(request: bytes, metrics: Metrics) -> bytes:
    method, path, *_ = [*request.partition(b"\r\n")[0].split(b" "), b"", b""]
    if method not in (b"GET", b"HEAD"):
        return _response(b"405 Method Not Allowed", b"only GET\n")
    if path.partition(b"?")[0] not in (b"/metrics", b"/"):
        return _response(b"404 Not Found", b"metrics are at /metrics\n")
    body = metrics.rendered()
    return _response(b"200 OK", body, CONTENT_TYPE.encode(), head_only=method == b"HEAD")


def _response(
    status: bytes, body: bytes, kind: bytes = b"text/plain", *, head_only: bool = False
) -> bytes:
    head = (
        b"HTTP/1.1 " + status,
        b"Content-Type: " + kind,
        b"Content-Length: %d" % len(body),
        b"Connection: close",
    )
    return b"\r\n".join(head) + b"\r\n\r\n" + (b"" if head_only else body)
