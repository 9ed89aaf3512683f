"""nats-py's transport by way of a SOCKS proxy.

Runs in the asyncio thread.
"""

from __future__ import annotations

import asyncio

from nats.aio.transport import TcpTransport

from natsfs.config import Proxy
from natsfs.errors import ConnectFailed
from natsfs.store.socks import handshake


async def transport_through(proxy: Proxy, host: str, port: int) -> TcpTransport:
    """A connection to *host* by way of *proxy*, as nats-py keeps one.  Errors: `ConnectFailed`."""
    transport = TcpTransport()  # type: ignore[no-untyped-call]
    reader, writer = await _through(proxy, host, port)
    transport._bare_io_reader = transport._io_reader = reader
    transport._bare_io_writer = transport._io_writer = writer
    return transport


async def _through(
    proxy: Proxy, host: str, port: int
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to *host* by way of *proxy*.  Errors: `ConnectFailed`."""
    try:
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    except OSError as error:
        raise ConnectFailed(f"cannot connect to the proxy {proxy}: {error.strerror}") from error
    steps = handshake(proxy, host, port)
    try:
        data, count = next(steps)
        while True:
            writer.write(data)
            data, count = steps.send(await reader.readexactly(count))
    except StopIteration:
        return reader, writer
    except (OSError, EOFError) as error:
        writer.transport.abort()
        raise ConnectFailed(f"the proxy {proxy} hung up on {host}:{port}") from error
    except BaseException:
        writer.transport.abort()
        raise
