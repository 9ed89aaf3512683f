"""Links: being let in by the server as the session was, and not being let in."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import nkeys  # type: ignore[import-untyped]
import pytest
import trio

from natsfs.config import ServerConfig
from natsfs.errors import PermissionsError
from natsfs.store.link import open_links
from natsfs.store.session import NoResponders, Request, Subscription, open_session
from tests.contract.linked import INFO, StartServer, batch, check_batch, create_stream, linked
from tests.faults.secured import new_key, operator_mode

pytestmark = pytest.mark.server


# -- permissions ----------------------------------------------------------------------------------


async def test_permissions_violation(start: StartServer) -> None:
    """What the credentials may not do fails at once, in the request that it is about, by a link
    under the inbox prefix that they may use."""
    server = start(
        "authorization { users: [ { user: me, password: me, permissions: {"
        ' publish: "$JS.API.>", subscribe: "_MINE.>" } } ] }'
    )
    url = server.url.replace("//", "//me:me@")
    async with linked(url, timeout=30.0, inbox_prefix="_MINE") as links:
        begin = trio.current_time()
        refused, good = await links.exchange([Request("not.Mine"), INFO])
        assert isinstance(refused, PermissionsError)
        assert "not.Mine" in str(refused)
        assert isinstance(good, list)
        with pytest.raises(PermissionsError):
            await links.collect(Request("not.Mine"))
        assert trio.current_time() - begin < 10


@pytest.mark.parametrize("by_link", [False, True])
async def test_flow_control_denied(start: StartServer, by_link: bool) -> None:
    """Whoever gets what a consumer delivers is told when its flow control may not be answered: it
    would stand still for ever."""
    server = start(
        "authorization { users: [ { user: all, password: pw }, { user: me, password: pw,"
        ' permissions: { publish: "$JS.API.>" } } ] }'
    )
    url = server.url.replace("//", "//me:pw@")
    async with linked(url) as links:
        feed = links.feed() if by_link else links.session.feed()
        async with feed as (subject, subscription):
            await links.session.request(INFO)  # the server has the subscription now
            ask_for_flow_control(server.port, subject)
            with trio.fail_after(10), pytest.raises(PermissionsError, match=r"FC\.OBJ_b\.>$"):
                await drained(subscription)


async def drained(subscription: Subscription) -> None:
    """Receive until there is an error."""
    while True:
        await subscription.receive()


def ask_for_flow_control(port: int, subject: str) -> None:
    """Say on *subject* what a consumer says when it waits for an answer."""
    block = b"NATS/1.0 100 FlowControl Request\r\n\r\n"
    head = f"HPUB {subject} $JS.FC.OBJ_b.consumer.1 {len(block)} {len(block)}\r\n"
    login = json.dumps({"user": "all", "pass": "pw", "headers": True, "verbose": False})
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"CONNECT {login}\r\n{head}".encode() + block + b"\r\nPING\r\n")
        said = b""
        while b"PONG" not in said:
            said += connection.recv(4096)


async def test_the_session_serves_where_links_are_refused(start: StartServer) -> None:
    """A server that allows no second connection costs speed and nothing else."""
    server = start("max_connections: 1")
    # As often as it takes until the server has forgotten whoever looked whether it runs.
    config = ServerConfig(urls=(server.url,) * 50, timeout=5.0)
    async with open_session(config) as session, open_links(session) as links:
        for _ in range(5):
            await links.request(INFO)
        assert links.count == 0


# -- logging in -----------------------------------------------------------------------------------


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


@pytest.mark.since((2, 11))
@pytest.mark.parametrize("first", [False, True])
async def test_tls(
    start: StartServer,
    certificate: tuple[Path, Path],
    only_links: Callable[[], None],
    first: bool,
) -> None:
    """Links are encrypted where the session is, and carry as much."""
    cert, key = certificate
    handshake = "handshake_first: auto" if first else ""
    server = start(f'tls {{ cert_file: "{cert}", key_file: "{key}"\n{handshake} }}')
    async with linked(f"tls://localhost:{server.port}", tls_ca=cert, tls_first=first) as links:
        only_links()
        await create_stream(links, "secret", 64)
        check_batch(await links.collect(batch("secret", 64)), 64)


async def test_nkey(start: StartServer, tmp_path: Path, only_links: Callable[[], None]) -> None:
    """A link signs its own server's nonce with the session's nkey."""
    key = new_key(nkeys.PREFIX_BYTE_USER)
    (tmp_path / "seed").write_bytes(bytes(key.seed))
    server = start(f"authorization {{ users: [ {{ nkey: {key.public_key.decode()} }} ] }}")
    async with linked(server.url, nkey=tmp_path / "seed") as links:
        only_links()
        await links.request(INFO)


async def test_credentials_file(
    start: StartServer, tmp_path: Path, only_links: Callable[[], None]
) -> None:
    """A link logs in with the JWT of the session's credentials file."""
    made = operator_mode()
    (tmp_path / "creds").write_text(made.creds)
    server = start(made.config)
    async with linked(server.url, creds=tmp_path / "creds") as links:
        only_links()
        with pytest.raises(NoResponders):
            await links.request(Request("nobody.here"))


async def test_user_and_token(start: StartServer, only_links: Callable[[], None]) -> None:
    """What stands in the URL logs links in as well."""
    server = start('authorization { token: "t0ken" }')
    async with linked(server.url.replace("//", "//t0ken@")) as links:
        only_links()
        await links.request(INFO)
