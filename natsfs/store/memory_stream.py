"""One bucket's stream as nats-server keeps it: one sequence for all subjects, rollup,
compare-and-set, `discard: new`, expiry, sealing.

The server's half of the in-memory store.  Tests use it to do what a foreign client could do.

Concurrency: nothing here awaits, so each call is atomic.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from natsfs.errors import (
    NoSpaceError,
    NotFoundError,
    ReadOnlyError,
    ServerRefused,
    WrongRevision,
)
from natsfs.store.model import Advisory, BucketConfig, BucketStatus, Reconfigured, Removed
from natsfs.store.wire import meta_prefix, stream_name

#: Bytes that a stored message costs beside subject and payload: the record header of nats-server's
#: file store with its length prefix and checksum (fileStoreMsgSize).
MESSAGE_OVERHEAD = 30


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream; *expires_ns* is infinite for one that stays, *ttl* 0 for one without
    a life of its own; with *rollup* it took the place of all before it."""

    subject: str
    sequence: int
    time_ns: int
    data: bytes
    expires_ns: float = math.inf
    ttl: int = 0
    rollup: bool = False

    @property
    def cost(self) -> int:
        """What the message counts against `max_bytes`."""
        return len(self.subject) + len(self.data) + MESSAGE_OVERHEAD


@dataclass(frozen=True, slots=True)
class Publish:
    """One message to store.  *expected* and *ttl* as in `MetaWrite`; *name* is for errors."""

    subject: str
    data: bytes
    rollup: bool = False
    expected: int | None = None
    ttl: int | None = None
    name: str = ""

    @property
    def cost(self) -> int:
        """What the message will count against `max_bytes`."""
        return len(self.subject) + len(self.data) + MESSAGE_OVERHEAD


