"""Links: being let in by the server as the session was, and not being let in."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import nkeys  # type: ignore[import-untyped]
import pytest
import trio

from natsfs.config import ServerConfig
from natsfs.errors import PermissionsError
from natsfs.store.link import open_links
from natsfs.store.session import NoResponders, Request, open_session
from tests.contract.linked import INFO, StartServer, batch, check_batch, create_stream, linked

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


def new_key(prefix: int) -> nkeys.KeyPair:
    return nkeys.from_seed(bytearray(nkeys.encode_seed(os.urandom(32), prefix)))


def jwt(signer: nkeys.KeyPair, subject: nkeys.KeyPair, kind: str, **claims: object) -> str:
    """A NATS JWT in which *signer* says that *subject* is a *kind*."""

    def encode(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

    body = {
        "jti": hashlib.sha256(subject.public_key).hexdigest(),
        "iat": int(time.time()) - 60,
        "iss": signer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "nats": {"type": kind, "version": 2, **claims},
    }
    head = {"typ": "JWT", "alg": "ed25519-nkey"}
    signed = ".".join(encode(json.dumps(part).encode()) for part in (head, body))
    return f"{signed}.{encode(signer.sign(signed.encode()))}"


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
    operator = new_key(nkeys.PREFIX_BYTE_OPERATOR)
    account, system = (new_key(nkeys.PREFIX_BYTE_ACCOUNT) for _ in range(2))
    user = new_key(nkeys.PREFIX_BYTE_USER)
    limits = {"subs": -1, "conn": -1, "leaf": -1, "data": -1, "payload": -1, "wildcards": True}
    accounts = ", ".join(
        f"{key.public_key.decode()}: {jwt(operator, key, 'account', limits=limits)}"
        for key in (account, system)
    )
    user_jwt = jwt(account, user, "user", subs=-1, data=-1, payload=-1)
    (tmp_path / "creds").write_text(
        f"-----BEGIN NATS USER JWT-----\n{user_jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    server = start(
        f"operator: {jwt(operator, operator, 'operator')}\nresolver: MEMORY\n"
        f"resolver_preload: {{ {accounts} }}\nsystem_account: {system.public_key.decode()}"
    )
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
