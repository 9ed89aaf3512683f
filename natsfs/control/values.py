"""What mounts and commands say to each other, and where a mount listens."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from natsfs.config import ServerConfig

JSON = Any

#: The fields of `ServerConfig` that name files.
SERVER_FILES = ("creds", "nkey", "tls_ca", "tls_cert", "tls_key")


class MalformedEntry(TypedDict):
    """An object that is not shown, and why."""

    name: str
    reason: str


class ServerStatus(TypedDict):
    """How a mount reaches its server, without anything secret: *files* names credentials and
    certificates by the fields of `ServerConfig`."""

    urls: list[str]
    files: dict[str, str]
    tls_first: bool


class MountStatus(TypedDict, total=False):
    """The answer to the call `status`, which every mount gives.

    *bucket* is empty for a mount of all; *buckets* are then those in use, to which all numbers
    refer.  *uptime* is in seconds; *connection* is one word, "connected" or what else it is;
    *pending* is the number of bytes that programs wrote and JetStream has not acknowledged, *left*
    what mounts that died have left and `natsfs recover` is to decide on.
    """

    source: str
    directory: str
    bucket: str
    buckets: list[str]
    pid: int
    uptime: float
    connection: str
    read_only: bool
    objects: int
    pending: int
    left: LeftBehind
    malformed: list[MalformedEntry]
    server: ServerStatus


class LeftBehind(TypedDict):
    """Files in a journal, and the bytes of these."""

    files: int
    bytes: int


def server_status(server: ServerConfig) -> ServerStatus:
    """What others may know of *server*."""
    named = {name: getattr(server, name) for name in SERVER_FILES}
    files = {name: str(path) for name, path in named.items() if path is not None}
    return ServerStatus(urls=list(server.urls), files=files, tls_first=server.tls_first)


def socket_path(directory: Path, mount_point: Path) -> Path:
    """Where the mount on *mount_point*, an absolute path, listens within *directory*."""
    digest = hashlib.sha256(os.fsencode(mount_point)).hexdigest()
    return directory / f"{digest[:16]}.sock"


@contextmanager
def short_address(path: Path) -> Iterator[str]:
    """*path* in a form that fits into a socket address, which holds 107 bytes (unix(7))."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
