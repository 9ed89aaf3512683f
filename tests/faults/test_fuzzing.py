"""Bytes that nobody should have sent: every reader of them brings what is right, or the error that
it promises, and neither hangs nor takes memory without end.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.mount.mounting import PACKAGE_ROOT, run

from .fuzzing import TARGETS

#: Seconds that a night spends with each target.
NIGHT = 120

#: What the protocols are made of: chance alone would hardly find it.
PARTS = [
    *(b"MSG a 1 3\r\nabc\r\n", b"MSG a 1 r 0\r\n\r\n", b"HMSG a 1 12 14\r\nNATS/1.0\r\n\r\nab\r\n"),
    *(b"PING\r\n", b"PONG\r\n", b"INFO {}\r\n", b"-ERR 'x'\r\n", b"+OK\r\n", b"MSG ", b"HMSG "),
    *(b"\r\n", b"\r", b"\n", b" ", b"\t", b"\0", b"-1", b"0", b"9" * 20, b"9" * 5000, b"1e999"),
    b"MSG a 1 20000\r\n" + bytes(20_000) + b"\r\n",
    b"HMSG a 1 12 70012\r\nNATS/1.0\r\n\r\n" + bytes(70_000) + b"\r\n",
    *(b"NATS/1.0", b" 503", b" 100 Idle\r\n", b"Nats-Sequence: ", b"Nats-Num-Pending: "),
    *(b"Nats-Subject: u\r\n", b"Nats-Time-Stamp: 2024-01-01T00:00:00Z\r\n", b":", b"$JS.ACK."),
    *(b"{", b"}", b"[", b"]", b'"', b",", b'"name":"a"', b'"size":', b'"chunks":', b'"a":'),
    *(b'"error":', b'"err_code":', b'"description":', b'"stream":"s"', b'"seq":', b'"message":'),
    *(b'"hdrs":', b'"data":', b'"time":"2024-01-01T00:00:00Z"', b'"subject":"u"', b'"call":'),
    *(b'"status"', b'"args":', b"null", b"true", b"NaN", b"[" * 20_000, b'{"a":' * 20_000),
    *(
        b'"options":',
        b'"link":',
        b'"bucket":"b"',
        b'"metadata":',
        b'"headers":',
        b"\xff",
        b"\\ud800",
    ),
    *(b"never", b"1h", b"9" * 400 + b"h", b"SHA-256=", "‛".encode(), "␀".encode(), "．".encode()),
]
#: Either of them, in any order; and JSON objects of some fields.
streams = st.lists(st.sampled_from(PARTS) | st.binary(max_size=20), max_size=12).map(b"".join)
members = st.lists(st.sampled_from([part for part in PARTS if b'"' in part]), max_size=6)
objects = st.tuples(members, st.sampled_from(PARTS)).map(
    lambda found: b"{" + b",".join(m + found[1] if m.endswith(b":") else m for m in found[0]) + b"}"
)
anything = streams | objects | st.binary(max_size=60)


@pytest.fixture
def quiet() -> Iterator[None]:
    """What is said of damage is said thousands of times here."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes(name: str) -> None:
    """E: no bytes bring a reader to anything but its answer or its error."""

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(anything)
    def attempt(data: bytes) -> None:
        TARGETS[name](data)

    attempt()


DIGITS = b"9" * 5000  # more than int() takes

#: What readers have stumbled over.
STUMBLES = [
    ("receiver", b"\xffMSG a 1 " + DIGITS + b"\r\n"),
    ("receiver", b"\xffHMSG a 1 12 " + DIGITS + b"\r\n"),
    ("lending_receiver", b"\xffMSG a 1 " + DIGITS + b"\r\n"),
    ("texts", DIGITS),
    ("texts", b"9" * 400 + b"h"),
    ("texts", b"S.c." + DIGITS + b".1.1.1.1.1.1"),
    ("texts", b"s.c.1." + DIGITS + b".1.1.1"),
    ("headers", b"NATS/1.0 " + DIGITS),
    ("headers", DIGITS + b"\r"),
    ("answers", b"[" * 100_000),
    ("answers", b'{"stream":"s","seq":1e999}'),
    ("answers", b'{"stream":"s","seq":' + DIGITS + b"}"),
    ("answers", b'{"error":"text"}'),
    ("answers", b'{"error":[1]}'),
    ("answers", b'{"error":{"err_code":[],"description":{}}}'),
    ("answers", b'{"message":{"subject":"u","seq":1e999,"time":"2024-01-01T00:00:00Z"}}'),
    ("request", b"[" * 60_000),
    ("request", b'{"call":[]}'),
    ("request", b'{"call":"status","args":[1]}'),
    ("request", b'{"call":"status","args":{"\\ud800":1}}'),
    ("meta", b'{"name":"a","x":' + b"[" * 100_000),
    ("meta", b'{"name":"\\ud800\\u0000","nuid":"n"}'),
]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("name", "data"), STUMBLES, ids=range(len(STUMBLES)))
def test_what_was_stumbled_over(name: str, data: bytes) -> None:
    """E: the same, for bytes that once brought another error, which would have ended the mount."""
    TARGETS[name](data)


@pytest.mark.nightly
@pytest.mark.timeout(NIGHT + 120)
@pytest.mark.parametrize("name", TARGETS)
def test_a_night_of_bytes(name: str, tmp_path: Path) -> None:
    """E: the same, for bytes that are chosen by the paths that they take through the code."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is missing: it has no wheel for this Python")
    path = os.pathsep.join([str(PACKAGE_ROOT), *sys.path])
    command = [sys.executable, "-m", "tests.faults.night", name, str(NIGHT)]
    result = run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, timeout=NIGHT + 100)
    assert result.status == 0, result.err[-4000:]
