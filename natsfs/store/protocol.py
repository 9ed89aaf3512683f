"""The NATS and JetStream messages that carry an object bucket: direct get, acks, errors.

Pure: bytes in, values out, no I/O.  The facts come from protocol.md 2.2 to 2.8, where they were
read from nats-server or seen on one.  What JetStream refuses becomes one of natsfs's errors here,
and only here.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

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
from natsfs.store.headers import Headers, parse_headers
from natsfs.store.model import EVER
from natsfs.store.wire import parse_time

ROLLUP = "Nats-Rollup"
EXPECTED_REVISION = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_STREAM = "Nats-Expected-Stream"
MESSAGE_ID = "Nats-Msg-Id"
MESSAGE_TTL = "Nats-TTL"
BATCH_ID = "Nats-Batch-Id"
BATCH_SEQUENCE = "Nats-Batch-Sequence"
BATCH_COMMIT = "Nats-Batch-Commit"


#: What decoding JSON from strangers, and taking it apart, may raise.
_UNREADABLE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)


# -- direct get: requests -------------------------------------------------------------------------


def get_last(subject: str) -> bytes:
    """Ask for the newest message on *subject*, by direct get or STREAM.MSG.GET."""
    return _json({"last_by_subj": subject})


def get_sequence(sequence: int) -> bytes:
    """Ask for the message *sequence*, by direct get or STREAM.MSG.GET."""
    return b'{"seq":%d}' % sequence


def get_next(subject: str, sequence: int = 1) -> bytes:
    """Ask for the first message on *subject* (which may have wildcards) at or after *sequence*."""
    return _json({"seq": sequence, "next_by_subj": subject})


def get_batch(sequence: int, count: int, max_bytes: int, subject: str | None = None) -> bytes:
    """Ask by direct get (2.11 and later) for up to *count* messages from *sequence* on.

    The server ends the batch after the message with which it exceeds *max_bytes*.  With a
    *subject* it first counts what is pending, which costs thousands of block loads on a large cold
    stream; without one, the caller checks the subject of each message (protocol.md 2.2).
    """
    request: dict[str, Any] = {"seq": sequence, "batch": count, "max_bytes": max_bytes}
    if subject is not None:
        request["next_by_subj"] = subject
    return _json(request)


# -- direct get: replies --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message of a stream.

    *stream* tells an answer of the bucket's stream from a ghost that a mirror gave (protocol.md
    2.3); it is empty in what STREAM.MSG.GET answers.  *num_pending* is the number of messages
    after this one in the same batch's selection, None outside batches.
    """

    stream: str
    subject: str
    sequence: int
    time_ns: int
    headers: Mapping[str, str]
    data: bytes | bytearray | memoryview
    num_pending: int | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """A direct get's answer that is no message.

    204 ends a batch; 404 means no such message; 408 a bad request; 413 too many subjects; 503 that
    nobody listens: the stream is gone, has no leader or does not allow direct get.
    """

    code: int
    description: str
    num_pending: int = 0
    last_sequence: int = 0


_SEQUENCE = b"\r\nNats-Sequence: "
_PLAIN = b"NATS/1.0\r\n"

#: Digits of the largest number that a server knows.  `int` refuses more than 4,300 of them.
MOST_DIGITS = 20

NO_MESSAGE = 404
NO_RESPONDERS = 503


def parse_direct(
    block: bytes | bytearray | memoryview, data: bytes | bytearray | memoryview
) -> StoredMessage | Status:
    """The answer to a direct get.  *data* is kept as it is, without a copy.

    Errors: `ServerRefused` when it is neither a message nor a status.
    """
    headers = parse_headers(block)
    try:
        return _status(headers) if headers.status else _message(headers.fields, data)
    except (KeyError, ValueError) as error:
        raise ServerRefused("direct get", 0, f"unreadable answer: {error!r}") from None


def direct_fields(stream: str, subject: str) -> bytes:
    """The fields that the server adds to a message on *subject* that it sends as the answer to a
    direct get, up to its sequence."""
    return f"\r\nNats-Stream: {stream}\r\nNats-Subject: {subject}".encode() + _SEQUENCE


