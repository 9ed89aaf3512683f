"""The handshake with a SOCKS5 proxy (RFC 1928, and RFC 1929 for its login), without its I/O.

The session reads and writes in asyncio, the links in trio: both drive `handshake`, which says what
to send and how much to wait for.  Names are handed to the proxy: it resolves them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Generator

from natsfs.config import Proxy
from natsfs.errors import ConnectFailed

#: Bytes to send, and how many to wait for then; those are sent in.
Steps = Generator[tuple[bytes, int], bytes, None]

_VERSION, _CONNECT = 5, 1
_NO_LOGIN, _PASSWORD, _NOTHING_ACCEPTED = 0, 2, 0xFF
_IPV4, _NAME, _IPV6 = 1, 3, 4
_SIZES = {_IPV4: 4, _IPV6: 16}

_REASONS = {
    2: "it does not allow that",
    3: "the network cannot be reached",
    4: "the host cannot be reached",
    5: "connection refused",
}


def handshake(proxy: Proxy, host: str, port: int) -> Steps:
    """Ask *proxy* for a connection to *host*; when this ends, bytes are to and from there.

    Errors: `ConnectFailed`.
    """
    wanted = bytes([_NO_LOGIN, _PASSWORD] if proxy.user else [_NO_LOGIN])
    version, method = yield bytes([_VERSION, len(wanted)]) + wanted, 2
    if version != _VERSION:
        raise ConnectFailed(f"what answers at {proxy} is no SOCKS5 proxy")
    if method == _NOTHING_ACCEPTED or method not in wanted:
        raise ConnectFailed(f"the proxy {proxy} asks for a login; write socks5://USER:PASSWORD@…")
    if method == _PASSWORD:
        _, refused = yield _login(proxy), 2
        if refused:
            raise ConnectFailed(f"the proxy {proxy} refused the login")
    request = bytes([_VERSION, _CONNECT, 0]) + _address(host) + port.to_bytes(2, "big")
    _, failed, _, kind = yield request, 4
    if failed:
        reason = _REASONS.get(failed, f"error {failed} of SOCKS")
        raise ConnectFailed(f"the proxy {proxy} gives no connection to {host}:{port}: {reason}")
    size = _SIZES.get(kind)
    if size is None:
        (size,) = yield b"", 1
    yield b"", size + 2


def _login(proxy: Proxy) -> bytes:
    parts = [text.encode()[:255] for text in (proxy.user or "", proxy.password or "")]
    return b"\1" + b"".join(bytes([len(part)]) + part for part in parts)


def _address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode("idna" if not host.isascii() else "ascii")[:255]
        return bytes([_NAME, len(name)]) + name
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed
