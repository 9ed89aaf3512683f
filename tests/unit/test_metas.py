"""Meta messages: what is written, and what is read."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.js.api import ObjectInfo as NatsPyInfo

from natsfs.errors import InvalidArgument, MalformedMeta
from natsfs.store.base import tombstone
from natsfs.store.model import Link, ObjectInfo
from natsfs.store.wire import (
    EMPTY_DIGEST,
    complete,
    parse_digest,
    parse_info,
    render_digest,
    render_info,
)

SHA = hashlib.sha256(b"some bytes \x00").digest()
SUBJECT = "$O.bucket.M.YQ=="
INFO = ObjectInfo(
    name="a",
    bucket="bucket",
    subject=SUBJECT,
    nuid="nuid",
    size=5,
    chunks=1,
    max_chunk_size=131072,
    digest=render_digest(SHA),
)


def parse(payload: bytes | dict[str, Any]) -> ObjectInfo:
    raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return parse_info(SUBJECT, raw, bucket="bucket", revision=7, time_ns=8)


def render(info: ObjectInfo) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(render_info(info, 1_700_000_000_123_456_789))
    return fields


# -- writing --------------------------------------------------------------------------------------


def test_written_object() -> None:
    """An object has all fields that any client's reader demands, and none that is empty."""
    assert render(INFO) == {
        "name": "a",
        "options": {"max_chunk_size": 131072},
        "bucket": "bucket",
        "nuid": "nuid",
        "size": 5,
        "mtime": "2023-11-14T22:13:20.123456789Z",
        "chunks": 1,
        "digest": render_digest(SHA),
    }


def test_written_tombstone() -> None:
    """A tombstone is as Go writes it, with a time that Go can parse."""
    fields = render(tombstone(INFO))
    assert (fields["deleted"], fields["size"], fields["chunks"]) == (True, 0, 0)
    assert fields["nuid"] == "nuid"
    assert datetime.fromisoformat(fields["mtime"]).tzinfo is UTC
    assert "digest" not in fields


def test_written_link() -> None:
    """Links name their target and the bucket that they are in; bucket links have no name."""
    link = complete(ObjectInfo("a", "", "", link=Link("other", "x")), "bucket")
    fields = render(link)
    assert fields["options"] == {"link": {"bucket": "other", "name": "x"}}
    assert fields["bucket"] == "bucket"
    assert len(fields["nuid"]) == 22
    assert "digest" not in fields
    assert render(replace(link, link=Link("other")))["options"] == {"link": {"bucket": "other"}}


def test_written_maps() -> None:
    """Headers are arrays of strings, metadata strings: Go refuses anything else."""
    info = replace(INFO, headers={"h": ("1", "2")}, metadata={"k": "v"}, description="d")
    fields = render(info)
    assert fields["headers"] == {"h": ["1", "2"]}
    assert (fields["metadata"], fields["description"]) == ({"k": "v"}, "d")


def test_digest_is_made_canonical() -> None:
    """A digest in an old form is rewritten so that .NET and Rust, which compare text, accept it."""
    assert render(replace(INFO, digest="sha-256=" + base64.b64encode(SHA).decode()))[
        "digest"
    ] == render_digest(SHA)
    assert render(replace(INFO, digest="CRC=1"))["digest"] == "CRC=1"


def test_complete() -> None:
    """What a writer leaves open is filled in, what it gives is kept."""
    info = complete(ObjectInfo("a", "", ""), "bucket")
    assert (info.bucket, info.subject, info.digest) == ("bucket", SUBJECT, EMPTY_DIGEST)
    assert info.nuid
    assert complete(replace(INFO, subject="$O.bucket.M.odd"), "bucket").subject == "$O.bucket.M.odd"
    assert complete(tombstone(INFO), "bucket") == tombstone(INFO)


@pytest.mark.parametrize(
    "change", [{"name": ""}, {"nuid": ""}, {"description": "\ud800"}, {"metadata": {"k": "\udfff"}}]
)
def test_what_cannot_be_written(change: dict[str, Any]) -> None:
    """A meta that readers would refuse is not written."""
    with pytest.raises(InvalidArgument):
        render_info(replace(INFO, **change), 0)