def sequence_after(fields: bytes, block: bytes) -> int | None:
    """The sequence of the message with header *block*, if the server's *fields* (`direct_fields`)
    are in it; None if they are not found at once, and `parse_direct` has to tell.

    This takes 0.5 µs, `parse_direct` 5 to 14: a batch has eight chunks a MiB.
    """
    begin = block.rfind(fields) + len(fields)
    end = block.find(b"\r", begin)
    # The server's sequence is the last one, whatever the message says in fields of its own.
    if begin < len(fields) or block.rfind(_SEQUENCE) != begin - len(_SEQUENCE):
        return None
    digits = block[begin:end]
    known = digits.isdigit() and len(digits) <= MOST_DIGITS and block.startswith(_PLAIN)
    return int(digits) if known else None


def _status(headers: Headers) -> Status:
    fields = headers.fields
    return Status(
        headers.status,
        headers.description or fields.get("Description", ""),
        int(fields.get("Nats-Num-Pending", 0)),
        int(fields.get("Nats-Last-Sequence", 0)),
    )


def _message(fields: Mapping[str, str], data: bytes | bytearray | memoryview) -> StoredMessage:
    pending = fields.get("Nats-Num-Pending")
    return StoredMessage(
        fields["Nats-Stream"],
        fields["Nats-Subject"],
        int(fields["Nats-Sequence"]),
        _time(fields["Nats-Time-Stamp"]),
        fields,
        data,
        None if pending is None else int(pending),
    )


def _time(text: str) -> int:
    time_ns = parse_time(text)
    if time_ns is None:
        raise ValueError(f"{text!r} is no time")
    return time_ns


def parse_stored(what: str, reply: Mapping[str, Any]) -> StoredMessage:
    """The JSON answer of STREAM.MSG.GET.

    Errors: those of `refusal`, `ServerRefused` when it cannot be read.
    """
    raise_refusal(what, reply)
    try:
        message = reply["message"]
        headers = parse_headers(base64.b64decode(message.get("hdrs", "")))
        return StoredMessage(
            "",
            message["subject"],
            int(message["seq"]),
            _time(message["time"]),
            headers.fields,
            base64.b64decode(message.get("data", "")),
        )
    except _UNREADABLE as error:
        raise ServerRefused(what, 0, f"unreadable stored message: {error!r}") from None


# -- publish acknowledgements ---------------------------------------------------------------------


#: With the domain that answered, and the one that was to.
_ELSEWHERE = (
    "the JetStream domain {0!r} has a bucket of that name, too, and has taken what was for {1!r}; "
    "give them different names, or connect to a server of {1!r}"
)


@dataclass(frozen=True, slots=True)
class PubAck:
    """What JetStream stored: *sequence* is the message's, or that of the last one of a batch of
    *count* (0 for a single message).  *duplicate*: the message id had been seen before."""

    stream: str
    sequence: int
    duplicate: bool = False
    count: int = 0


def parse_puback(
    what: str,
    payload: bytes | bytearray | memoryview,
    *,
    expected: int | None = None,
    domain: str | None = None,
) -> PubAck:
    """The answer to a publish of *what* that expected revision *expected*, from *domain*.

    Publishing names no domain: where another one has a bucket of that name, it stores the message,
    too, and answers first.

    Errors: those of `refusal`, `ServerRefused` when it cannot be read, is another domain's, or with
    `IN_PROCESS`.
    """
    try:
        reply = json.loads(bytes(payload))
        raise_refusal(what, reply, expected=expected)
        if domain is not None and reply.get("domain", domain) != domain:
            raise ServerRefused(what, 0, _ELSEWHERE.format(reply["domain"], domain))
        ack = PubAck(
            reply["stream"],
            int(reply["seq"]),
            bool(reply.get("duplicate", False)),
            int(reply.get("count", 0)),
        )
    except _UNREADABLE as error:
        raise ServerRefused(what, 0, f"unreadable acknowledgement: {error!r}") from None
    if ack.duplicate and not ack.sequence:
        # How servers said it before they had the error (nats-server's PR 5827).
        raise ServerRefused(what, IN_PROCESS, "duplicate message id is in process")
    return ack


# -- refusals -------------------------------------------------------------------------------------

#: A message with the same id is on its way to the replicas, and may not get there.
IN_PROCESS = 10158

