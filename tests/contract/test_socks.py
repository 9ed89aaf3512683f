"""Connections by way of a SOCKS5 proxy: the session's and those of the links."""

from __future__ import annotations

import pytest

from natsfs.config import Proxy, ServerConfig
from natsfs.errors import ConnectFailed
from natsfs.server import Server
from natsfs.store.session import open_session
from tests.socks import SocksProxy

from .linked import INFO, create_stream, linked

pytestmark = pytest.mark.server


@pytest.mark.parametrize("login", [("", ""), ("me", "pässword")])
async def test_everything_goes_through_the_proxy(
    nats_server: Server, login: tuple[str, str]
) -> None:
    """E: the session and its links go through the proxy, which looks up the server's name."""
    url = f"nats://no-such-host.invalid:{nats_server.port}"
    with SocksProxy(*login) as proxy:
        way = Proxy("127.0.0.1", proxy.port, login[0] or None, login[1] or None)
        async with linked(url, proxy=way) as links:
            await create_stream(links, f"socks{proxy.port}", chunks=2)
            assert links.session.url == url
        assert len(proxy.asked) >= 2
        assert set(proxy.asked) == {("no-such-host.invalid", nats_server.port)}


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_addresses(nats_server: Server, host: str) -> None:
    """E: addresses reach the proxy as such."""
    with SocksProxy() as proxy:
        way = Proxy("127.0.0.1", proxy.port)
        url = f"nats://{host}:{nats_server.port}"
        async with open_session(ServerConfig(urls=(url,), proxy=way)) as session:
            await session.request(INFO)
        assert proxy.asked == [(host.strip("[]"), nats_server.port)]


async def failure(proxy: Proxy, port: int) -> str:
    """What a session says that cannot connect."""
    with pytest.raises(ConnectFailed) as caught:
        async with open_session(ServerConfig(urls=(f"nats://h:{port}",), proxy=proxy)):
            pass
    assert "secret" not in str(caught.value)
    return str(caught.value)


async def test_refusals(nats_server: Server) -> None:
    """E: what a proxy refuses, and what is none, is said in a sentence."""
    port = nats_server.port
    with SocksProxy("me", "secret") as proxy:
        assert "refused the login" in await failure(Proxy("localhost", proxy.port, "me", "x"), port)
        assert "asks for a login" in await failure(Proxy("localhost", proxy.port), port)
        way = Proxy("localhost", proxy.port, "me", "secret")
        assert "gives no connection to h:1: connection refused" in await failure(way, 1)
    assert "cannot connect to the proxy" in await failure(way, port)
    with SocksProxy(said=b"HTTP/1.1 400 Bad Request\r\n\r\n") as other:
        assert "is no SOCKS5 proxy" in await failure(Proxy("localhost", other.port), port)
    with SocksProxy(said=b"\5") as other:
        assert "hung up" in await failure(Proxy("localhost", other.port), port)
    with SocksProxy(said=b"\5\0\5\1\0\1") as other:
        told = await failure(Proxy("localhost", other.port), port)
        assert "gives no connection to h" in told
        assert "error 1 of SOCKS" in told
