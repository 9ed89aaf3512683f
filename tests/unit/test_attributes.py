"""Attributes: metadata to stat(2) and back."""

from __future__ import annotations

import stat
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsfs.config import TreeConfig
from natsfs.filesystem.attributes import (
    SYMLINK_KEY,
    AttributeChanges,
    Attributes,
    encode,
    encode_symlink,
    new,
    of_directory,
    of_object,
    symlink_text,
)
from natsfs.store.model import Link, ObjectInfo

TREE = TreeConfig(uid=11, gid=22, file_mode=0o666, dir_mode=0o777, umask=0o027)
SECOND = 10**9
#: The first and the last nanosecond that RFC 3339 can spell.
FIRST = -62_135_596_800 * SECOND
LAST = 253_402_300_800 * SECOND - 1

times = st.integers(FIRST, LAST)
permissions = st.integers(0, 0o7777)
identities = st.integers(0, 2**32 - 2)


def an_object(**changes: object) -> ObjectInfo:
    """A meta."""
    info = ObjectInfo("name", "b", "subject", nuid="n", size=5, revision=1, time_ns=77)
    return replace(info, **changes)  # type: ignore[arg-type]


@given(permissions, identities, identities, times, times, times)
def test_files_round_trip(
    mode: int, uid: int, gid: int, mtime: int, atime: int, btime: int
) -> None:
    """M1: every field comes back to the nanosecond, before 1970 and after 2038."""
    wanted = Attributes(stat.S_IFREG | mode, uid, gid, 5, mtime, atime, 77, btime)
    found, problems = of_object(an_object(metadata=encode(wanted)), TREE)
    assert (found, problems) == (wanted, [])


@given(permissions, identities, times)
def test_directories_round_trip(mode: int, uid: int, mtime: int) -> None:
    """M1: the same for directories."""
    wanted = new(stat.S_IFDIR | mode, uid, 3, mtime)
    marker = an_object(metadata=encode(wanted), size=0, time_ns=mtime)
    assert of_directory(marker, 0, TREE) == (wanted, [])


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
def test_special_files_round_trip(kind: int) -> None:
    """K8: types and device numbers come back."""
    rdev = 0xFFFF0001 if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
    wanted = replace(new(kind | 0o640, 1, 2, 99), rdev=rdev)
    info = an_object(metadata=encode(wanted), size=0, time_ns=99)
    assert of_object(info, TREE) == (wanted, [])


@pytest.mark.parametrize(
    ("given_ns", "kept_ns"),
    [(FIRST, FIRST), (FIRST - 1, FIRST), (-(10**30), FIRST), (LAST + 1, LAST), (2**70, LAST)],
)
def test_times_beyond_rfc_3339(given_ns: int, kept_ns: int) -> None:
    """M1: a time that cannot be spelled becomes the nearest that can."""
    metadata = encode(replace(new(0o100644, 0, 0, 0), mtime_ns=given_ns))
    found, problems = of_object(an_object(metadata=metadata), TREE)
    assert (found.mtime_ns, problems) == (kept_ns, [])


def test_formats() -> None:
    """M1: keys and formats are those of rclone."""
    attributes = replace(new(stat.S_IFCHR | 0o600, 1, 2, -1), rdev=0x1F03)
    assert encode(attributes) == {
        "mode": "0020600",
        "uid": "1",
        "gid": "2",
        "rdev": "1f03",
        "mtime": "1969-12-31T23:59:59.999999999Z",
        "atime": "1969-12-31T23:59:59.999999999Z",
        "btime": "1969-12-31T23:59:59.999999999Z",
    }


def test_defaults() -> None:
    """M2, M3: what the metadata does not say comes from the mount and the server's time."""
    found, problems = of_object(an_object(), TREE)
    assert problems == []
    assert found == Attributes(0o100640, 11, 22, 5, 77, 77, 77, 77)
    found, problems = of_directory(None, 55, TREE)
    assert problems == []
    assert found == Attributes(0o40750, 11, 22, 4096, 55, 55, 55, 55)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mode", "rwxr-xr-x"),
        ("mode", ""),
        ("mode", "-1"),
        ("mode", "0o8"),
        ("mode", "7777777"),
        ("uid", "root"),
        ("uid", "4294967295"),
        ("uid", "-1"),
        ("gid", "1e3"),
        ("mtime", "yesterday"),
        ("mtime", "2020-13-01T00:00:00Z"),
        ("mtime", "1600000000"),
        ("atime", ""),
        ("btime", "0000-00-00T00:00:00Z"),
    ],
)
def test_undecodable_values(key: str, value: str) -> None:
    """M2: a value that cannot be understood falls back like an absent one, and is named."""
    found, problems = of_object(an_object(metadata={key: value}), TREE)
    assert found == of_object(an_object(), TREE)[0]
    (problem,) = problems
    assert problem.startswith(key)
    assert len(problem) < 60


