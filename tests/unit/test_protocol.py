"""Headers, direct get, acknowledgements and refusals, as nats-server sends them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsfs.errors import (
    BucketNotFoundError,
    ExistsError,
    InvalidArgument,
    JetStreamUnavailable,
    NatsfsError,
    NoSpaceError,
    NotFoundError,
    QuotaExceededError,
    ReadOnlyError,
    ServerRefused,
    WrongRevision,
)
from natsfs.store.headers import encode_headers, parse_headers
from natsfs.store.jetstream.api import is_transient
from natsfs.store.protocol import (
    NO_MESSAGE,
    Delivery,
    PubAck,
    Status,
    StoredMessage,
    direct_fields,
    get_batch,
    get_last,
    get_next,
    get_sequence,
    parse_delivery,
    parse_direct,
    parse_puback,
    parse_stored,
    refusal,
    sequence_after,
)

BATCHED = (
    b"NATS/1.0\r\nNats-Msg-Id: x\r\nNats-Stream: OBJ_b\r\nNats-Subject: $O.b.C.n\r\n"
    b"Nats-Sequence: 12\r\nNats-Time-Stamp: 2026-11-21T04:33:00.000000001Z\r\n"
    b"Nats-Num-Pending: 3\r\nNats-Last-Sequence: 11\r\n\r\n"
)


# -- headers --------------------------------------------------------------------------------------


def test_header_block() -> None:
    """A header block is what the server reads, byte for byte."""
    block = encode_headers({"Nats-Rollup": "sub", "K": ""})
    assert block == b"NATS/1.0\r\nNats-Rollup: sub\r\nK: \r\n\r\n"
    assert encode_headers([]) == b"NATS/1.0\r\n\r\n"


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z0-9-]+", fullmatch=True),
        st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"])),
    )
)
def test_headers_round_trip(fields: dict[str, str]) -> None:
    """What is encoded is read back."""
    assert parse_headers(encode_headers(fields)).fields == fields


@pytest.mark.parametrize("pair", [("", "x"), ("a:b", "x"), ("a b", "x"), ("a", "x\r\nb: y")])
def test_headers_stay_in_their_line(pair: tuple[str, str]) -> None:
    """A header that would smuggle in another is refused."""
    with pytest.raises(InvalidArgument):
        encode_headers([pair])


def test_status_line() -> None:
    """A status has a number and perhaps a text."""
    assert parse_headers(b"NATS/1.0 503\r\n\r\n").status == 503
    eob = parse_headers(b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 5\r\n\r\n")
    assert (eob.status, eob.description, eob.fields["Nats-Num-Pending"]) == (204, "EOB", "5")
    assert parse_headers(b"").status == 0


def test_odd_headers() -> None:
    """Of a repeated field the last counts, and lines without a colon do not."""
    headers = parse_headers(memoryview(b"NATS/1.0\r\nA: 1\r\nnonsense\r\nA:2\r\nB: \xff\r\n\r\n"))
    assert headers.fields == {"A": "2", "B": "\ufffd"}
    with pytest.raises(ServerRefused):
        parse_headers(b"HTTP/1.1 200 OK\r\n\r\n")


# -- direct get -----------------------------------------------------------------------------------


def test_requests() -> None:
    """Requests have the fields that the server knows, and no others."""
    assert json.loads(get_last("s")) == {"last_by_subj": "s"}
    assert json.loads(get_sequence(5)) == {"seq": 5}
    assert json.loads(get_next("s")) == {"seq": 1, "next_by_subj": "s"}
    assert json.loads(get_batch(5, 10, 99)) == {"seq": 5, "batch": 10, "max_bytes": 99}
    assert json.loads(get_batch(5, 10, 99, "s"))["next_by_subj"] == "s"


def test_direct_message() -> None:
    """A message comes with its place, its time and what is left; its bytes are not copied."""
    data = bytearray(b"bytes")
    message = parse_direct(BATCHED, data)
    assert isinstance(message, StoredMessage)
    assert (message.stream, message.subject, message.sequence) == ("OBJ_b", "$O.b.C.n", 12)
    assert message.time_ns % 1_000_000_000 == 1
    assert message.headers["Nats-Msg-Id"] == "x"
    assert message.num_pending == 3
    assert message.data is data


def test_forged_headers() -> None:
    """A sequence that was stored with the message does not hide the real one."""
    forged = BATCHED.replace(b"Nats-Msg-Id: x", b"Nats-Sequence: 99")
    message = parse_direct(forged, b"")
    assert isinstance(message, StoredMessage)
    assert message.sequence == 12


def test_place_at_a_glance() -> None:
    """The place of an ordinary answer is found without parsing it, whatever was stored with it;
    where there is doubt it is not."""
    fields = direct_fields("OBJ_b", "$O.b.C.n")
    assert sequence_after(fields, BATCHED) == 12
    lines = BATCHED.split(b"\r\n")
    assert sequence_after(fields, b"\r\n".join([lines[0], *lines[2:]])) == 12
    forged = fields.removeprefix(b"\r\n") + b"99"
    assert sequence_after(fields, BATCHED.replace(b"Nats-Msg-Id: x", forged)) == 12
    for doubtful in (
        BATCHED.replace(b"OBJ_b", b"OBJ_c"),
        BATCHED.replace(b"$O.b.C.n", b"$O.b.C.nn"),
        BATCHED.replace(b"OBJ_b", b"OBJ_c").replace(b"Nats-Msg-Id: x", forged),
        BATCHED.replace(b"12", b"x"),
        BATCHED.replace(b"NATS/1.0", b"NATS/1.0 404 x"),
        b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 5\r\nNats-Last-Sequence: 9\r\n\r\n",
        b"",
    ):
        assert sequence_after(fields, doubtful) is None


def test_direct_statuses() -> None:
    """The end of a batch and the refusals are statuses."""
    end = b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 5\r\nNats-Last-Sequence: 9\r\n\r\n"
    assert parse_direct(end, b"") == Status(204, "EOB", 5, 9)
    missing = parse_direct(b"NATS/1.0 404 Message Not Found\r\n\r\n", b"")
    assert missing == Status(NO_MESSAGE, "Message Not Found")


@pytest.mark.parametrize("block", [b"", b"NATS/1.0\r\n\r\n", BATCHED.replace(b"12", b"x")])
def test_direct_nonsense(block: bytes) -> None:
    """An answer that says neither where it is from nor what it is, is refused."""
    with pytest.raises(ServerRefused):
        parse_direct(block, b"")


def test_stored_message() -> None:
    """The JSON of STREAM.MSG.GET, with and without headers and data."""
    message = {
        "subject": "$O.b.M.YQ==",
        "seq": 7,
        "time": "2026-11-21T04:33:00.5Z",
        "hdrs": base64.b64encode(b"NATS/1.0\r\nNats-Rollup: sub\r\n\r\n").decode(),
        "data": base64.b64encode(b"\x00bytes").decode(),
    }
    stored = parse_stored("a", {"type": "x", "message": message})
    assert (stored.subject, stored.sequence, stored.data) == ("$O.b.M.YQ==", 7, b"\x00bytes")
    assert stored.headers == {"Nats-Rollup": "sub"}
    assert stored.time_ns % 1_000_000_000 == 500_000_000
    bare = parse_stored("a", {"message": {k: message[k] for k in ("subject", "seq", "time")}})
    assert (bare.data, bare.headers) == (b"", {})


@pytest.mark.parametrize(
    "reply",
    [{}, {"message": None}, {"message": {"subject": "s", "seq": "x", "time": ""}}, {"message": []}],
    ids=str,
)
def test_stored_nonsense(reply: dict[str, Any]) -> None:
    """An answer that is no message is refused."""
    with pytest.raises(ServerRefused):
        parse_stored("a", reply)


def test_stored_missing() -> None:
    """No such message is not found."""
    error = {"code": 404, "err_code": 10037, "description": "no message found"}
    with pytest.raises(NotFoundError):
        parse_stored("a", {"error": error})


# -- acknowledgements and refusals ----------------------------------------------------------------


def test_puback() -> None:
    """An acknowledgement has the sequence; a batch's its count."""
    assert parse_puback("a", b'{"stream":"OBJ_b","seq":5}') == PubAck("OBJ_b", 5)
    ack = parse_puback("a", b'{"stream":"OBJ_b","seq":9,"duplicate":true,"batch":"x","count":3}')
    assert ack == PubAck("OBJ_b", 9, True, 3)


