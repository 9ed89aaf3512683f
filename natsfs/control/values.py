"""What mounts and commands say to each other, and where a mount listens."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from natsfs.config import ServerConfig

JSON = Any

#: The fields of `ServerConfig` that name files, and those that name subjects.
SERVER_FILES = ("creds", "nkey", "tls_ca", "tls_cert", "tls_key")
SERVER_SUBJECTS = ("domain", "api_prefix", "event_prefix", "inbox_prefix")


class MalformedEntry(TypedDict):
    """An object that is not shown, and why."""

    name: str
    reason: str


class ServerStatus(TypedDict):
    """How a mount reaches its server, without anything secret: *files* names credentials and
    certificates by the fields of `ServerConfig`, *subjects* JetStream's domain and prefixes.

    The last two are not told by mounts of natsfs that began before there were contexts."""

    urls: list[str]
    files: dict[str, str]
    tls_first: bool
    context: NotRequired[str]
    subjects: NotRequired[dict[str, str | None]]


class MountStatus(TypedDict, total=False):
    """The answer to the call `status`, which every mount gives.

    *bucket* is empty for a mount of all; *buckets* are then those in use, to which all numbers
    refer.  *uptime* is in seconds; *connection* is one word, "connected" or what else it is;
    *pending* is the number of bytes that programs wrote and JetStream has not acknowledged, *left*
    what mounts that died have left and `natsfs recover` is to decide on, *journal* how many files
    of its own the journal has.  *errors* counts the requests that failed for a reason that the log
    has, *reconnects* the connections that were made after one was lost.
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
    journal: int
    errors: int
    reconnects: int
    cache: CacheStatus
    malformed: list[MalformedEntry]
    server: ServerStatus


class CacheStatus(TypedDict):
    """Bytes *used* of the cache directory by all mounts, of *limit*; *paused* says what failed."""

    used: int
    limit: int
    paused: str


class Upload(TypedDict):
    """A file that is not stored; *stored* of its *bytes* are, None where nobody knows.  *state* is
    "open", "storing" or "waiting"."""

    bucket: str
    name: str
    bytes: int
    stored: int | None
    state: str


class Operation(TypedDict):
    """Requests of one kind: *counts* of those that took up to each bound, the last one all."""

    counts: list[int]
    seconds: float
    failures: int


class Activity(TypedDict):
    """The answer to the call `activity`: what the mount has done since it began, at *time* on a
    clock that goes on evenly, in seconds.

    *bytes* are those that programs have read and written, that were fetched from and stored on the
    server, and found in the cache (cached).  *bounds* are in seconds.  *uploads* are the first
    hundred.
    """

    time: float
    status: MountStatus
    bounds: list[float]
    operations: dict[str, Operation]
    bytes: dict[str, int]
    uploads: list[Upload]


class LeftBehind(TypedDict):
    """Files in a journal, and the bytes of these."""

    files: int
    bytes: int


def server_status(server: ServerConfig) -> ServerStatus:
    """What others may know of *server*."""
    named = {name: getattr(server, name) for name in SERVER_FILES}
    files = {name: str(path) for name, path in named.items() if path is not None}
    status = ServerStatus(urls=list(server.urls), files=files, tls_first=server.tls_first)
    status["subjects"] = {name: getattr(server, name) for name in SERVER_SUBJECTS}
    if server.context is not None:
        status["context"] = server.context
    return status


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
