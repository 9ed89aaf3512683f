"""The session: logging in, failing with one clear sentence, coming back."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import nkeys  # type: ignore[import-untyped]
import pytest
import trio

from natsfs.config import ServerConfig
from natsfs.errors import ConnectFailed, InvalidArgument, PermissionsError, RequestTimeout
from natsfs.server import Server, start_server
from natsfs.store.session import (
    AnswerLost,
    NoResponders,
    Request,
    Session,
    SessionClosed,
    line,
    open_session,
)
from natsfs.store.session.client import RawClient
from tests.contract.linked import freeze
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.server

LOST = pytest.mark.expects_log("lost the connection to")
INFO = Request("$JS.API.INFO")

StartServer = Callable[[str], Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[StartServer]:
    """Start a server of one's own with a piece of configuration."""
    started: list[Server] = []

    def start(extra_config: str) -> Server:
        started.append(start_server(tmp_path / "store", extra_config=extra_config))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@contextmanager
def impostor(greeting: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Something on a port that says *greeting* once; what it hears is noted."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(greeting)
                        while data := connection.recv(4096):
                            heard.append(data)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", heard
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


async def failure(config: ServerConfig) -> str:
    """The sentence with which opening a session fails."""
    begin = trio.current_time()
    with pytest.raises(ConnectFailed) as caught:
        async with open_session(config):
            pass
    assert trio.current_time() - begin < config.connect_timeout + 3
    return str(caught.value)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


# -- sentences ------------------------------------------------------------------------------------


async def test_nobody_listens() -> None:
    """A refused connection is named with the address and without the password."""
    port = closed_port()
    text = await failure(ServerConfig(urls=(f"nats://me:secret@127.0.0.1:{port}",)))
    assert text == f"no server listens at nats://127.0.0.1:{port} (connection refused)"


async def test_unknown_host() -> None:
    """A host name that means nothing is named."""
    text = await failure(ServerConfig(urls=("nats://no-such-host.invalid",)))
    assert "'no-such-host.invalid'" in text
    assert "cannot be resolved" in text


@pytest.mark.parametrize("url", ["http://a:s3cret@host", "nats://", "nats://host:port", "//x"])
async def test_no_address(url: str) -> None:
    """What is no server address is refused before anything is tried."""
    text = await failure(ServerConfig(urls=(url,)))
    assert "no server address" in text
    assert "s3cret" not in text


async def test_wrong_credentials(start: StartServer) -> None:
    """A refused login is called that, for a wrong password and for none."""
    server = start('authorization { user: me, password: "right" }')
    for url in (server.url, server.url.replace("//", "//me:wrong@")):
        text = await failure(ServerConfig(urls=(url,)))
        assert text == f"{server.url} refused the credentials (or the lack of them)"


async def test_no_nats_server() -> None:
    """A web server on the port is told from a NATS server."""
    with impostor(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (address, _):
        text = await failure(ServerConfig(urls=(f"nats://{address}",)))
        assert text == f"what answers at nats://{address} is not a NATS server"


async def test_silent_server() -> None:
    """Something that says nothing is given up after the connect time-out."""
    with impostor(b"") as (address, _):
        text = await failure(ServerConfig(urls=(f"nats://{address}",), connect_timeout=0.5))
        assert text == f"nats://{address} did not answer like a NATS server within 0.5 s"


async def test_tls_is_insisted_on() -> None:
    """With tls:// no login goes to a server that does not offer TLS."""
    greeting = b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576}\r\n'
    with impostor(greeting) as (address, heard):
        text = await failure(ServerConfig(urls=(f"tls://me:secret@{address}",)))
        assert text == f"tls://{address} offers no TLS"
    assert heard == []


async def test_bad_credential_files(nats_server: Server, tmp_path: Path) -> None:
    """Files of credentials that are missing or no such thing are named."""
    bad = tmp_path / "bad"
    bad.write_text("nothing of the kind")
    urls = (nats_server.url,)
    assert "no NATS credentials file" in await failure(ServerConfig(urls=urls, creds=bad))
    assert "No such file" in await failure(ServerConfig(urls=urls, nkey=tmp_path / "none"))
    assert "cannot connect" in await failure(ServerConfig(urls=urls, nkey=bad))
    assert str(bad) in await failure(ServerConfig(urls=urls, tls_ca=bad))


async def test_inbox_not_allowed(start: StartServer) -> None:
    """Credentials that may not subscribe to the inbox are told to set its prefix; with it they
    work."""
    server = start(
        "authorization { users: [ { user: me, password: me, permissions: {"
        ' publish: ">", subscribe: "_MINE.>" } } ] }'
    )
    url = server.url.replace("//", "//me:me@")
    assert "set the inbox prefix" in await failure(ServerConfig(urls=(url,)))
    async with open_session(ServerConfig(urls=(url,), inbox_prefix="_MINE")) as session:
        await session.request(INFO)
        async with session.subscribe("other") as subscription:
            with pytest.raises(PermissionsError):
                await subscription.receive()


async def test_all_servers_are_tried(nats_server: Server) -> None:
    """One server of several is enough, and each that fails has its sentence."""
    dead = [f"nats://127.0.0.1:{closed_port()}" for _ in range(2)]
    async with open_session(ServerConfig(urls=(*dead, nats_server.url))) as session:
        assert session.url == nats_server.url
    text = await failure(ServerConfig(urls=tuple(dead)))
    assert all(url in text for url in dead)


# -- ways to log in -------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["url", "config"])
async def test_user_and_token(start: StartServer, where: str) -> None:
    """User and password, or a token, may stand in the URL or in the configuration."""
    server = start('authorization { token: "t0ken" }')
    if where == "url":
        config = ServerConfig(urls=(server.url.replace("//", "//t0ken@"),))
    else:
        config = ServerConfig(urls=(server.url,), token="t0ken")
    async with open_session(config) as session:
        await session.request(INFO)
        assert session.url == server.url


async def test_nkey(start: StartServer, tmp_path: Path) -> None:
    """An nkey's seed in a file logs in."""
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    (tmp_path / "seed").write_bytes(bytes(seed) + b"\n")
    server = start(f"authorization {{ users: [ {{ nkey: {public} }} ] }}")
    async with open_session(ServerConfig(urls=(server.url,), nkey=tmp_path / "seed")) as session:
        await session.request(INFO)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of localhost that signs itself, and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", str(key)),
            *("-addext", "subjectAltName=DNS:localhost", "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


async def test_tls(start: StartServer, certificate: tuple[Path, Path]) -> None:
    """A server with TLS is used when its certificate is trusted, and refused when not."""
    cert, key = certificate
    server = start(f'tls {{ cert_file: "{cert}", key_file: "{key}" }}')
    url = f"tls://localhost:{server.port}"
    async with open_session(ServerConfig(urls=(url,), tls_ca=cert)) as session:
        await session.request(INFO)
    assert "is not trusted" in await failure(ServerConfig(urls=(url,)))


# -- requests -------------------------------------------------------------------------------------


@pytest.fixture
def config(nats_server: Server) -> ServerConfig:
    return ServerConfig(urls=(nats_server.url,), timeout=5.0)


async def test_request_errors(config: ServerConfig) -> None:
    """Nobody there, no answer, and too large are three errors."""
    async with open_session(config) as session:
        with pytest.raises(NoResponders):
            await session.request(Request("nobody.here"))
        async with session.subscribe("silent"):
            with pytest.raises(RequestTimeout):
                await session.request(Request("silent"), timeout=0.1)
        with pytest.raises(InvalidArgument):
            await session.request(Request("silent", bytes(session.max_payload + 1)))


async def test_exchange_keeps_order(config: ServerConfig) -> None:
    """Each request of an exchange has its own answer or error, in its place."""
    async with open_session(config) as session:
        good, bad, none = await session.exchange([INFO, Request("nobody.here"), INFO])
        assert isinstance(good, list)
        assert isinstance(bad, NoResponders)
        assert isinstance(none, list)
        assert await session.exchange([]) == []


async def test_cancelled_request(config: ServerConfig) -> None:
    """Cancelling a request ends it at once and leaves the session usable."""
    async with open_session(config) as session:
        async with session.subscribe("silent"):
            with trio.move_on_after(0.1) as scope:
                await session.request(Request("silent"))
            assert scope.cancelled_caught
        await session.request(INFO)


async def test_closed_session(config: ServerConfig) -> None:
    """A call on a session that has ended fails at once."""
    async with open_session(config) as session:
        pass
    with pytest.raises(SessionClosed):
        await session.request(INFO)


# -- coming back ----------------------------------------------------------------------------------


async def disconnected(session: Session) -> None:
    while session.connected:
        await session.changed()


@LOST
async def test_fatal_protocol_error(config: ServerConfig) -> None:
    """A5: what makes nats-py close for good costs the requests under way, and nothing more."""
    async with open_session(config) as session:
        with pytest.raises(AnswerLost):
            await session.request(Request("too." + "long" * 2000))
        await session.request(INFO)
        assert session.connected


@LOST
async def test_restart(start: StartServer) -> None:
    """A5: after a crash of the server the session is connected again as soon as it is back."""
    server = start("")
    async with open_session(ServerConfig(urls=(server.url,), timeout=10.0)) as session:
        server.kill()
        await disconnected(session)
        assert session.url is None
        server.restart()
        await session.request(INFO)
        assert session.url == server.url


@LOST
async def test_hung_server(start: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A5: a server that stands still is noticed without a request, and used again afterwards."""
    monkeypatch.setattr(line, "LIVENESS_INTERVAL", 0.1)
    server = start("")
    async with open_session(ServerConfig(urls=(server.url,), timeout=10.0)) as session:
        await session.request(INFO)
        freeze(server)
        await disconnected(session)
        os.kill(server.pid, signal.SIGCONT)
        await session.request(INFO)


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110  (no event tells of it)
            await trio.sleep(0.01)


@LOST
async def test_silence(start: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A5: how long the server has said nothing is known of an idle connection, too."""
    monkeypatch.setattr(line, "LIVENESS_INTERVAL", 0.1)
    monkeypatch.setattr(line, "LIVENESS_LIMIT", 20)
    server = start("")
    async with open_session(ServerConfig(urls=(server.url,), timeout=10.0)) as session:
        await until(lambda: session.silence > 0.05)
        await until(lambda: session.silence < 0.05)  # the next ping is answered
        freeze(server)
        await until(lambda: session.silence > 1.0)
        assert session.connected
        await disconnected(session)
        assert session.silence == math.inf
        os.kill(server.pid, signal.SIGCONT)


@LOST
async def test_subscription_ends_with_the_connection(nats_server: Server) -> None:
    """A5: whoever listens is told that the connection broke: messages may have been missed."""
    proxy = Proxy(nats_server.port)
    try:
        async with open_session(ServerConfig(urls=(proxy.url,))) as session:
            async with session.subscribe("news") as subscription:
                proxy.cut()
                with pytest.raises(AnswerLost):
                    await subscription.receive()
            await session.request(INFO)
    finally:
        proxy.close()


async def test_idle_connection_is_kept(
    nats_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection without traffic is not taken for a dead one."""
    monkeypatch.setattr(line, "LIVENESS_INTERVAL", 0.25)
    async with open_session(ServerConfig(urls=(nats_server.url,))) as session:
        with trio.move_on_after(1.5) as scope:
            await session.changed()
        assert scope.cancelled_caught


def test_a_pong_that_comes_late() -> None:
    """A5: an answer to a ping that was given up ends nothing, and the next one is heard."""

    async def late() -> bool:
        client = RawClient()
        given_up, waiting = (asyncio.get_running_loop().create_future() for _ in range(2))
        given_up.cancel()
        client._pongs = [given_up, waiting]
        await client._process_pong()
        assert not waiting.done()
        await client._process_pong()
        return bool(await waiting)

    assert asyncio.run(late())
