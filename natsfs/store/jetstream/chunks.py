"""Publishing the chunks of one version, in order.

The order of a version's chunks is the order of their sequences, and a server that drops one message
of many (an ingest limit, an election) takes the next.  So a window counts as stored only when its
sequences ascend; chunks that came too early are deleted and sent again.  Message ids make sending
again safe: what is there already is answered with its sequence.

Concurrency: a `ChunkWriter` serves one upload in one task.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import trio

from natsfs.errors import (
    ChunkMissing,
    NatsfsError,
    NotFoundError,
    RequestTimeout,
    ServerRefused,
)
from natsfs.store.jetstream.api import attempt_timeout, is_transient
from natsfs.store.jetstream.bucket import Bucket
from natsfs.store.layout import Stretches
from natsfs.store.primitives import Data
from natsfs.store.protocol import IN_PROCESS, MESSAGE_ID, parse_puback
from natsfs.store.session import Answer, NoResponders, Request
from natsfs.store.wire import chunk_subject, new_nuid

log = logging.getLogger(__name__)

#: Bytes with acknowledgements in flight.  32 default chunks: 80 MB/s over a round trip of 50 ms,
#: and 1/32 of what a server queues for a stream before it drops (protocol.md 2.7).
WINDOW_BYTES = 4 * 1024 * 1024

#: Messages in flight, for tiny chunks: a tenth of the queue of a 2.11 server (protocol.md 2.7).
WINDOW_MESSAGES = 1000

#: Seconds after which somebody may have taken the first chunks for a dead writer's and freed them
#: (`natsfs gc` waits for days): a commit then looks once, for 1 ms.
OLD = 3600.0

EXPECTED_ID = "Nats-Expected-Last-Msg-Id"

#: The part of the time-out for which a chunk may be on its way to the replicas.  A leader that gave
#: up and took over again may say so of one that it has lost for as long as it remembers ids (seen
#: on 2.15.1 after three changes of the leader in a row); under a new id it is taken.
ON_ITS_WAY = 0.5


@dataclass(slots=True)
class _Chunk:
    """One chunk on its way; *sequence* is 0 until it is acknowledged, *in_process_since* when the
    server first said of this id that it has it but not everywhere, infinite if it did not."""

    data: Data
    message_id: str
    sequence: int = 0
    in_process_since: float = math.inf


class ChunkWriter:
    """The chunks of the version *nuid*.

    `placed` says where each chunk is that is stored; `count` is how many chunks there are,
    `waiting` the bytes not stored yet; `sent` is whether anything may be in the stream.
    """

    def __init__(self, bucket: Bucket, what: str, nuid: str) -> None:
        self.subject = chunk_subject(bucket.name, nuid)
        self.placed = Stretches()
        self.count = 0
        self.waiting = 0
        self.sent = False
        #: The bucket that they are for, and no other of its name.
        self.identity = bucket.identity
        self._what = what
        self._nuid = nuid
        self._bucket = bucket
        self._session = bucket.api.session
        self._window: list[_Chunk] = []
        self._repeated = False
        self._begun = trio.current_time()

    @property
    def domain(self) -> str | None:
        """The JetStream domain that is to acknowledge what is sent; None for any."""
        return self._bucket.api.domain

    @property
    def full(self) -> bool:
        """Whether the window is, so that it is time to `flush`."""
        return self.waiting >= WINDOW_BYTES or len(self._window) >= WINDOW_MESSAGES

    @property
    def may_chain(self) -> bool:
        """Whether the stream can take a `chain`: one with replicas cannot, and after a repetition
        only `check` can tell that no chunk is there twice.

        Its servers look at the condition when the message is replicated already.  If it is not met,
        they take that for a failure of their disks and stop serving the stream, all of them, until
        they are restarted ("critical write error: last msgid mismatch", seen on 2.15.1).
        """
        return self._bucket.status.replicas < 2 and not self._repeated

    def add(self, data: Data) -> bool:
        """Take one chunk and say whether the window is now `full`."""
        self._window.append(_Chunk(data, f"{self._nuid}.{self.count}"))
        self.count += 1
        self.waiting += len(data)
        return self.full

    async def flush(self) -> None:
        """Store what has been taken and wait until it is there, in order.

        Errors: those of `protocol.refusal` and of the session.
        """
        if self._window:
            await self._bucket.api.persist(self._attempt)
        self._empty()

    async def chain(self, last: Request) -> Answer:
        """Send the chunks taken and *last* at once, and return the answer to *last*.

        Each is sent on condition that its predecessor is the newest message of the stream, so
        *last* is stored right after all chunks or not at all, and its sequence tells theirs
        (`chained`): they are not answered.  An atomic batch promises the same and takes 2.6 ms
        where this takes 0.4 ms (one chunk; the server stages a batch on disk).  Another writer's
        message in between breaks the chain; then `flush` stores the rest.
        """
        requests = self._requests(self._window, answered=False)
        for index, chunk in enumerate(self._window):
            following = requests[index + 1] if index + 1 < len(requests) else last
            headers = {**following.headers, EXPECTED_ID: chunk.message_id}
            chained = replace(following, headers=headers)
            if following is last:
                last = chained
            else:
                requests[index + 1] = chained
        api = self._bucket.api
        if not self._bucket.is_surely(self.identity):
            await api.persist(lambda timeout: self._bucket.still(self.identity, timeout))
        self.sent = True
        timeout = attempt_timeout(api.timeout)
        answers = await self._session.exchange([*requests, last], timeout=timeout)
        # Unless `chained` says otherwise, `flush` repeats what may be there.
        self._repeated = True
        return answers[-1]

    def chained(self, sequence: int) -> None:
        """The last message of a `chain` was stored with *sequence*."""
        for chunk in reversed(self._window):
            sequence -= 1
            chunk.sequence = sequence
        self._repeated = False  # it was not before, or there had been no chain
        self._empty()

    async def check(self) -> None:
        """After repetitions, make sure that no chunk is there twice: a bucket with a short `ttl`
        remembers message ids for as short a time.  After `OLD` seconds, make sure that all are
        still there.  Errors: `ChunkMissing`, `ServerRefused` if there are too many."""
        if not self._repeated and trio.current_time() - self._begun < OLD:
            return
        verb = f"STREAM.INFO.{self._bucket.stream}"
        info = await self._bucket.api.ask(self._what, verb, {"subjects_filter": self.subject})
        found = (info["state"].get("subjects") or {}).get(self.subject, 0)
        if found < self.count:
            text = f"{self.count - found} of {self.count} chunks that were sent are gone"
            raise ChunkMissing(f"{self._what}: {text}")
        if found > self.count:
            text = f"{found} chunks are stored where {self.count} were sent"
            raise ServerRefused(self._what, 0, text)

    # -- one attempt ------------------------------------------------------------------------------

    async def _attempt(self, timeout: float) -> None:
        todo = [chunk for chunk in self._window if not chunk.sequence]
        await self._bucket.still(self.identity, timeout)
        self.sent = True
        answers = await self._session.exchange(self._requests(todo), timeout=timeout)
        errors = self._note(todo, answers)
        if errors:
            self._repeated = True
            if any(isinstance(error, NoResponders) for error in errors):
                # Either there is no leader for now, or no stream any more.
                await self._bucket.refresh()
            raise next((e for e in errors if not is_transient(e)), errors[0])
        await self._put_in_order()

    def _requests(self, chunks: Sequence[_Chunk], *, answered: bool = True) -> list[Request]:
        return [
            Request(self.subject, chunk.data, {MESSAGE_ID: chunk.message_id}, answered=answered)
            for chunk in chunks
        ]

    def _note(self, chunks: Sequence[_Chunk], answers: Sequence[Answer]) -> list[NatsfsError]:
        """Note the sequences in *answers* and return the errors."""
        errors: list[NatsfsError] = []
        for chunk, answer in zip(chunks, answers, strict=True):
            try:
                if isinstance(answer, NatsfsError):
                    raise answer
                data = answer[0].data
                chunk.sequence = parse_puback(self._what, data, domain=self.domain).sequence
            except NatsfsError as error:
                errors.append(error)
                if isinstance(error, ServerRefused) and error.err_code == IN_PROCESS:
                    self._give_up_id(chunk)
        return errors

    def _give_up_id(self, chunk: _Chunk) -> None:
        """If *chunk* has been on its way for too long, let it go under another id.  Should it
        arrive after all, `check` finds one too many."""
        now = trio.current_time()
        chunk.in_process_since = min(chunk.in_process_since, now)
        if now - chunk.in_process_since > ON_ITS_WAY * self._bucket.api.timeout:
            self._rename(chunk)

    def _rename(self, chunk: _Chunk) -> None:
        chunk.message_id, chunk.sequence = f"{self._nuid}.{new_nuid()}", 0
        chunk.in_process_since = math.inf

    async def _put_in_order(self) -> None:
        """Delete the chunks that were stored before one of their predecessors.

        Errors: `RequestTimeout`, which makes `persist` send them again, if there are any.
        """
        early = list(_early(self._window, self.placed.last))
        verb = f"STREAM.MSG.DELETE.{self._bucket.stream}"
        for chunk in early:
            try:
                wanted = {"seq": chunk.sequence, "no_erase": True}
                await self._bucket.change(self.identity, self._what, verb, wanted)
            except NotFoundError:
                log.debug("chunk %d was deleted by an attempt before", chunk.sequence)
            # The old id would be answered with the old sequence.
            self._rename(chunk)
        if early:
            self._repeated = True
            raise RequestTimeout(f"{self._what}: {len(early)} chunks were stored out of order")

    def _empty(self) -> None:
        for chunk in self._window:
            self.placed.add(chunk.sequence, len(chunk.data))
        self._window, self.waiting = [], 0


def _early(chunks: Sequence[_Chunk], last: int) -> Iterator[_Chunk]:
    """The chunks from the first on whose sequence is not above all before it."""
    for index, chunk in enumerate(chunks):
        if chunk.sequence <= last:
            yield from chunks[index:]
            return
        last = chunk.sequence
