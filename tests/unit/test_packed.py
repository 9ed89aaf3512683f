"""Packed metas: nothing is lost, and little is held."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from natsfs.store.model import Link, ObjectInfo
from natsfs.store.wire import EMPTY_DIGEST, meta_subject, render_digest, render_time
from natsfs.tree.packed import Standard, facts_of, key_of, revision_of

STANDARD = Standard("b", "$O.b.M.")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
numbers = st.integers(0, 2**63 - 1)
digests = st.one_of(
    st.sampled_from(["", EMPTY_DIGEST, "sha-256=" + "A" * 44, "SHA-256=" + "B" * 44]),
    st.binary(min_size=32, max_size=32).map(render_digest),
    texts,
)
times = st.integers(-(2**61), 2**62).map(render_time)
keys = st.sampled_from(["mode", "uid", "gid", "mtime", "atime", "btime", "0", "x"])


@st.composite
def infos(draw: st.DrawFn) -> ObjectInfo:
    name = draw(texts.filter(bool))
    return ObjectInfo(
        name=name,
        bucket="b",
        subject=meta_subject("b", name),
        nuid=draw(st.text("abcXYZ019-_", min_size=1, max_size=30)),
        size=draw(numbers),
        chunks=draw(numbers),
        max_chunk_size=draw(numbers),
        digest=draw(digests),
        description=draw(st.just("") | texts),
        headers=draw(st.dictionaries(texts, st.lists(texts, max_size=2).map(tuple), max_size=2)),
        metadata=draw(st.dictionaries(keys | texts, times | texts, max_size=6)),
        extra=draw(st.dictionaries(texts, st.integers() | st.lists(texts), max_size=2)),
        revision=draw(numbers),
        time_ns=draw(st.integers(-(2**63), 2**63 - 1)),
        ttl=draw(st.integers(-1, 10**9)),
    )


@given(infos())
def test_nothing_is_lost(info: ObjectInfo) -> None:
    """M6: what a meta says is the same after it was packed."""
    record = STANDARD.pack(info)
    assert record is not None
    assert STANDARD.unpack(record, info.name) == info
    assert revision_of(record) == info.revision
    assert facts_of(record) == (info.revision, info.time_ns, info.nuid)


def test_what_is_not_packed() -> None:
    """N1: only what its place in the tree tells all about is packed."""
    plain = ObjectInfo("a", "b", meta_subject("b", "a"), "nuid")
    assert STANDARD.pack(plain) is not None
    for unusual in (
        replace(plain, deleted=True),
        replace(plain, link=Link("b", "c")),
        replace(plain, nuid=""),
        replace(plain, bucket="c"),
        replace(plain, subject=meta_subject("b", "c")),
    ):
        assert STANDARD.pack(unusual) is None


def test_size() -> None:
    """A meta as natsfs writes it takes fewer bytes than its names of fields alone."""
    time = render_time(1_764_104_745_123_456_789)
    attributes = {"mode": "0100644", "uid": "1000", "gid": "1000"}
    info = ObjectInfo(
        "directory/file",
        "b",
        meta_subject("b", "directory/file"),
        "A" * 22,
        123_456,
        1,
        131_072,
        render_digest(bytes(range(32))),
        metadata={**attributes, "mtime": time, "atime": time, "btime": time},
        revision=1_000_000,
        time_ns=1_764_104_745_123_456_789,
    )
    record = STANDARD.pack(info)
    assert record is not None
    assert len(record) < 160


@given(texts.filter(bool))
def test_subjects(name: str) -> None:
    """N1: a standard subject has one name, and the other way round."""
    subject = STANDARD.subject(name)
    assert subject == meta_subject("b", name)
    assert STANDARD.name(subject) == name
    for other in (subject[:-1], subject + "=", "$O.c.M." + subject[7:], "$O.b.M._w==", "$O.b.M.é"):
        assert STANDARD.name(other) is None


def test_keys() -> None:
    """Versions that a client numbers one after the other have different keys."""
    nuids = [f"abcdefghijkl{number:010}" for number in range(1000)]
    assert len({key_of(nuid) for nuid in nuids}) == 1000
    assert key_of("") == 0
