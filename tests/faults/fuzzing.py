"""Readers of bytes that others wrote, each as a function that any bytes may be thrown at.

A target raises nothing but what its reader promises to raise, and fails an assertion when the
reader says something untrue.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import trio

from natsfs.control import serving
from natsfs.data.segments import SegmentFiles
from natsfs.data.snapshots import SnapshotFile
from natsfs.data.version import Version
from natsfs.errors import MalformedMeta, NatsfsError
from natsfs.store.headers import parse_headers
from natsfs.store.jetstream.api import decode
from natsfs.store.link.handshake import parse_info as parse_greeting
from natsfs.store.link.receiver import HEAD_BYTES, ProtocolError, Receiver
from natsfs.store.model import ObjectInfo
from natsfs.store.protocol import (
    direct_fields,
    parse_delivery,
    parse_direct,
    parse_puback,
    parse_stored,
    parse_ttl,
    sequence_after,
)
from natsfs.store.session.client import Message
from natsfs.store.wire import complete, parse_digest, parse_info, parse_time, render_info
from natsfs.tree.names import decode_component, encode_component
from natsfs.tree.namespace import Namespace
from natsfs.tree.snapshot import Damaged, render, restore

Target = Callable[[bytes], None]

#: Bytes of a message that a fuzzer may announce: more only takes memory.
MOST_ANNOUNCED = 1024 * 1024


def receiver(data: bytes, *, lend: bool = False) -> None:
    """The first byte says how the rest is cut: each way brings the same messages, or an error."""
    step = data[0] + 1 if data else 1
    whole, pieces = _received(data[1:], HEAD_BYTES, lend), _received(data[1:], step, lend)
    if "error" not in (*whole[-1:], *pieces[-1:]):
        assert whole == pieces
        return
    # What came together with bytes that are no protocol goes with them.
    assert whole.pop() == pieces.pop()
    assert pieces[: len(whole)] == whole


def lending_receiver(data: bytes) -> None:
    """The same for one that gets its buffers lent."""
    receiver(data, lend=True)


def _received(data: bytes, step: int, lend: bool) -> list[str]:
    incoming = Receiver()
    if lend:
        incoming.lend = lambda subject, size: memoryview(bytearray(size)) if size < 70_000 else None
    events: list[str] = []
    rest = memoryview(data)
    while rest:
        count = 0
        for buffer in incoming.buffers():
            if incoming.missing > MOST_ANNOUNCED or len(buffer) > 2 * MOST_ANNOUNCED:
                return [*events, "too much for a test"]
            piece = rest[: min(len(buffer), step - count)]
            buffer[: len(piece)] = piece
            rest, count = rest[len(piece) :], count + len(piece)
        assert count, "there was no room for a byte"
        try:
            events += map(repr, _plain(incoming.received(count)))
        except ProtocolError:
            return [*events, "error"]
    return events


def _plain(events: Sequence[object]) -> Iterator[object]:
    """*events* with all payloads as bytes: how they are cut decides where a payload lies."""
    for event in events:
        yield replace(event, data=bytes(event.data)) if isinstance(event, Message) else event


def meta(data: bytes) -> None:
    """What is read of a meta can be written, and is then read as the same."""
    try:
        info = parse_info("$O.b.M.x", data, bucket="b", revision=1, time_ns=1)
    except MalformedMeta as error:
        reason = str(error)
    else:
        _assert_kept(info)
        return
    assert len(reason) < 500


def _assert_kept(info: ObjectInfo) -> None:
    info = complete(info, "b")
    again = parse_info("$O.b.M.x", render_info(info, 1), bucket="b", revision=1, time_ns=1)
    assert (again.name, again.size, again.metadata) == (info.name, info.size, info.metadata)
    assert again.extra == info.extra
    namespace = Namespace()
    if not namespace.load(info):
        namespace.apply(info)
    assert info.deleted or namespace.find(info.subject) is not None


def headers(data: bytes) -> None:
    """Header blocks, and all that is read out of them."""
    with suppress(NatsfsError):
        parse_headers(data)
    with suppress(NatsfsError):
        parse_direct(data, b"")
    with suppress(NatsfsError):
        parse_direct(b"NATS/1.0\r\nNats-Stream: s\r\n" + data, b"")
    fields = direct_fields("s", "u")
    sequence_after(fields, data)
    sequence_after(fields, b"NATS/1.0" + fields + data)


def answers(data: bytes) -> None:
    """JSON answers of the server."""
    for read in (decode, parse_puback):
        with suppress(NatsfsError):
            read("what", data)
    with suppress(NatsfsError):
        parse_greeting(data)
    with suppress(ValueError, RecursionError):
        reply = json.loads(data)
        if isinstance(reply, dict):
            with suppress(NatsfsError):
                parse_stored("what", reply)


def texts(data: bytes) -> None:
    """Times, digests, lives, deliveries."""
    text = data.decode("utf-8", "replace")
    parse_time(text)
    parse_time("2024-01-01T00:00:00" + text)
    digest = parse_digest(text)
    assert digest is None or len(digest) == 32
    assert parse_ttl(text) >= -1
    parse_delivery(text)
    parse_delivery("$JS.ACK." + text)


def names(data: bytes) -> None:
    """N1: every name that a program may choose is one object's, and is shown as chosen."""
    component = data.replace(b"/", b"").replace(b"\0", b"")
    if component not in (b"", b".", b".."):
        assert encode_component(decode_component(component)) == component
    text = data.decode("utf-8", "replace").replace("/", "")
    shown = encode_component(text)
    assert shown not in (b"", b".", b"..")
    assert not set(shown) & {0, 0x2F}


