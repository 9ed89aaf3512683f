"""The values of the Object Store API: frozen, compared by content, free of I/O.

Field names are those of ADR-20 where it has one.  A *revision* is the stream sequence of a meta
message; a *nuid* names one immutable set of chunks, which is one version of an object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

#: The chunk size that every client but a configured one writes (ADR-20; protocol.md 1.3).
DEFAULT_CHUNK_SIZE = 128 * 1024

#: No server takes a larger message (its `max_payload` is at most 64 MiB).
LARGEST_CHUNK = 64 * 1024 * 1024

#: The `ObjectInfo.ttl` of a message that never expires.
EVER = -1

NOTHING: Mapping[str, Any] = MappingProxyType({})


def _nothing() -> Mapping[str, Any]:
    """`NOTHING` as a default: dataclasses take an unhashable value for a mutable one."""
    return NOTHING


@dataclass(frozen=True, slots=True)
class Link:
    """What a link object points at; without *name*, a whole bucket."""

    bucket: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ObjectMeta:
    """What a writer says of an object besides its bytes.

    *extra* are top-level JSON fields that natsfs has no name for; they are kept as they came (M6).
    """

    description: str = ""
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=_nothing)
    metadata: Mapping[str, str] = field(default_factory=_nothing)
    max_chunk_size: int = DEFAULT_CHUNK_SIZE
    extra: Mapping[str, Any] = field(default_factory=_nothing)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One meta message, decoded.

    *subject* is the subject it was received on, the object's key: clients disagree on the encoding
    of names (protocol.md 1.1), so it is never computed from a listed *name*.  *nuid* is empty on
    links that nats.js wrote.  *max_chunk_size* is 0 where the meta has none.  *time_ns* is the
    server's timestamp of the message in nanoseconds since the epoch, and an estimate of it in what
    a write returns.  *ttl* is how many seconds the message lives by its own header: 0 where it has
    none, `EVER` where not even the bucket's TTL ends it.
    """

    name: str
    bucket: str
    subject: str
    nuid: str = ""
    size: int = 0
    chunks: int = 0
    max_chunk_size: int = 0
    digest: str = ""
    deleted: bool = False
    link: Link | None = None
    description: str = ""
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=_nothing)
    metadata: Mapping[str, str] = field(default_factory=_nothing)
    extra: Mapping[str, Any] = field(default_factory=_nothing)
    revision: int = 0
    time_ns: int = 0
    ttl: int = 0

    def stored(self, revision: int, time_ns: int) -> ObjectInfo:
        """This meta as a message of the stream.  Every commit and every echo makes one, and
        `dataclasses.replace` takes twice as long."""
        return ObjectInfo(
            self.name,
            self.bucket,
            self.subject,
            self.nuid,
            self.size,
            self.chunks,
            self.max_chunk_size,
            self.digest,
            self.deleted,
            self.link,
            self.description,
            self.headers,
            self.metadata,
            self.extra,
            revision,
            time_ns,
            self.ttl,
        )


