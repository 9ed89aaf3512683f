"""What an object's metadata says of a file's attributes, and how changes are written back.

The only module that knows the metadata keys.  They are those of rclone's system metadata, in its
formats, so that `rclone` and people who know it read them (M1): `mode` in octal with the type
bits, `uid` and `gid` in decimal, `rdev` in hex, `mtime`, `atime` and `btime` in RFC 3339 with
nanoseconds.  `symlink` holds the text of a symbolic link.

Pure.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import TypeVar

from natsfs.config import TreeConfig
from natsfs.store.model import NOTHING, ObjectInfo
from natsfs.store.wire import parse_time, render_time
from natsfs.tree.names import bytes_of, text_of

Default = TypeVar("Default")

#: Where the text of a symbolic link is kept, quoted by `tree.names.text_of`.
SYMLINK_KEY = "symlink"

#: Marks a native link as a further name of the object that it links to (K7).
HARD_LINK_KEY = "hardlink"

#: The metadata key of a tombstone that is a claim (A3); its value is the mount that made it.
CLAIM_KEY = "claimed-by"

#: Metadata keys that natsfs gives a meaning of its own.
SYSTEM_KEYS = frozenset(
    {"mode", "uid", "gid", "rdev", "mtime", "atime", "btime", SYMLINK_KEY, HARD_LINK_KEY}
)

_TIMES = frozenset({"mtime", "atime", "btime"})

#: The type bits that an object may claim by its mode besides a regular file's (K5, K8).
_SPECIAL = frozenset({stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK})

_EARLIEST = -62_135_596_800 * 10**9
_LATEST = 253_402_300_800 * 10**9 - 1

#: What stat says of a directory: a number that people know from ext4; nothing is read by it.
DIRECTORY_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Attributes:
    """stat(2) without what belongs to the tree (inode number, link count).  Times are in
    nanoseconds since the epoch, *mode* has the type bits."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    atime_ns: int
    ctime_ns: int
    btime_ns: int
    rdev: int = 0


@dataclass(frozen=True, slots=True)
class AttributeChanges:
    """What a setattr asks for; None leaves as it is.  *mode* has no type bits."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    mtime_ns: int | None = None
    atime_ns: int | None = None

    def apply(self, attributes: Attributes, now_ns: int) -> Attributes:
        """*attributes* after the change, which happens at *now_ns*.  *size* is not looked at."""
        mode = attributes.mode
        if self.mode is not None:
            mode = stat.S_IFMT(mode) | stat.S_IMODE(self.mode)
        elif self.chown:
            mode = without_privileges(mode)
        return replace(
            attributes,
            mode=mode,
            uid=attributes.uid if self.uid is None else self.uid,
            gid=attributes.gid if self.gid is None else self.gid,
            mtime_ns=attributes.mtime_ns if self.mtime_ns is None else self.mtime_ns,
            atime_ns=attributes.atime_ns if self.atime_ns is None else self.atime_ns,
            ctime_ns=now_ns,
        )

    @property
    def chown(self) -> bool:
        """Whether the change is one of owner or group, which takes set-ID bits away (chown(2)).

        A change of nothing is one as well: Linux sends it for a chown that gives neither owner nor
        group, and for nothing else.
        """
        nothing = self == AttributeChanges()
        return nothing or self.uid is not None or self.gid is not None

    def encode(self, attributes: Attributes) -> dict[str, str]:
        """The metadata keys that the change touches, taken from *attributes* after it."""
        keys = {
            "mode": attributes.mode if self.chown else self.mode,
            "uid": self.uid,
            "gid": self.gid,
            "mtime": self.mtime_ns,
            "atime": self.atime_ns,
        }
        everything = encode(attributes)
        return {key: everything[key] for key, value in keys.items() if value is not None}


def encode(attributes: Attributes) -> dict[str, str]:
    """All of *attributes* as metadata."""
    keys = {
        "mode": f"{attributes.mode:07o}",
        "uid": str(attributes.uid),
        "gid": str(attributes.gid),
        "mtime": _render_time(attributes.mtime_ns),
        "atime": _render_time(attributes.atime_ns),
        "btime": _render_time(attributes.btime_ns),
    }
    if attributes.rdev:
        keys["rdev"] = f"{attributes.rdev:x}"
    return keys


def new(mode: int, uid: int, gid: int, now_ns: int) -> Attributes:
    """The attributes of something that is created, empty, at *now_ns*."""
    size = DIRECTORY_SIZE if stat.S_ISDIR(mode) else 0
    return Attributes(mode, uid, gid, size, now_ns, now_ns, now_ns, now_ns)


def merged(ours: Attributes, before: Attributes, after: Attributes) -> Attributes:
    """*ours*, made from *before*, with what another client changed from *before* to *after* and we
    did not."""
    kept = ("size", "ctime_ns")
    theirs = {
        field.name: getattr(after, field.name)
        for field in fields(Attributes)
        if field.name not in kept and getattr(ours, field.name) == getattr(before, field.name)
    }
    return replace(ours, **theirs)


def without_privileges(mode: int, by_member: Callable[[], bool] = lambda: True) -> int:
    """*mode* as it is after a write by an ordinary user or a chown: the set-user-ID bit goes, and
    the set-group-ID bit where it is not a mark of mandatory locking that a member of the file's
    group may keep.  Directories keep both."""
    if stat.S_ISDIR(mode):
        return mode
    if mode & stat.S_ISGID and (mode & stat.S_IXGRP or not by_member()):
        mode &= ~stat.S_ISGID
    return mode & ~stat.S_ISUID


def of_object(info: ObjectInfo, tree: TreeConfig) -> tuple[Attributes, list[str]]:
    """The attributes of a leaf, and what of its metadata could not be understood (M2).

    The size of a symbolic link is left at 0: its text may depend on where the link is.
    """
    found = _Decoder(info.metadata)
    mode = found.read("mode", _octal, None)
    if info.link is not None:
        permissions = 0o777 if mode is None else stat.S_IMODE(mode)
        return found.attributes(info, stat.S_IFLNK | permissions, tree, size=0), found.problems
    if mode is None:
        mode = tree.file_mode & ~tree.umask
    kind = stat.S_IFMT(mode)
    if not _may_be(kind, info):
        kind = stat.S_IFREG
    rdev = found.read("rdev", _hex, 0) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
    size = info.size if kind == stat.S_IFREG else 0
    full = found.attributes(info, kind | stat.S_IMODE(mode), tree, size=size)
    return (replace(full, rdev=rdev) if rdev else full), found.problems


def of_directory(
    marker: ObjectInfo | None, implied_ns: int, tree: TreeConfig
) -> tuple[Attributes, list[str]]:
    """The attributes of a directory, which without a *marker* dates from *implied_ns*."""
    if marker is None:
        marker = ObjectInfo("", "", "", time_ns=implied_ns)
    found = _Decoder(marker.metadata)
    mode = found.read("mode", _octal, tree.dir_mode & ~tree.umask)
    full = stat.S_IFDIR | stat.S_IMODE(mode)
    return found.attributes(marker, full, tree, size=DIRECTORY_SIZE), found.problems


def birth_ns(info: ObjectInfo) -> int:
    """When the object was created; without that knowledge, when its meta was written."""
    return _Decoder(info.metadata).read("btime", _time, info.time_ns)


def without_metadata(info: ObjectInfo) -> ObjectInfo:
    """*info* with its bytes and its name, and nothing else that anybody said of it."""
    return replace(
        info, link=None, description="", headers=NOTHING, metadata=NOTHING, extra=NOTHING
    )


def with_times(info: ObjectInfo) -> ObjectInfo:
    """*info* with its times spelled out, because it is about to be written again: those that are
    not would follow the new timestamp (M2)."""
    if info.metadata.keys() >= _TIMES:
        return info
    time = _render_time(info.time_ns)
    known = {"mtime": time, "atime": info.metadata.get("mtime", time), "btime": time}
    return replace(info, metadata={**known, **info.metadata})


def is_symlink(attributes: Attributes) -> bool:
    """Whether these are a symbolic link's."""
    return stat.S_ISLNK(attributes.mode)


