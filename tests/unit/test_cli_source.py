"""SOURCE, server lists and credentials: what is understood, what is refused, what stays secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from natsfs.cli import contexts
from natsfs.cli.connection import ConnectionOptions, server_config, server_of_mount
from natsfs.cli.outcome import redacted
from natsfs.cli.source import Servers, Source, parse_servers, parse_source
from natsfs.config import DEFAULT_SERVER
from natsfs.control import server_status
from natsfs.errors import UsageError

SECRET = "s3cr3t"


@pytest.fixture(autouse=True)
def _no_contexts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have selected a context."""
    monkeypatch.setattr(contexts, "home_directory", lambda _: tmp_path)


@pytest.mark.parametrize(
    ("text", "urls", "bucket"),
    [
        ("demo", (), "demo"),
        ("nats://h/demo", ("nats://h:4222",), "demo"),
        ("nats://h:5/demo", ("nats://h:5",), "demo"),
        ("tls://h/demo", ("tls://h:4222",), "demo"),
        ("TLS://h/demo", ("tls://h:4222",), "demo"),
        ("nats://[::1]:5/demo", ("nats://[::1]:5",), "demo"),
        ("nats://a:1,b,c:3/demo", ("nats://a:1", "nats://b:4222", "nats://c:3"), "demo"),
        ("tls://a,b/demo", ("tls://a:4222", "tls://b:4222"), "demo"),
        ("nats://a,tls://b/d_-0", ("nats://a:4222", "tls://b:4222"), "d_-0"),
    ],
)
def test_sources(text: str, urls: tuple[str, ...], bucket: str) -> None:
    """A SOURCE is a bucket, perhaps behind one or more servers; the port is 4222 by default."""
    assert parse_source(text) == Source(bucket, servers=Servers(urls))


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("demo/a/b", "a/b"), ("nats://h/demo/a,b@c/", "a,b@c/"), ("demo/", ""), ("demo", "")],
)
def test_prefixes(text: str, prefix: str) -> None:
    """Where a prefix may follow the bucket, it is everything after the next slash."""
    source = parse_source(text, prefix_allowed=True)
    assert (source.bucket, source.prefix) == ("demo", prefix)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no bucket"),
        ("nats://h", "no bucket"),
        ("nats://h/", "no bucket"),
        ("demo/sub", "after the bucket"),
        ("a.b", "cannot be a bucket"),
        ("http://h/demo", "http"),
        ("://h/demo", "no server"),
        ("nats:///demo", "no server"),
        ("nats://h:x/demo", "no server"),
        ("nats://h:0/demo", "port 0"),
        ("nats://h:65536/demo", "65535"),
        ("nats://a,,b/demo", "no server"),
        ("nats://a:p@h,b:p@i/demo", "different credentials"),
    ],
)
def test_malformed_sources(text: str, word: str) -> None:
    """A SOURCE that cannot be understood is refused with the reason."""
    with pytest.raises(UsageError, match=word):
        parse_source(text)


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        (f"nats://u:{SECRET}@h/demo", Servers(("nats://h:4222",), "u", SECRET)),
        (f"nats://{SECRET}@h/demo", Servers(("nats://h:4222",), token=SECRET)),
        ("nats://u:a%2Fb%40@h/demo", Servers(("nats://h:4222",), "u", "a/b@")),
        ("nats://u:p@a,b/demo", Servers(("nats://a:4222", "nats://b:4222"), "u", "p")),
        ("nats://u:p@a,u:p@b/demo", Servers(("nats://a:4222", "nats://b:4222"), "u", "p")),
    ],
)
def test_credentials_in_urls(text: str, servers: Servers) -> None:
    """Credentials are taken out of URLs, decoded; a name without a password is a token."""
    assert parse_source(text).servers == servers
    assert SECRET not in repr(parse_source(text))


@pytest.mark.parametrize(
    "text",
    [
        f"nats://u:{SECRET}@h",
        f"http://u:{SECRET}@h/demo",
        f"nats://u:{SECRET}@h:x/demo",
        f"nats://u:{SECRET}/x@h/demo",
        f"nats://u:{SECRET}@h:99999/demo",
        f"nats://u:{SECRET}@h/demo/sub",
        f"nats://u:{SECRET}@h/a.b",
        f"nats://u:{SECRET}@a,v:{SECRET}@b/demo",
        f"u:{SECRET}@h:4222",
    ],
)
def test_errors_show_no_secrets(text: str) -> None:
    """Whatever is wrong with a URL, the message leaves its credentials out."""
    with pytest.raises(UsageError) as caught:
        parse_source(text)
    assert SECRET not in str(caught.value)


