"""How another connection to the session's server is made.

The session decides where to connect and who to be.  The data plane (`natsfs.store.link`) gets both
as a value, so that there is no second configuration of a login.

Concurrency: an `Access` never changes.  `greet` reads what nats-py keeps of a login, which stays
as it is once the client is connected, and may be called in any thread.
"""

from __future__ import annotations

import copy
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from natsfs.config import Proxy
from natsfs.store.session.client import Address, RawClient
from natsfs.store.session.denials import Denials


@dataclass(frozen=True, slots=True)
class Access:
    """One server, as a connection of the session found it.

    *peer* is the IP address and port behind *address*, whose host name may have several, or that of
    *proxy*, which is then to be asked for *address*.  *tls* is
    None where the session's connection has none; with *tls_first* the handshake comes before the
    server's greeting.  *greet* takes the decoded greeting (INFO) that a new connection got and
    gives the CONNECT line that answers it, which signs that greeting's nonce where the login is by
    key.  *denials* words what the server does not allow.
    """

    address: Address
    peer: tuple[str, int]
    inbox_prefix: str
    tls: ssl.SSLContext | None = field(compare=False, repr=False)
    tls_first: bool
    greet: Callable[[Mapping[str, Any]], bytes] = field(compare=False, repr=False)
    denials: Denials = field(compare=False, repr=False)
    proxy: Proxy | None = None


def access_of(client: RawClient, address: Address, denials: Denials) -> Access:
    """The access that *client*, connected to *address*, has.  Called in the asyncio thread."""
    writer = getattr(client._transport, "_io_writer", None)
    peer = writer.get_extra_info("peername") if writer is not None else None
    host, port = (peer or (address.host, address.port))[:2]
    return Access(
        address,
        (str(host), int(port)),
        client._inbox_prefix.decode(),
        client.ssl_context if client._server_info.get("tls_required") else None,
        bool(client.options["tls_handshake_first"]),
        lambda info: _greet(client, info),
        denials,
        client.proxy,
    )


def _greet(client: RawClient, info: Mapping[str, Any]) -> bytes:
    """nats-py makes the line from the greeting that it keeps, so a copy of the client gets another
    one to keep."""
    twin = copy.copy(client)
    twin._server_info = dict(info)
    return twin._connect_command()