def test_nats_py_reads_it() -> None:
    """nats-py decodes objects, tombstones and links of natsfs."""
    link = replace(tombstone(INFO), deleted=False, link=Link("other", "x"))
    for info in (INFO, tombstone(INFO), link):
        seen = NatsPyInfo.from_response(render(info))
        assert (seen.name, seen.nuid, seen.size, bool(seen.deleted)) == (
            info.name,
            info.nuid,
            info.size,
            info.deleted,
        )


# -- reading --------------------------------------------------------------------------------------


def test_reading() -> None:
    """A complete meta of a Go client, field for field."""
    info = parse(
        b'{"name":"a","description":"d","headers":{"h":["1","2"]},"metadata":{"k":"v"},'
        b'"options":{"max_chunk_size":131072},"bucket":"bucket","nuid":"nuid","size":5,'
        b'"mtime":"0001-01-01T00:00:00Z","chunks":1,"digest":"%s"}' % render_digest(SHA).encode()
    )
    assert info == replace(
        INFO,
        description="d",
        headers={"h": ("1", "2")},
        metadata={"k": "v"},
        revision=7,
        time_ns=8,
    )


def test_reading_the_least() -> None:
    """A name is all that a meta must have."""
    assert parse({"name": "a"}) == ObjectInfo("a", "bucket", SUBJECT, revision=7, time_ns=8)
    nulls = dict.fromkeys(render(INFO), None) | {"name": "a", "headers": None, "metadata": None}
    assert parse(nulls) == parse({"name": "a"})


def test_links() -> None:
    """A link without a name is a bucket's."""
    link = {"bucket": "other", "name": "x"}
    assert parse({"name": "a", "options": {"link": link}}).link == Link("other", "x")
    assert parse({"name": "a", "options": {"link": {"bucket": "o"}}}).link == Link("o")
    assert parse({"name": "a", "options": {"link": {"bucket": "o", "name": ""}}}).link == Link("o")


def test_values_that_are_no_text() -> None:
    """What other clients put in place of text is read as its JSON."""
    info = parse(
        {
            "name": "a",
            "headers": {"plain": "x", "null": None, "list": ["x", 1], "number": 5},
            "metadata": {"number": 1.5, "null": None, "map": {"k": ["é"]}},
        }
    )
    assert info.headers == {"plain": ("x",), "null": (), "list": ("x", "1"), "number": ("5",)}
    assert info.metadata == {"number": "1.5", "null": "", "map": '{"k":["é"]}'}


def test_lone_surrogates() -> None:
    """Halves of surrogate pairs become U+FFFD, as Go reads them, and can be written again."""
    info = parse(b'{"name":"a\\ud800b","metadata":{"\\udfff":"\\ud83d\\ude00"},"x":["\\udc00"]}')
    assert info.name == "a\ufffdb"
    assert info.metadata == {"\ufffd": "😀"}
    assert info.extra == {"x": ["\ufffd"]}
    render(complete(info, "bucket"))


MALFORMED = [
    b"",
    b"\xff\xfe",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"{}",
    b'{"name":null}',
    b'{"name":""}',
    b'{"name":5}',
    b'{"name":"a","size":-1}',
    b'{"name":"a","size":true}',
    b'{"name":"a","size":1.0}',
    b'{"name":"a","size":"1"}',
    b'{"name":"a","size":9223372036854775808}',
    b'{"name":"a","size":' + b"9" * 5000 + b"}",
    b'{"name":"a","chunks":-5}',
    b'{"name":"a","deleted":1}',
    b'{"name":"a","digest":[]}',
    b'{"name":"a","description":{}}',
    b'{"name":"a","headers":[]}',
    b'{"name":"a","metadata":"x"}',
    b'{"name":"a","options":[]}',
    b'{"name":"a","options":{"max_chunk_size":-1}}',
    b'{"name":"a","options":{"link":"x"}}',
    b'{"name":"a","options":{"link":{}}}',
    b'{"name":"a","options":{"link":{"bucket":"../x"}}}',
    b'{"name":"a","x":NaN}',
    b'{"name":"a","x":-Infinity}',
    b'{"name":"a","x":1e999}',
    b"[" * 1_000_000,
    b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    b'{"name":"a","x":' + b"[" * 100 + b"]" * 100 + b"}",
]