def test_redacted() -> None:
    """Any text can be freed of the credentials in its URLs."""
    text = f"nats://u:{SECRET}@h:1, tls://{SECRET}@i/b and a@b"
    assert redacted(text) == "nats://h:1, tls://i/b and a@b"
    assert redacted(f"nats://u:{SECRET}@h:1,u:{SECRET}@i/b a@b") == "nats://i/b a@b"


def test_servers_without_scheme() -> None:
    """A list of servers may leave the scheme out, as NATS_URL often does."""
    assert parse_servers("h:1,i").urls == ("nats://h:1", "nats://i:4222")


def test_servers_with_a_bucket() -> None:
    """A list of servers that goes on with a bucket is refused."""
    with pytest.raises(UsageError, match="belongs into SOURCE"):
        parse_servers("nats://h/demo")


def test_the_default_server() -> None:
    """Nobody names a server: it is the local one."""
    assert server_config(ConnectionOptions(), {}).urls == (DEFAULT_SERVER,)


def test_which_server() -> None:
    """SOURCE names the server, else --server, else NATS_URL."""
    environ = {"NATS_URL": "nats://env"}
    named = Servers(("nats://source:4222",))
    option = ConnectionOptions(server="nats://option")
    assert server_config(ConnectionOptions(), environ).urls == ("nats://env:4222",)
    assert server_config(option, environ).urls == ("nats://option:4222",)
    assert server_config(ConnectionOptions(), environ, named).urls == ("nats://source:4222",)
    with pytest.raises(UsageError, match="--server"):
        server_config(option, environ, named)


def test_which_login(tmp_path: Path) -> None:
    """Options win over the URL, the URL over the environment, each as a whole."""
    creds = tmp_path / "a.creds"
    environ = {"NATS_USER": "env", "NATS_PASSWORD": "envpass"}
    named = Servers(("nats://h:4222",), "url", "urlpass")
    found = server_config(ConnectionOptions(creds=creds), environ, named)
    assert (found.creds, found.user, found.password) == (creds, None, None)
    found = server_config(ConnectionOptions(user="option"), environ, named)
    assert (found.user, found.password) == ("option", "envpass")
    found = server_config(ConnectionOptions(), environ, named)
    assert (found.user, found.password) == ("url", "urlpass")
    found = server_config(ConnectionOptions(), environ)
    assert (found.user, found.password) == ("env", "envpass")


def test_login_from_the_environment(tmp_path: Path) -> None:
    """NATS_TOKEN, NATS_CREDS and NATS_NKEY work; a user without a password is a token."""
    file = tmp_path / "file"
    file.touch()
    options = ConnectionOptions()
    assert server_config(options, {"NATS_TOKEN": "t"}).token == "t"
    assert server_config(options, {"NATS_CREDS": str(file)}).creds == file
    assert server_config(options, {"NATS_NKEY": str(file)}).nkey == file
    assert server_config(options, {"NATS_USER": "t"}).token == "t"
    assert server_config(options, {"NATS_CA": str(file)}).tls_ca == file


def test_missing_file_from_the_environment() -> None:
    """A variable that names no file is an error that names the variable."""
    with pytest.raises(UsageError, match="NATS_CREDS"):
        server_config(ConnectionOptions(), {"NATS_CREDS": "/no/such/file"})


def test_password_file(tmp_path: Path) -> None:
    """The first line of the password file is the password; an empty file is an error."""
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\nmore\n")
    config = server_config(ConnectionOptions(user="u", password_file=file), {})
    assert config.password == SECRET
    assert SECRET not in repr(config)
    file.write_text("")
    with pytest.raises(UsageError, match="empty"):
        server_config(ConnectionOptions(user="u", password_file=file), {})


def test_server_of_a_mount(tmp_path: Path) -> None:
    """What a mount tells of its server leads back to it; its secrets it keeps."""
    options = ConnectionOptions(tlsfirst=True, creds=tmp_path / "x.creds", tlsca=tmp_path / "ca")
    mounted = server_config(options, {}, Servers(("tls://h:1",)))
    told = server_status(mounted)
    assert server_of_mount(ConnectionOptions(), {}, told) == mounted
    secret = server_config(ConnectionOptions(user="u"), {"NATS_PASSWORD": SECRET})
    assert SECRET not in str(server_status(secret))