@dataclass(frozen=True, slots=True)
class ChunkSet:
    """What is stored on one chunk subject, whether or not an object owns it.

    *size* is in bytes, and an estimate where chunks between the first and the last have another
    length than the first.  *time_ns* is the server's timestamp of the newest.
    """

    nuid: str
    count: int
    size: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class MetaWrite:
    """One meta message to publish, always with `Nats-Rollup: sub`.

    *info* is the whole new content; its revision and time are ignored, and an empty subject means
    the standard one for its name.  *expected* is the revision that the subject must have: 0 for
    "no message at all", None for "whatever it is".  *ttl* is the life of the message in seconds,
    used where the bucket allows message TTLs and ignored elsewhere.
    """

    info: ObjectInfo
    expected: int | None = None
    ttl: int | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """Where in a cluster the bucket's stream is to live."""

    cluster: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BucketConfig:
    """How to create a bucket.  *ttl* is in seconds, *max_bytes* -1 for unlimited."""

    bucket: str
    description: str = ""
    ttl: float | None = None
    max_bytes: int = -1
    storage: str = "file"
    replicas: int = 1
    placement: Placement | None = None
    compression: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BucketStatus:
    """A bucket's stream as the server describes it.

    *size* is the number of stored bytes, metas and leaked chunks included.  *created_ns* tells a
    re-created bucket from the one that was there before.  *mirror* is the origin's stream name of
    a mirror, which is read-only.  No message before *first_revision* exists any
    more.  *asked_ns* is the server's clock when it said all this, 0 where it does not tell.
    *max_message* is how many bytes the stream takes in one message, -1 for any number.
    """

    bucket: str
    stream: str
    description: str
    ttl: float | None
    max_bytes: int
    storage: str
    replicas: int
    sealed: bool
    compression: bool
    metadata: Mapping[str, str]
    size: int
    messages: int
    last_revision: int
    created_ns: int
    allow_atomic: bool = False
    allow_msg_ttl: bool = False
    allow_direct: bool = True
    mirror: str | None = None
    first_revision: int = 0
    asked_ns: int = field(default=0, compare=False)
    max_message: int = -1

    @property
    def identity(self) -> str:
        """What tells this bucket from others, and from its namesakes before it was re-created."""
        return identity_of(self.stream, self.created_ns)


def identity_of(stream: str, created_ns: int) -> str:
    """`BucketStatus.identity`."""
    return f"{stream}@{created_ns}"


@dataclass(frozen=True, slots=True)
class Survey:
    """How many meta messages a bucket holds from some revision on, and what the first of them is;
    without any, *revision* is 0."""

    count: int
    revision: int = 0
    subject: str = ""
    time_ns: int = 0


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Settings of a bucket's stream that were switched on, or would be, and those that could not,
    with the reason.  They are called as in the stream's configuration."""

    changed: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """The account's JetStream storage in bytes; a limit of -1 means none."""

    storage_used: int
    storage_limit: int
    memory_used: int
    memory_limit: int


# -- what a watch tells ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Updated:
    """A meta message: a new, changed or deleted object (`info.deleted`).

    *sole* says that it took the place of all that was on its subject before (`Nats-Rollup`).
    """

    info: ObjectInfo
    sole: bool = True

    @property
    def revision(self) -> int:
        """Its revision, as other events have it."""
        return self.info.revision


@dataclass(frozen=True, slots=True)
class Malformed:
    """A meta message that cannot be understood, and why.  The watch goes on."""

    subject: str
    revision: int
    reason: str


@dataclass(frozen=True, slots=True)
class Restarted:
    """Messages may have been missed: what follows, up to *CaughtUp*, is the whole bucket again.

    Every watch begins with one.  *created_ns* identifies the bucket that is now being watched.
    *expected* is about how many events are to come up to *CaughtUp*.
    """

    created_ns: int
    expected: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Resumed:
    """What follows, up to *CaughtUp*, is what came after a revision that the caller named; what was
    removed since without a tombstone is not told.  *created_ns* and *expected* are those of
    `Restarted`."""

    created_ns: int
    expected: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """Everything that the bucket held when the watch (re)started has been delivered, or of it all
    that is newer than where it was resumed."""

    revision: int


WatchEvent = Updated | Malformed | Restarted | Resumed | CaughtUp


# -- what a watch of all buckets tells ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BucketCreated:
    """A bucket that exists, as far as is known: new, or there when the watch began."""

    status: BucketStatus


@dataclass(frozen=True, slots=True)
class BucketDeleted:
    """The bucket that was created at *created_ns* is no more; another may have its name."""

    bucket: str
    created_ns: int


@dataclass(frozen=True, slots=True)
class BucketsListed:
    """Every bucket that there was when the watch began has been told."""


BucketEvent = BucketCreated | BucketDeleted | BucketsListed


# -- what the server tells besides --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Removed:
    """Somebody had meta messages removed: those on *subject*, or the one of *revision*, or without
    either any of them.  Whether they are gone has to be asked."""

    subject: str = ""
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """The bucket was created, deleted, restored, or its settings changed: its status has to be
    asked for."""


Advisory = Removed | Reconfigured