class MemoryStream:
    """What the server holds of one bucket.

    *advises* is whether it tells of what no watch shows.
    """

    def __init__(self, config: BucketConfig, clock: Callable[[], int]) -> None:
        self.config = config
        self.sealed = False
        self.deleted = False
        self.created_ns = clock()
        self.last_sequence = 0
        self.size = 0
        self._clock = clock
        self._subjects: dict[str, dict[int, Message]] = {}
        self._expiring: list[tuple[float, int, str]] = []
        self.advises = True
        self._advised: set[trio.MemorySendChannel[Advisory]] = set()
        self._watchers: set[trio.MemorySendChannel[Message | None]] = set()

    # -- what is stored ------------------------------------------------------------------------

    def on(self, subject: str) -> list[Message]:
        """The messages on *subject*, oldest first."""
        self._expire()
        return list(self._subjects.get(subject, {}).values())

    def last(self, subject: str) -> Message | None:
        """The newest message on *subject*."""
        self._expire()
        messages = self._subjects.get(subject)
        return next(reversed(messages.values())) if messages else None

    def counts(self, prefix: str) -> dict[str, int]:
        """How many messages each subject that begins with *prefix* has, by the rest of it."""
        self._expire()
        return {
            subject.removeprefix(prefix): len(messages)
            for subject, messages in self._subjects.items()
            if messages and subject.startswith(prefix)
        }

    def metas(self) -> list[Message]:
        """The newest message of each meta subject, oldest first."""
        self._expire()
        prefix = meta_prefix(self.config.bucket)
        newest = (
            next(reversed(messages.values()))
            for subject, messages in self._subjects.items()
            if subject.startswith(prefix)
        )
        return sorted(newest, key=lambda message: message.sequence)

    def meta_messages(self, sequence: int) -> list[Message]:
        """All messages of meta subjects from *sequence* on."""
        self._expire()
        prefix = meta_prefix(self.config.bucket)
        return [
            message
            for subject, messages in self._subjects.items()
            if subject.startswith(prefix)
            for message in messages.values()
            if message.sequence >= sequence
        ]

    @property
    def first_sequence(self) -> int:
        """No message before this one exists."""
        self._expire()
        firsts = (next(iter(messages)) for messages in self._subjects.values())
        return min(firsts, default=self.last_sequence + 1)

    def count(self) -> int:
        """How many messages there are."""
        self._expire()
        return sum(map(len, self._subjects.values()))

    # -- changes -------------------------------------------------------------------------------

    def publish(self, *batch: Publish) -> list[Message]:
        """Store *batch*, all of it or nothing.

        Errors: `ReadOnlyError` (sealed), `WrongRevision`, `NoSpaceError` (over `max_bytes`,
        whatever the rollups in the batch would free: protocol.md 2.7), `ServerRefused` (a rollup
        of a subject that the batch has written before: protocol.md 2.5).
        """
        self._expire()
        seen: set[str] = set()
        for publish in batch:
            self._check(publish, first=publish.subject not in seen)
            seen.add(publish.subject)
        limit = self.config.max_bytes
        if 0 <= limit < self.size + sum(publish.cost for publish in batch):
            raise NoSpaceError(f"{self.config.bucket}: maximum bytes exceeded")
        return [self._store(publish) for publish in batch]

    def purge(self, subject: str, last: int | None = None) -> int:
        """Drop every message on *subject*, or those up to the sequence *last*; watchers are told
        nothing.  Errors: `ReadOnlyError`."""
        self._check_open()
        messages = [m for m in self.on(subject) if last is None or m.sequence <= last]
        for message in messages:
            self._drop(message)
        if subject.startswith(meta_prefix(self.config.bucket)):
            self.advise(Removed(subject))
        return len(messages)

    def remove(self, sequence: int) -> None:
        """Drop one message.  Errors: `NotFoundError`, `ReadOnlyError`."""
        self._check_open()
        for messages in self._subjects.values():
            if sequence in messages:
                self._drop(messages[sequence])
                return self.advise(Removed(revision=sequence))
        raise NotFoundError(f"{self.config.bucket}: no message {sequence}")

    def clear(self) -> None:
        """Drop every message, as a purge without a filter.  Errors: `ReadOnlyError`."""
        self._check_open()
        for messages in list(self._subjects.values()):
            for message in list(messages.values()):
                self._drop(message)
        self.advise(Removed())

    def seal(self) -> None:
        """Refuse every change from now on."""
        self.sealed = True
        self.advise(Reconfigured())

    def delete(self) -> None:
        """Make every call on the bucket raise `BucketNotFoundError`, watches included."""
        self.deleted = True
        self.advise(Reconfigured())
        for watcher in self._watchers:
            watcher.close()

    def status(self, *, allow_atomic: bool, asked_ns: int) -> BucketStatus:
        """The stream as the server would describe it at *asked_ns*."""
        config = self.config
        return BucketStatus(
            bucket=config.bucket,
            stream=stream_name(config.bucket),
            description=config.description,
            ttl=config.ttl,
            max_bytes=config.max_bytes,
            storage=config.storage,
            replicas=config.replicas,
            sealed=self.sealed,
            compression=config.compression,
            metadata=dict(config.metadata),
            messages=self.count(),
            size=self.size,
            last_revision=self.last_sequence,
            created_ns=self.created_ns,
            first_revision=self.first_sequence,
            asked_ns=asked_ns,
            allow_atomic=allow_atomic,
            allow_msg_ttl=True,
        )

    # -- watching ------------------------------------------------------------------------------

    @contextmanager
    def subscribed(self) -> Iterator[trio.MemoryReceiveChannel[Message | None]]:
        """A channel of every message to come, unbounded as a server's; None in it is a gap, its
        end the end of the stream."""
        send, receive = trio.open_memory_channel[Message | None](math.inf)
        self._watchers.add(send)
        try:
            yield receive
        finally:
            self._watchers.discard(send)
            send.close()

    @contextmanager
    def advised(self) -> Iterator[trio.MemoryReceiveChannel[Advisory]]:
        """A channel of what the server tells besides."""
        send, receive = trio.open_memory_channel[Advisory](math.inf)
        self._advised.add(send)
        try:
            yield receive
        finally:
            self._advised.discard(send)
            send.close()

    def advise(self, advisory: Advisory) -> None:
        """Tell *advisory* to those who listen."""
        if self.advises:
            for send in self._advised:
                send.send_nowait(advisory)

    def interrupt(self) -> None:
        """Make every watch start again, as after a lost connection."""
        for watcher in self._watchers:
            watcher.send_nowait(None)

    # -- steps ---------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self.sealed:
            raise ReadOnlyError(f"bucket {self.config.bucket} is sealed")

    def _check(self, publish: Publish, *, first: bool) -> None:
        self._check_open()
        if publish.rollup and not first:
            raise ServerRefused(publish.subject, 10111, "batch rollup sub invalid")
        last = self.last(publish.subject)
        actual = last.sequence if last else 0
        if publish.expected not in (None, actual):
            raise WrongRevision(publish.name or publish.subject, publish.expected, actual)

    def _store(self, publish: Publish) -> Message:
        if publish.rollup:
            for old in self.on(publish.subject):
                self._drop(old)
        self.last_sequence += 1
        now = self._clock()
        lives = [ttl for ttl in (publish.ttl, self.config.ttl) if ttl is not None]
        expires = now + min(lives) * 1e9 if lives else math.inf
        message = Message(
            publish.subject,
            self.last_sequence,
            now,
            publish.data,
            expires,
            publish.ttl or 0,
            publish.rollup,
        )
        self._subjects.setdefault(message.subject, {})[message.sequence] = message
        self.size += message.cost
        if lives:
            heapq.heappush(self._expiring, (expires, message.sequence, message.subject))
        for watcher in self._watchers:
            watcher.send_nowait(message)
        return message

    def _drop(self, message: Message) -> None:
        messages = self._subjects[message.subject]
        del messages[message.sequence]
        if not messages:
            del self._subjects[message.subject]
        self.size -= message.cost

    def _expire(self) -> None:
        while self._expiring and self._expiring[0][0] <= self._clock():
            _, sequence, subject = heapq.heappop(self._expiring)
            message = self._subjects.get(subject, {}).get(sequence)
            if message is not None:
                self._drop(message)


def cover(chunks: Sequence[Message], start: int, stop: int) -> Iterator[bytes]:
    """What the range [*start*, *stop*) takes from each of *chunks*."""
    offset = 0
    for chunk in chunks:
        if offset < stop:
            yield chunk.data[max(start - offset, 0) : stop - offset]
        offset += len(chunk.data)