#: JetStream's err_codes by the fact that they stand for (server/errors.json; protocol.md 2.4, 2.7).
#: 10163 and 10164 come from a replicated stream with another write to the subject under way.
_LOST_RACE = frozenset({10071, 10163, 10164})
#: The texts of 10077 and 10051 are those of the store: they need not be about space.
_STORE_FAILED = frozenset({10051, 10077})
_ERRORS: Mapping[int, type[NatsfsError]] = MappingProxyType(
    {
        10002: QuotaExceededError,  # the account's storage
        10027: QuotaExceededError,  # the account's number of streams
        10122: QuotaExceededError,  # the account's limit on one stream's max_bytes
        10023: NoSpaceError,  # no server with room left
        10028: NoSpaceError,  # the server's memory
        10047: NoSpaceError,  # the server's storage
        10037: NotFoundError,  # no message
        10043: NotFoundError,  # none to be deleted
        10039: JetStreamUnavailable,  # not for this account
        10076: JetStreamUnavailable,  # not on this server
        10052: InvalidArgument,  # a setting that the server does not accept
        10074: InvalidArgument,  # more replicas than servers
        10113: InvalidArgument,  # the account demands max_bytes
        10058: ExistsError,  # the stream exists with other settings
        10065: ExistsError,  # another stream has these subjects
        10059: BucketNotFoundError,
        10109: ReadOnlyError,  # sealed
    }
)


def refusal(what: str, error: Mapping[str, Any], *, expected: int | None = None) -> NatsfsError:
    """The error object of a JetStream answer as one of natsfs's errors; it never raises.

    *what* says whom it befell; for a publish it is the object's name, and *expected* the revision
    that was asked for.
    """
    code = error.get("err_code", 0)
    code = code if isinstance(code, int) else 0
    description = str(error.get("description", "no description"))
    if code in _LOST_RACE:
        actual = re.search(r"wrong last sequence: (\d+)", description)
        return WrongRevision(what, expected, int(actual[1]) if actual else None)
    if code in _STORE_FAILED and ("maximum" in description or "no space" in description):
        return NoSpaceError(f"{what}: {description}")
    known = _ERRORS.get(code)
    if known is not None:
        return known(f"{what}: {description}")
    return ServerRefused(what, code, description)


def raise_refusal(what: str, reply: Mapping[str, Any], *, expected: int | None = None) -> None:
    """Raise `refusal` if the decoded answer *reply* has an error in it."""
    error = reply.get("error")
    if error:
        fields = error if isinstance(error, Mapping) else {"description": error}
        raise refusal(what, fields, expected=expected)


# -- the life of a message -----------------------------------------------------------------------

_GO_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_ttl(text: str) -> int:
    """The `ObjectInfo.ttl` that a `Nats-TTL` header means: a number of seconds, a duration of Go
    ("1h30m"), or "never".  What is none of these is none: the server refuses it."""
    if text == "never":
        return EVER
    if text.isdecimal():
        return int(text) if len(text) <= MOST_DIGITS else EVER
    if not text or _GO_DURATION.sub("", text):
        return 0
    life = sum(float(number) * _GO_UNITS[unit] for number, unit in _GO_DURATION.findall(text))
    return int(life) if life < 10**MOST_DIGITS else EVER


# -- delivery by a consumer -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a consumer says of a message that it delivers.  *pending* counts those after it."""

    stream: str
    consumer: str
    stream_sequence: int
    consumer_sequence: int
    time_ns: int
    pending: int


def parse_delivery(reply: str) -> Delivery | None:
    """The delivery that the reply subject *reply* of a message describes, None when it does not.

    There are 9 tokens in version 1, and in version 2, of server 2.14 and later, a domain and an
    account hash after the second and perhaps a random one at the end (protocol.md 2.8).
    """
    tokens = reply.split(".")
    if tokens[:2] != ["$JS", "ACK"]:
        return None
    rest = tokens[2:] if len(tokens) == 9 else tokens[4:]
    if len(rest) < 7 or not all(n.isdecimal() and len(n) <= MOST_DIGITS for n in rest[2:7]):
        return None
    _, sequence, consumed, time_ns, pending = map(int, rest[2:7])
    return Delivery(rest[0], rest[1], sequence, consumed, time_ns, pending)


def _json(request: Mapping[str, Any]) -> bytes:
    return json.dumps(request).encode()
