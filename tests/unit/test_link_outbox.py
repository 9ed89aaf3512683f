"""The outgoing side of a link: frames in order, whole, and only while somebody wants them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsfs.errors import InvalidArgument
from natsfs.store.link.outbox import WRITE_BUFFERS, Buffer, Outbox, encode
from natsfs.store.session import Request

PIECES = st.binary(min_size=1, max_size=50)


def drain(outbox: Outbox, counts: Iterator[int]) -> bytes:
    """Everything in *outbox* as a socket would take it, *counts* bytes at a time."""
    taken = bytearray()
    while front := outbox.front():
        data = b"".join(front)
        count = min(next(counts, len(data)), len(data))
        taken += data[:count]
        outbox.sent(count)
    return bytes(taken)


@given(st.lists(st.lists(PIECES, min_size=1, max_size=3)), st.lists(st.integers(1, 120)))
def test_any_partial_write(frames: list[list[bytes]], counts: list[int]) -> None:
    """However little each write takes, the bytes go out in order and once."""
    outbox = Outbox()
    for frame in frames:
        buffers: list[Buffer] = [*frame]
        outbox.add(buffers)
    everything = b"".join(b"".join(frame) for frame in frames)
    assert outbox.size == len(everything)
    assert drain(outbox, iter(counts)) == everything
    assert outbox.size == 0


def test_unwanted_frames_are_dropped() -> None:
    """What its caller gave up before it was begun is not sent; what was begun is finished."""
    outbox, wanted = Outbox(), True
    outbox.add([b"one"], lambda: wanted)
    outbox.front()
    outbox.sent(1)
    outbox.add([b"two"], lambda: wanted)
    outbox.add([b"three"])
    wanted = False
    assert drain(outbox, iter([1, 1])) == b"nethree"
    assert outbox.size == 0


def test_writes_are_bounded() -> None:
    """One write has no more buffers than the kernel takes, and large frames are not joined."""
    outbox = Outbox()
    for _ in range(2 * WRITE_BUFFERS):
        outbox.add([b"x"])
    assert len(outbox.front()) == WRITE_BUFFERS
    outbox.clear()
    assert (outbox.front(), outbox.size) == ([], 0)
    data = bytes(100_000)
    assert any(buffer is data for buffer in encode(Request("a", data), "r", 200_000))


def test_frames() -> None:
    """A request is one PUB, or one HPUB when it has headers."""
    assert encode(Request("a", b"hello"), "r.1", 100) == [b"PUB a r.1 5\r\nhello\r\n"]
    (frame,) = encode(Request("a", b"hello", {"K": "v"}), "r.1", 100)
    assert frame == b"HPUB a r.1 18 23\r\nNATS/1.0\r\nK: v\r\n\r\nhello\r\n"


@pytest.mark.parametrize("request_", [Request("a", bytes(101)), Request("a", b"", {"K": "a\nb"})])
def test_what_cannot_be_sent(request_: Request) -> None:
    """Too much for the server, and headers that would break the protocol, are refused."""
    with pytest.raises(InvalidArgument):
        encode(request_, "r", 100)
