"""Subjects, digests and times of the Object Store."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsfs.errors import InvalidArgument, MalformedMeta, NameTooLongError
from natsfs.store.wire import (
    EMPTY_DIGEST,
    MAX_SUBJECT,
    bucket_of,
    check_bucket_name,
    chunk_subject,
    meta_subject,
    new_nuid,
    parse_digest,
    parse_info,
    parse_time,
    render_digest,
    render_time,
    stream_name,
)

SHA = hashlib.sha256(b"some bytes \x00").digest()


# -- names ----------------------------------------------------------------------------------------


def test_subjects() -> None:
    """Subjects are those that Go, Rust, .NET and nats-py compute."""
    assert stream_name("my-bucket") == "OBJ_my-bucket"
    assert meta_subject("b", "ab?é") == "$O.b.M.YWI_w6k="
    assert chunk_subject("b", "N123") == "$O.b.C.N123"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200))
def test_names_survive_encoding(name: str) -> None:
    """N1: every name has a subject of its own, of one token."""
    prefix, _, token = meta_subject("b", name).rpartition(".")
    assert prefix == "$O.b.M"
    assert base64.urlsafe_b64decode(token).decode() == name
    assert not set(token) & set("*> \t\r\n")


@pytest.mark.parametrize("bucket", ["", "a b", "a.b", "é", "a\n", "*", "x" * 252])
def test_bad_buckets(bucket: str) -> None:
    """B2: a bucket name that some client refuses is refused."""
    with pytest.raises(InvalidArgument):
        check_bucket_name(bucket)


def test_bucket_of() -> None:
    """A stream is a bucket's by its prefix."""
    assert bucket_of("OBJ_a-b") == "a-b"
    assert bucket_of("KV_a") is None
    assert bucket_of("OBJ_") is None
    assert bucket_of("OBJ_a b") is None


def test_name_bounds() -> None:
    """N4: the longest name has a subject within the bound, one byte more than fits is refused."""
    room = (MAX_SUBJECT - len("$O.b.M.")) // 4 * 3
    assert len(meta_subject("b", "x" * room)) <= MAX_SUBJECT
    with pytest.raises(NameTooLongError):
        meta_subject("b", "x" * (room + 1))
    for name in ("", "\udc80"):
        with pytest.raises(InvalidArgument):
            meta_subject("b", name)


@pytest.mark.parametrize("nuid", ["", ">", "*", "a.b", "a b", "a\r\nPUB x", "x" * 129, "é"])
def test_bad_nuids(nuid: str) -> None:
    """A nuid that could name other subjects never becomes one."""
    with pytest.raises(InvalidArgument):
        chunk_subject("b", nuid)
    if nuid:
        with pytest.raises(MalformedMeta):
            parse_info(
                "s",
                json.dumps({"name": "a", "nuid": nuid}).encode(),
                bucket="b",
                revision=1,
                time_ns=0,
            )


def test_nuids() -> None:
    """Nuids look as those of other clients and do not repeat."""
    made = {new_nuid() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(nuid) == 22 and nuid.isalnum() and nuid.isascii() for nuid in made)


# -- digests and times ----------------------------------------------------------------------------

STANDARD = base64.b64encode(SHA).decode()
URL_SAFE = base64.urlsafe_b64encode(SHA).decode()


@pytest.mark.parametrize("prefix", ["SHA-256=", "sha-256=", "Sha-256="])
@pytest.mark.parametrize(
    "encoded",
    [STANDARD, URL_SAFE, STANDARD.rstrip("="), URL_SAFE.rstrip("="), SHA.hex(), SHA.hex().upper()],
)
def test_digests_in_the_wild(prefix: str, encoded: str) -> None:
    """R3: a digest is understood in every form that a client ever wrote."""
    assert parse_digest(prefix + encoded) == SHA


@pytest.mark.parametrize(
    "text", ["", "SHA-256=", "SHA-256=abc", "MD5=" + STANDARD, STANDARD, f"SHA-256={STANDARD}x"]
)
def test_unreadable_digests(text: str) -> None:
    """What is no digest promises nothing."""
    assert parse_digest(text) is None


@given(st.binary(min_size=32, max_size=32))
def test_digest_round_trip(sha256: bytes) -> None:
    """A digest is written as all clients write it now, and read back."""
    text = render_digest(sha256)
    assert text == "SHA-256=" + base64.urlsafe_b64encode(sha256).decode()
    assert parse_digest(text) == sha256


def test_empty_digest() -> None:
    """The digest of nothing is the one in protocol.md 1.6."""
    assert EMPTY_DIGEST == "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU="


@given(st.integers(-(2**62), 2**63))
def test_time_round_trip(time_ns: int) -> None:
    """M1: times keep their nanoseconds."""
    assert parse_time(render_time(time_ns)) == time_ns


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.5z", 500_000_000),
        ("1970-01-01t02:00:00.000000001+02:00", 1),
        ("1969-12-31T22:30:00-01:30", 0),
        ("1970-01-01T00:00:01.1234567899Z", 1_123_456_789),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000_000_000),
    ],
)
def test_times(text: str, time_ns: int) -> None:
    """Every form of RFC 3339 is read, Go's zero time included."""
    assert parse_time(text) == time_ns


@pytest.mark.parametrize("text", ["", "yesterday", "1970-01-01", "1970-13-01T00:00:00Z", "0" * 99])
def test_no_times(text: str) -> None:
    """What is no time is None."""
    assert parse_time(text) is None
