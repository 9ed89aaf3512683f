"""What can be configured, as frozen values with their defaults and the reasons for them.

Only `cli` builds these from argv and the environment; everything below takes them as they are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

#: Where a server is looked for when nobody says otherwise (`--server`, then `NATS_URL`, then this).
DEFAULT_SERVER = "nats://127.0.0.1:4222"


@dataclass(frozen=True, slots=True)
class Proxy:
    """A SOCKS5 proxy; its text has no secret."""

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"socks5://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How to reach NATS.  Secrets live here and nowhere else; `repr` does not show them."""

    urls: tuple[str, ...] = (DEFAULT_SERVER,)
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    creds: Path | None = None
    nkey: Path | None = None
    #: What a credentials file, or an nkey's, would say, where it stands in no file.
    creds_text: str | None = field(default=None, repr=False)
    nkey_text: str | None = field(default=None, repr=False)
    #: A user JWT that needs no signature.
    bearer: str | None = field(default=None, repr=False)
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_first: bool = False
    domain: str | None = None
    api_prefix: str | None = None
    event_prefix: str | None = None
    inbox_prefix: str | None = None
    #: What every connection goes through.
    proxy: Proxy | None = None
    #: The context of the `nats` command that some of this comes from.
    context: str | None = None
    #: Seconds: the longest that one request may wait for its answer, reconnecting included (A5).
    timeout: float = 60.0
    #: Seconds for the first connection: a mount that cannot start should say so soon.
    connect_timeout: float = 5.0
    name: str = "natsfs"


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """The block cache on local disk."""

    directory: Path
    #: Bytes.  10 GiB holds a working set and fits the disks that people mount on.
    max_bytes: int = 10 * 1024**3
    #: The share of the disk that stays free whatever *max_bytes* says.
    min_free: float = 0.05


class ConflictPolicy(Enum):
    """What a commit does when a version came in between that nobody here has seen (A4)."""

    #: Replace it: the last commit wins, as between two programs of one host.
    LAST = "last"
    #: Replace it, and keep it under another name.
    KEEP = "keep"
    #: Leave it alone and fail.
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class ConflictConfig:
    """What happens when two hosts write one file, and what this host is called in names."""

    policy: ConflictPolicy = ConflictPolicy.LAST
    host: str = field(default_factory=lambda: os.uname().nodename)


@dataclass(frozen=True, slots=True)
class TreeConfig:
    """How entries look whose metadata says nothing (M2)."""

    uid: int = field(default_factory=os.getuid)
    gid: int = field(default_factory=os.getgid)
    #: Modes of files and directories without one of their own; *umask* is taken off both.
    file_mode: int = 0o666
    dir_mode: int = 0o777
    umask: int = 0o022


@dataclass(frozen=True, slots=True)
class MountConfig:
    """One mount, of *bucket* or, where that is empty, of all buckets."""

    server: ServerConfig
    bucket: str
    directory: Path
    cache: CacheConfig
    tree: TreeConfig = field(default_factory=TreeConfig)
    conflict: ConflictConfig = field(default_factory=ConflictConfig)
    read_only: bool = False
    #: Whether programs wait for a server that is away for as long as it takes (A5).
    hard: bool = False
    allow_other: bool = False
    create: bool = False
    #: Whether close(2) returns when the local disk has what was written, and not the server (W8).
    writeback: bool = False
    #: Seconds between replacing a version and freeing its chunks, so that readers on other hosts
    #: can finish (W6).
    purge_delay: float = 10.0
    #: The directory of the embedded server's store, or None to use *server*.
    embedded: Path | None = None
    #: Where Prometheus gets the counters: host and port; None for nowhere.
    metrics_address: tuple[str, int] | None = None
    #: What /proc/mounts shows as the source; never contains a secret.
    source: str = ""
    #: Extra words for mount(8) that the kernel understands (`noatime`, `nosuid`, …).
    kernel_options: tuple[str, ...] = ()
