"""SOURCE and server lists as people write them: URLs, hosts, buckets, credentials.

`BUCKET`, `nats://host:port/BUCKET`, `tls://…`, several hosts separated by commas.  Credentials may
stand in a URL and are taken out of it here; no text that this module makes contains them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote

from natsfs.config import Proxy
from natsfs.errors import UsageError

DEFAULT_PORT = 4222
DEFAULT_PROXY_PORT = 1080
SCHEMES = ("nats", "tls")
_PROXY_SCHEMES = ("socks5", "socks5h")
_LOGIN = ("user", "password")

_HOST = re.compile(
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://)?"
    r"(?:(?P<user>[^\s,/@:]*)(?::(?P<password>[^\s,/@]*))?@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s,/@:\[\]]+)"
    r"(?::(?P<port>\d{1,5}))?(?=[,/]|$)"
)
#: ADR-20: what a bucket may be called.
_BUCKET = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Servers:
    """A list of servers: clean URLs, and the credentials that stood in them."""

    urls: tuple[str, ...] = ()
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Source:
    """A bucket, the start of object names in it, and the servers if SOURCE names them."""

    bucket: str
    prefix: str = ""
    servers: Servers = Servers()


def parse_source(text: str, *, prefix_allowed: bool = False, all_allowed: bool = False) -> Source:
    """*text* as a SOURCE; with *prefix_allowed* more of an object's name may follow the bucket,
    with *all_allowed* a URL may name a server alone: then *bucket* is empty.

    Errors: `UsageError` that says what is wrong and shows no credentials.
    """
    servers, path = _split_url(text) if "://" in text else (Servers(), text)
    bucket, _, prefix = path.partition("/")
    if all_allowed and servers.urls and not path:
        return Source("", servers=servers)
    if not bucket:
        raise UsageError(f"{_shown(text)} names no bucket; write nats://HOST:PORT/BUCKET")
    if prefix and not prefix_allowed:
        raise UsageError(
            f"{_shown(text)} goes on after the bucket; mount {bucket!r} and use a directory in it"
        )
    return Source(check_bucket(bucket), prefix, servers)


def parse_servers(text: str) -> Servers:
    """*text* as a list of servers without a bucket, as in `--server` and NATS_URL.

    Errors: `UsageError`.
    """
    servers, path = _split_url(text)
    if path:
        raise UsageError(f"{_shown(text)} is to name servers alone; the bucket belongs into SOURCE")
    return servers


def parse_proxy(text: str) -> Proxy:
    """*text* as a SOCKS5 proxy, `socks5://[USER:PASSWORD@]HOST[:PORT]`.

    Errors: `UsageError` that shows no credentials.
    """
    found = _HOST.fullmatch(text)
    if found is None or (found["scheme"] or "").lower() not in _PROXY_SCHEMES:
        raise UsageError(f"{_shown(text)} is no SOCKS proxy; write socks5://HOST:PORT, or none")
    user, password = (unquote(found[name]) if found[name] else None for name in _LOGIN)
    port = int(found["port"] or DEFAULT_PROXY_PORT)
    if not 0 < port < 65536:
        raise UsageError(f"{_shown(text)} has the port {port}; ports end at 65535")
    return Proxy(found["host"].strip("[]"), port, user, password)


def check_bucket(name: str) -> str:
    """*name*, if a bucket may be called so.  Errors: `UsageError`."""
    if not _BUCKET.fullmatch(name):
        raise UsageError(
            f"{_shown(name)} cannot be a bucket; the letters A-Z a-z, 0-9, _ and - can name one"
        )
    return name


def _split_url(text: str) -> tuple[Servers, str]:
    """The servers at the start of *text*, and what follows the slash after them."""
    urls: list[str] = []
    logins: set[tuple[str, str | None]] = set()
    scheme, position = "nats", 0
    while True:
        found = _HOST.match(text, position)
        if found is None:
            raise UsageError(f"{_shown(text)} is no server; write nats://HOST:PORT")
        scheme = _scheme(found["scheme"] or scheme, text)
        urls.append(_url(scheme, found, text))
        if found["user"] is not None:
            logins.add((found["user"], found["password"]))
        position = found.end() + 1
        if text[found.end() : position] != ",":
            return _with_login(tuple(urls), logins), text[position:]


def _scheme(scheme: str, text: str) -> str:
    if scheme.lower() not in SCHEMES:
        raise UsageError(
            f"{_shown(text)} has the scheme {scheme!r}; natsfs speaks nats:// and tls://"
        )
    return scheme.lower()


def _url(scheme: str, found: re.Match[str], text: str) -> str:
    port = int(found["port"] or DEFAULT_PORT)
    if not 0 < port < 65536:
        raise UsageError(f"{_shown(text)} has the port {port}; ports end at 65535")
    return f"{scheme}://{found['host']}:{port}"


def _with_login(urls: tuple[str, ...], logins: set[tuple[str, str | None]]) -> Servers:
    if len(logins) > 1:
        raise UsageError("the servers in one list have different credentials; give them once")
    if not logins:
        return Servers(urls)
    user, password = logins.pop()
    if password is None:
        return Servers(urls, token=unquote(user))
    return Servers(urls, user=unquote(user), password=unquote(password))


def _shown(text: str) -> str:
    """*text* for a message: a malformed URL may hold a secret anywhere in front of its last @."""
    scheme, mark, rest = text.partition("://")
    return repr(scheme + mark + rest.rpartition("@")[2] if mark else text.rpartition("@")[2])
