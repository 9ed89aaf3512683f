"""The control socket of a mount: where it lies, what is said on it, who may listen.

    values     what is said
    serving    the mount's side
    asking     the commands' side

Each mount listens on a Unix socket of its own, named after a hash of the mount directory, in a
directory that only its user may enter.  A request is one line of JSON, `{"call": NAME, "args":
{…}}`; the answer is one line, `{"result": …}` or `{"error": TEXT}`.  A connection serves any number
of requests, one after the other.
"""

from __future__ import annotations

from natsfs.control.asking import ANSWER_TIMEOUT, Answer, Client, ask, list_mounts
from natsfs.control.serving import MAX_CONNECTIONS, MAX_REQUEST, Handler, serve_control
from natsfs.control.values import (
    JSON,
    Activity,
    CacheStatus,
    LeftBehind,
    MalformedEntry,
    MountStatus,
    Operation,
    ServerStatus,
    Upload,
    server_status,
    socket_path,
)

__all__ = [
    "ANSWER_TIMEOUT",
    "JSON",
    "MAX_CONNECTIONS",
    "MAX_REQUEST",
    "Activity",
    "Answer",
    "CacheStatus",
    "Client",
    "Handler",
    "LeftBehind",
    "MalformedEntry",
    "MountStatus",
    "Operation",
    "ServerStatus",
    "Upload",
    "ask",
    "list_mounts",
    "serve_control",
    "server_status",
    "socket_path",
]
