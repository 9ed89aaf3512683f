"""Audit messages of the server, and lives of messages, as values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from natsfs.filesystem.lifetimes import expiry_ns, lease
from natsfs.store.advisories import parse_advisory
from natsfs.store.model import EVER, Advisory, ObjectInfo, Reconfigured, Removed
from natsfs.store.protocol import parse_ttl

SECOND = 10**9


def audit(subject: str, request: Any = None, response: str = '{"success":true}') -> bytes:
    """As nats-server 2.15.1 writes it, without what nobody reads."""
    event = {"type": "io.nats.jetstream.advisory.v1.api_audit", "subject": subject}
    if request is not None:
        event["request"] = json.dumps(request)
    return json.dumps({**event, "response": response}, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("payload", "meaning"),
    [
        (audit("$JS.API.STREAM.PURGE.OBJ_b"), Removed()),
        (audit("$JS.API.STREAM.PURGE.OBJ_b", {"filter": "$O.b.M.eA=="}), Removed("$O.b.M.eA==")),
        (audit("$JS.API.STREAM.PURGE.OBJ_b", {"filter": "$O.b.M.*"}), Removed()),
        (audit("$JS.API.STREAM.PURGE.OBJ_b", {"filter": "$O.b.M.>"}), Removed()),
        (audit("$JS.API.STREAM.PURGE.OBJ_b", {"filter": "$O.>", "keep": 1}), Removed()),
        (audit("$JS.API.STREAM.PURGE.OBJ_b", {"seq": 7}), Removed()),
        (audit("$JS.API.STREAM.PURGE.OBJ_b", {"filter": "$O.b.C.nuid"}), None),
        (audit("$JS.API.STREAM.PURGE.OBJ_b", {"filter": "$O.b.C.>"}), None),
        (audit("$JS.API.STREAM.PURGE.OBJ_other"), None),
        (audit("$JS.API.STREAM.PURGE.OBJ_b", None, '{"error":{"code":400}}'), None),
        (audit("$JS.hub.API.STREAM.MSG.DELETE.OBJ_b", {"seq": 7}), Removed(revision=7)),
        (audit("$JS.API.STREAM.MSG.DELETE.OBJ_b", {"seq": "x"}), None),
        (audit("$JS.API.STREAM.UPDATE.OBJ_b", {"name": "OBJ_b"}), Reconfigured()),
        (audit("$JS.API.STREAM.DELETE.OBJ_b"), Reconfigured()),
        (audit("$JS.API.STREAM.INFO.OBJ_b"), None),
        (audit("$JS.API.CONSUMER.CREATE.OBJ_b.name.$O.b.M.>", {}), None),
        (b'{"stream":"OBJ_b","action":"modify"}', Reconfigured()),
        (b'{"stream":"OBJ_b2","action":"modify"}', None),
        (b"OBJ_b", None),
        (b'["OBJ_b"]', None),
        (b'{"subject":"$JS.API.STREAM.PURGE.OBJ_b","request":"no JSON"}', None),
        (b"", None),
    ],
)
def test_audit_messages(payload: bytes, meaning: Advisory | None) -> None:
    """A6: what a request means for the bucket is read from what the server tells of it."""
    assert parse_advisory("b", payload) == meaning


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("60", 60), ("90s", 90), ("1m30s", 90), ("1.5h", 5400), ("never", EVER), ("2500ms", 2)),
        *(("", 0), ("soon", 0), ("-1s", 0), ("1 s", 0)),
    ],
)
def test_lives_as_headers_spell_them(text: str, seconds: int) -> None:
    """A6: `Nats-TTL` is a number of seconds, a duration of Go, or "never"."""
    assert parse_ttl(text) == seconds


@pytest.mark.parametrize(
    ("chunks", "ttl", "max_age", "expiry", "left"),
    [
        (1, 0, 0, None, None),
        (1, 0, 100, 100, 60),
        (1, 30, 100, 30, 1),
        (1, 300, 100, 100, 60),
        (1, 300, 0, 300, 260),
        (1, EVER, 100, None, None),
        (0, 0, 100, 100, None),
        (0, 50, 100, 50, 10),
    ],
)
def test_leases(chunks: int, ttl: int, max_age: int, expiry: int | None, left: int | None) -> None:
    """A6: 40 s after it was stored an object has what is left of the shorter of its lives; one
    without bytes depends on nothing but its own."""
    info = ObjectInfo("f", "b", "s", chunks=chunks, ttl=ttl, time_ns=7 * SECOND)
    expected = None if expiry is None else (7 + expiry) * SECOND
    assert expiry_ns(info, max_age * SECOND) == expected
    assert lease(info, max_age * SECOND, 47 * SECOND) == left