def request(data: bytes) -> None:
    """A line on the control socket is answered in one line of JSON."""

    async def status() -> dict[str, str]:
        return {}

    async def ask() -> bytes:
        return await serving._answer(data, {"status": status})

    answer = trio.run(ask)
    assert answer.endswith(b"\n")
    assert answer.count(b"\n") == 1
    assert "internal error" not in answer.decode()
    json.loads(answer)


def tree(data: bytes) -> None:
    """A snapshot is restored or `Damaged`: one that passes its checksum is of this natsfs, but a
    bug must not end the mount."""
    with suppress(Damaged):
        restore(Namespace(), data)


def some_tree() -> bytes:
    """A sound snapshot."""
    namespace = Namespace()
    for number, name in enumerate(("a", "d/b", "d/e/c", "d/", "x/／", "..")):
        extra = ',"more":1' if number % 2 else ""
        fields = f'"name":"{name}","nuid":"N{number}","size":{number},"metadata":{{"mode":"0644"}}'
        info = parse_info(
            f"$O.b.M.s{number}",
            f"{{{fields}{extra}}}".encode(),
            bucket="b",
            revision=number + 1,
            time_ns=number,
        )
        namespace.apply(info)
    return b"".join(render(namespace, 100))


def changed(data: bytes, sound: bytes) -> bytes:
    """*sound*, changed as *data* says: three bytes for each change."""
    body = bytearray(sound)
    for at in range(0, len(data) - 2, 3):
        place = int.from_bytes(data[at : at + 2]) % (len(body) + 1)
        if data[at + 2] == 0:
            del body[place:]
        elif place < len(body):
            body[place] ^= data[at + 2]
    return bytes(body)


def changed_tree(data: bytes) -> None:
    """Some bytes of a sound snapshot are others."""
    tree(changed(data, some_tree()))


def snapshot_file(data: bytes) -> None:
    """A changed file is none, whatever was changed."""
    with tempfile.TemporaryDirectory() as directory:
        file = SnapshotFile(Path(directory), "bucket")
        writing = file.begin()
        assert writing is not None
        body = os.urandom(200)
        # A disk of tests may be fuller than those of users.
        if not (writing.add(body) and writing.finish()):
            return
        (path,) = (path for path in Path(directory).glob("*/*") if path.is_file())
        path.write_bytes(changed(data, path.read_bytes()))
        found = file.read()
        assert found is None or bytes(found) == body


def segment(data: bytes) -> None:
    """R4: of a changed segment sound blocks are found or none."""
    version = Version("bucket", "nuid", 5 * 4096 + 7, 4096)
    body = bytes(range(256)) * 80 + b"the end"
    with tempfile.TemporaryDirectory() as directory:
        files = SegmentFiles(Path(directory))
        files.write(version, 0, [memoryview(body)], 0.0)
        (path,) = (path for path in Path(directory).rglob("*") if path.is_file())
        path.write_bytes(changed(data, path.read_bytes()))
        into = memoryview(bytearray(len(body)))
        for index in files.read(version, range(6), into).found:
            start, stop = version.start(index), version.start(index + 1)
            assert into[start:stop] == body[start:stop]


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        receiver,
        lending_receiver,
        meta,
        headers,
        answers,
        texts,
        names,
        request,
        tree,
        changed_tree,
        snapshot_file,
        segment,
    )
}