def test_an_acknowledgement_of_another_domain() -> None:
    """E: what the bucket of that name in another JetStream domain has stored is not stored."""
    ours = b'{"stream":"OBJ_b","seq":5,"domain":"hub"}'
    assert parse_puback("a", ours, domain="hub").sequence == 5
    assert parse_puback("a", ours).sequence == 5
    assert parse_puback("a", b'{"stream":"OBJ_b","seq":5}', domain="hub").sequence == 5
    with pytest.raises(ServerRefused, match="the JetStream domain 'hub' has a bucket"):
        parse_puback("a", ours, domain="leaf")


@pytest.mark.parametrize(
    "payload",
    [
        b'{"error":{"code":409,"err_code":10158,"description":"duplicate message id"}}',
        b'{"stream":"OBJ_b","seq":0,"duplicate":true}',
    ],
)
def test_puback_of_what_is_on_its_way(payload: bytes) -> None:
    """A5: an id whose first message is not stored yet is no refusal for good, whatever words the
    server has for it."""
    with pytest.raises(ServerRefused) as caught:
        parse_puback("a", payload)
    assert is_transient(caught.value)


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"stream":"x","seq":null}', b"\xff"])
def test_puback_nonsense(payload: bytes) -> None:
    """What is no acknowledgement is refused."""
    with pytest.raises(ServerRefused):
        parse_puback("a", payload)