@pytest.mark.parametrize("payload", MALFORMED, ids=lambda payload: repr(payload[:40]))
def test_malformed(payload: bytes) -> None:
    """A meta that cannot be understood is MalformedMeta, with the subject and a reason."""
    with pytest.raises(MalformedMeta, match=r"meta on \$O\.bucket\.M\.YQ==: .+") as caught:
        parse(payload)
    assert len(str(caught.value)) < 200


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = [*render(INFO), "headers", "metadata", "description", "deleted", "unknown", "Name"]
metas = st.dictionaries(st.sampled_from(KEYS), values).map(lambda fields: {"name": "a", **fields})


@given(st.binary() | metas.map(lambda fields: json.dumps(fields).encode()))
def test_nothing_else_is_raised(payload: bytes) -> None:
    """Whatever a meta holds is read or MalformedMeta, and what is read can be written and read."""
    try:
        info = parse(payload)
    except MalformedMeta:
        return
    whole = complete(info, "bucket")
    again = parse(render_info(whole, 0))
    assert replace(again, digest="") == replace(whole, digest="")
    assert parse_digest(again.digest) == parse_digest(whole.digest)


texts = st.text(st.characters(exclude_categories=["Cs"]))
counts = st.none() | st.integers(0, 2**63)
usual = st.fixed_dictionaries(
    {"name": texts},
    optional={
        "nuid": st.none() | st.from_regex("[A-Za-z0-9_-]{0,130}", fullmatch=True),
        "size": counts,
        "chunks": counts,
        "options": st.none() | st.fixed_dictionaries({}, optional={"max_chunk_size": counts}),
        "digest": texts,
        "deleted": st.booleans(),
        "description": texts,
        "mtime": texts,
        "bucket": texts,
        "headers": st.dictionaries(texts, st.lists(texts, max_size=2), max_size=2),
        "metadata": st.dictionaries(texts, texts, max_size=3),
    },
)


@given(usual | metas)
def test_usual_metas_are_read_like_others(fields: dict[str, Any]) -> None:
    """M6: a meta says the same whether it is read the quick way or, because of one unknown field,
    the other one."""
    try:
        slow = parse({**fields, "unheard-of": 1})
    except MalformedMeta:
        with pytest.raises(MalformedMeta):
            parse(fields)
    else:
        extra = {key: value for key, value in slow.extra.items() if key != "unheard-of"}
        assert parse(fields) == replace(slow, extra=extra)


@given(metas)
def test_unknown_fields_come_back(fields: dict[str, Any]) -> None:
    """M6: every field without a name here is written as it came."""
    fields = {key: json.loads(json.dumps(text)) for key, text in fields.items()}
    try:
        info = parse(fields)
    except MalformedMeta:
        return
    written = render(complete(info, "bucket"))
    for key in ("unknown", "Name"):
        assert (key in written) == (key in fields)
        assert written.get(key) == fields.get(key)


def test_unknown_options_come_back() -> None:
    """M6: unknown fields of options, and of the link in them, are kept and written back."""
    options = {"max_chunk_size": 5, "new": [1], "link": {"bucket": "b", "name": "n", "via": {}}}
    info = parse({"name": "a", "nuid": "n", "options": options, "top": 1})
    assert info.extra == {"top": 1, "options": {"new": [1], "link": {"via": {}}}}
    assert render(info)["options"] == options


def test_known_fields_win_over_unknown_case() -> None:
    """In Go, where case does not count and the last field wins, `name` beats an unknown `Name`."""
    info = replace(parse({"name": "a", "nuid": "n", "Name": "old"}), name="new")
    keys = list(render(info))
    assert keys.index("name") > keys.index("Name")