@given(st.dictionaries(st.sampled_from(["mode", "uid", "gid", "mtime", "rdev"]), st.text()))
def test_any_text(metadata: dict[str, str]) -> None:
    """M2: no metadata raises, and all of it gives a stat that the kernel can hold."""
    for size in (0, 5):
        found, _ = of_object(an_object(metadata=metadata, size=size), TREE)
        assert stat.S_IFMT(found.mode) != 0
        assert 0 <= found.uid < 2**32 - 1
        assert FIRST - 86_400 * SECOND <= found.mtime_ns <= LAST + 86_400 * SECOND
        directory, _ = of_directory(an_object(metadata=metadata), 0, TREE)
        assert stat.S_ISDIR(directory.mode)


@pytest.mark.parametrize(
    ("mode", "size", "symlink", "kind"),
    [
        ("0010644", 0, None, stat.S_IFIFO),
        ("0010644", 1, None, stat.S_IFREG),
        ("0140644", 7, None, stat.S_IFREG),
        ("0020644", 1, None, stat.S_IFREG),
        ("0120777", 0, None, stat.S_IFREG),
        ("0120777", 0, "t", stat.S_IFLNK),
        ("0120777", 3, "t", stat.S_IFREG),
        ("0040755", 0, None, stat.S_IFREG),
        ("0040755", 3, None, stat.S_IFREG),
        ("0170000", 0, None, stat.S_IFREG),
        ("0000644", 3, None, stat.S_IFREG),
    ],
)
def test_claims_of_type(mode: str, size: int, symlink: str | None, kind: int) -> None:
    """K5, K8: an object is what its mode claims only if that hides no content."""
    metadata = {"mode": mode} | ({} if symlink is None else {SYMLINK_KEY: symlink})
    found, problems = of_object(an_object(metadata=metadata, size=size), TREE)
    assert stat.S_IFMT(found.mode) == kind
    assert found.size == (size if kind == stat.S_IFREG else 0)
    assert problems == []


def test_links() -> None:
    """K2: a native link is a symbolic link whatever its mode claims."""
    for metadata in ({}, {"mode": "0100600"}):
        info = an_object(link=Link("b", "x"), metadata=metadata)
        found, _ = of_object(info, TREE)
        assert found.mode == stat.S_IFLNK | (0o600 if metadata else 0o777)


@given(st.binary(max_size=60).map(lambda raw: raw.replace(b"\0", b"")))
def test_symlink_text(target: bytes) -> None:
    """K6: readlink gives back exactly the bytes that symlink was given."""
    metadata = encode_symlink(target)
    assert symlink_text(an_object(metadata=metadata)) == target
    for text in metadata.values():
        text.encode("utf-8")


def test_no_symlink_text() -> None:
    """K6: an object without one has none."""
    assert symlink_text(an_object()) is None


changes = st.builds(
    AttributeChanges,
    mode=st.none() | permissions,
    uid=st.none() | identities,
    gid=st.none() | identities,
    size=st.none(),
    mtime_ns=st.none() | times,
    atime_ns=st.none() | times,
)


@given(changes)
def test_changes(wanted: AttributeChanges) -> None:
    """M5: a change touches what it names, and its keys give the same stat to everybody."""
    before = new(0o100644, 1, 2, 3)
    after = wanted.apply(before, 99)
    for name in (field.name for field in fields(AttributeChanges)):
        value = getattr(wanted, name)
        if name not in ("mode", "size"):
            assert getattr(after, name) == (getattr(before, name) if value is None else value)
    if wanted.mode is not None:
        assert after.mode == 0o100000 | wanted.mode
    assert after.ctime_ns == 99
    keys = wanted.encode(after)
    stored = an_object(metadata={**encode(before), **keys}, size=0, time_ns=99)
    assert of_object(stored, TREE) == (after, [])
    untouched = {"btime", "rdev", "mtime", "atime", "uid", "gid"} - {
        key
        for key, value in (
            ("mtime", wanted.mtime_ns),
            ("atime", wanted.atime_ns),
            ("uid", wanted.uid),
            ("gid", wanted.gid),
        )
        if value is not None
    }
    assert not untouched & keys.keys()


@pytest.mark.parametrize(
    ("mode", "after"),
    [(0o106755, 0o100755), (0o102644, 0o102644), (0o104644, 0o100644), (0o42755, 0o42755)],
)
def test_chown_takes_privileges(mode: int, after: int) -> None:
    """M1: a change of owner takes the set-ID bits of files away, as chown(2) does."""
    assert AttributeChanges(uid=5).apply(new(mode, 0, 0, 0), 1).mode == after
    assert AttributeChanges(uid=5).encode(new(after, 5, 0, 0))["mode"] == f"{after:07o}"