def test_lost_compare_and_set() -> None:
    """A3: a lost compare-and-set says what was expected and, where the server does, what is."""
    payload = {"code": 400, "err_code": 10071, "description": "wrong last sequence: 17"}
    with pytest.raises(WrongRevision) as caught:
        parse_puback("a", json.dumps({"error": payload}).encode(), expected=3)
    error = caught.value
    assert (error.name, error.expected, error.actual) == ("a", 3, 17)
    unknown = refusal("a", {"err_code": 10164, "description": "wrong last sequence"}, expected=3)
    assert isinstance(unknown, WrongRevision)
    assert unknown.actual is None


@pytest.mark.parametrize(
    ("code", "description", "kind"),
    [
        (10077, "maximum bytes exceeded", NoSpaceError),
        (10077, "maximum messages exceeded", NoSpaceError),
        (10077, "something broke", ServerRefused),
        (10051, "write /x: no space left on device", NoSpaceError),
        (10023, "insufficient resources", NoSpaceError),
        (10047, "insufficient storage resources available", NoSpaceError),
        (10002, "resource limits exceeded for account", QuotaExceededError),
        (10109, "invalid operation on sealed stream", ReadOnlyError),
        (10059, "stream not found", BucketNotFoundError),
        (10058, "stream name already in use", ExistsError),
        (10039, "JetStream not enabled for account", JetStreamUnavailable),
        (10076, "JetStream not enabled", JetStreamUnavailable),
        (10052, "invalid config", InvalidArgument),
        (10025, "invalid JSON", ServerRefused),
    ],
)
def test_refusals(code: int, description: str, kind: type[NatsfsError]) -> None:
    """Every refusal is the error that stands for its fact."""
    error = refusal("bucket b", {"code": 400, "err_code": code, "description": description})
    assert type(error) is kind
    assert "bucket b" in str(error)
    assert description in str(error)


def test_odd_refusals() -> None:
    """A refusal without number or text is one all the same."""
    assert isinstance(refusal("a", {}), ServerRefused)
    assert isinstance(refusal("a", {"err_code": "x", "description": None}), ServerRefused)


# -- deliveries -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.OBJ_b.cons.1.17.5.1700000000000000001.3",
        "$JS.ACK.dom.HASH.OBJ_b.cons.1.17.5.1700000000000000001.3",
        "$JS.ACK._.HASH.OBJ_b.cons.1.17.5.1700000000000000001.3.random",
    ],
)
def test_delivery(reply: str) -> None:
    """Both forms of acknowledgement subject tell the same."""
    assert parse_delivery(reply) == Delivery("OBJ_b", "cons", 17, 5, 1_700_000_000_000_000_001, 3)


@pytest.mark.parametrize(
    "reply", ["", "_INBOX.x", "$JS.ACK.a.b", "$JS.ACK.s.c.1.x.5.1.3", "$JS.ACK.s.c.1.²5.5.1.3"]
)
def test_no_delivery(reply: str) -> None:
    """Other subjects tell nothing."""
    assert parse_delivery(reply) is None