def is_hard_link(info: ObjectInfo) -> bool:
    """Whether *info* is a further name of an object in the same bucket."""
    link = info.link
    if link is None or link.name is None or info.metadata.get(HARD_LINK_KEY) != "true":
        return False
    return link.bucket == info.bucket


def symlink_text(info: ObjectInfo) -> bytes | None:
    """What symlink(2) was given for *info*, if natsfs wrote it (K6)."""
    text = info.metadata.get(SYMLINK_KEY)
    return None if text is None else bytes_of(text)


def encode_symlink(target: bytes) -> dict[str, str]:
    """The metadata that brings back *target*."""
    return {SYMLINK_KEY: text_of(target)}


def _may_be(kind: int, info: ObjectInfo) -> bool:
    """Whether an object can be of the type that its mode claims: content is never hidden."""
    if kind not in _SPECIAL or info.size:
        return False
    return kind != stat.S_IFLNK or SYMLINK_KEY in info.metadata


class _Decoder:
    """Reads keys of one metadata map and remembers which it could not."""

    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._metadata = metadata
        self.problems: list[str] = []

    def read(self, key: str, parse: Callable[[str], int], default: Default) -> int | Default:
        text = self._metadata.get(key)
        if text is None:
            return default
        try:
            return parse(text)
        except ValueError:
            self.problems.append(f"{key}={text[:40]!r}")
            return default

    def attributes(self, info: ObjectInfo, mode: int, tree: TreeConfig, *, size: int) -> Attributes:
        mtime = self.read("mtime", _time, info.time_ns)
        return Attributes(
            mode=mode,
            uid=self.read("uid", _identity, tree.uid),
            gid=self.read("gid", _identity, tree.gid),
            size=size,
            mtime_ns=mtime,
            atime_ns=self.read("atime", _time, mtime),
            ctime_ns=info.time_ns,
            btime_ns=self.read("btime", _time, info.time_ns),
        )


# A file that was written once has one time three times: attributes take 4.2 µs instead of 9.0.
@lru_cache(16)
def _time(text: str) -> int:
    time_ns = parse_time(text)
    if time_ns is None:
        raise ValueError(f"{text!r} is not a time")
    return time_ns


def _render_time(time_ns: int) -> str:
    """Like ext4, keep the nearest time that can be stored; RFC 3339 has the years 1 to 9999."""
    return render_time(min(max(time_ns, _EARLIEST), _LATEST))


def _octal(text: str) -> int:
    return _bounded(int(text, 8), 0o177777)


def _hex(text: str) -> int:
    return _bounded(int(text, 16), 0xFFFFFFFF)


def _identity(text: str) -> int:
    # 2**32 - 1 is "no change" to chown(2) and cannot belong to anyone.
    return _bounded(int(text), 0xFFFFFFFE)


def _bounded(number: int, limit: int) -> int:
    if not 0 <= number <= limit:
        raise ValueError(f"{number} is out of range")
    return number
