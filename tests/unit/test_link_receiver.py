"""The incoming side of a link: the same messages however their bytes are split."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsfs.store.buffers import Arena
from natsfs.store.link import receiver
from natsfs.store.link.receiver import Control, Event, ProtocolError, Receiver
from natsfs.store.session import Message

#: Sizes on both sides of every threshold.
SIZES = [
    *(0, 1, 2, 100, receiver.LARGE_BYTES - 1, receiver.LARGE_BYTES, receiver.NEXT_BYTES + 9_000),
    *(receiver.HEAD_BYTES - 40, receiver.HEAD_BYTES, receiver.HEAD_BYTES + 1, 131_072),
]
SUBJECTS = st.sampled_from(["a", "_INBOX.abc.17", "$O.b.M.aGVsbG8="])


def block(size: int) -> bytes:
    """A header block of about *size* bytes."""
    return b"NATS/1.0\r\nNats-Sequence: " + b"7" * size + b"\r\n\r\n"


def filler(size: int) -> bytes:
    """Bytes that look like the protocol itself."""
    return (b"\r\nMSG a 1 5\r\nPING\r\n+OK\r\n" * (size // 20 + 1))[:size]


@st.composite
def frames(draw: st.DrawFn) -> tuple[Event, bytes]:
    """An event and the bytes that stand for it."""
    if draw(st.booleans()):
        verb, text = draw(
            st.sampled_from([(b"PING", b""), (b"PONG", b""), (b"+OK", b""), (b"-ERR", b"'no'")])
        )
        return Control(verb, text), verb + (b" " + text if text else b"") + b"\r\n"
    subject, reply = draw(SUBJECTS), draw(st.sampled_from(["", "reply.to"]))
    headers = block(draw(st.sampled_from([1, 300, 70_000]))) if draw(st.booleans()) else b""
    data = filler(draw(st.sampled_from(SIZES)))
    sizes = f"{len(headers)} {len(headers) + len(data)}" if headers else f"{len(data)}"
    line = " ".join(filter(None, ("HMSG" if headers else "MSG", subject, "1", reply, sizes)))
    wire = line.encode() + b"\r\n" + headers + data + b"\r\n"
    return Message(subject, reply, headers, data), wire


def feed(incoming: Receiver, data: bytes, most: Iterable[int] = ()) -> list[Event]:
    """Receive *data*, in pieces of *most* bytes as long as there are any."""
    sizes = iter(most)
    events: list[Event] = []
    while data:
        limit, count = next(sizes, len(data)), 0
        for buffer in incoming.buffers():
            piece = data[: min(len(buffer), limit - count)]
            buffer[: len(piece)] = piece
            data, count = data[len(piece) :], count + len(piece)
        assert count
        events += incoming.received(count)
    return events


@given(st.lists(frames(), max_size=12), st.lists(st.integers(1, 70_000), max_size=60))
def test_any_split(sent: list[tuple[Event, bytes]], sizes: list[int]) -> None:
    """Every message and control line arrives once, whole and in order, whatever a read brings."""
    wire = b"".join(data for _, data in sent)
    assert feed(Receiver(), wire, sizes) == [event for event, _ in sent]


def test_byte_by_byte() -> None:
    """A message is complete with its last byte and not before."""
    incoming = Receiver()
    wire = b"HMSG a.b 1 12 17\r\nNATS/1.0\r\n\r\nhello\r\n"
    assert feed(incoming, wire[:-1], [1] * len(wire)) == []
    assert feed(incoming, wire[-1:]) == [Message("a.b", "", b"NATS/1.0\r\n\r\n", b"hello")]


def test_large_payload_is_received_in_place() -> None:
    """The rest of a large payload goes where its reader finds it, without a copy."""
    incoming = Receiver()
    feed(incoming, b"MSG a 1 131072\r\n" + b"x" * 1000)
    assert incoming.missing == 130_072
    target = incoming.buffers()[0]
    (message,) = feed(incoming, b"y" * 130_072 + b"\r\n")
    assert isinstance(message, Message)
    assert isinstance(message.data, memoryview)
    assert target.obj is message.data.obj
    assert message.data == b"x" * 1000 + b"y" * 130_072
    assert incoming.missing == 0


@given(st.lists(st.sampled_from([0, 5, 500, 8192, 70_000]), max_size=8), st.data())
def test_lent_buffers(lengths: list[int], data: st.DataObject) -> None:
    """Payloads of every size, however they come, land in the buffer that was lent for them."""
    arena, incoming = Arena(max(sum(lengths), 1)), Receiver()
    incoming.lend = lambda _subject, size: arena.claim(size)
    payloads = [filler(length) for length in lengths]
    wire = b"".join(b"MSG a 1 %d\r\n%b\r\n" % (len(p), p) for p in payloads)
    sizes = data.draw(st.lists(st.integers(1, 70_000), max_size=40))
    events = feed(incoming, wire, sizes)
    assert arena[: arena.filled] == b"".join(payloads)
    assert [event.data for event in events if isinstance(event, Message)] == payloads


@pytest.mark.parametrize(
    "wire",
    [
        b"HELLO\r\n",
        b"MSG a 1\r\n",
        b"MSG a 1 x\r\n",
        b"MSG a 1 -3\r\n",
        b"MSG a 1 b c 3\r\n",
        b"MSG a 1 99999999999\r\n",
        b"HMSG a 1 7 3\r\n",
        b"MSG a 1 3\r\nhello\r\n",
        b"MSG a 1 20000\r\n" + bytes(20_000) + b"no\r\n",
        b"x" * 200_000,
    ],
)
def test_what_is_no_protocol(wire: bytes) -> None:
    """Bytes that cannot be NATS are refused instead of being waited for or taken as data."""
    with pytest.raises(ProtocolError):
        feed(Receiver(), wire)
