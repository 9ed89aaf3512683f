"""Checks a version against its digest while a handle reads it: the only module that hashes reads.

SHA-256 needs the bytes in order and without gaps; the kernel sends several requests at a time, and
they end in any order.  So a read announces itself when it arrives (`expect`), in the order of
arrival, and hands in its bytes when it has them (`feed`); what comes early waits for its turn.
Reads that repeat bytes or jump are no part of the check and do not disturb it; one that starts at 0
begins a new check if the last one broke off.  The read that has the last byte answers for the whole
version: it waits for those before it, all of which are under way.  Any other might be what the
kernel reads ahead, and an error on that reaches nobody.

Concurrency: large pieces are hashed in a thread, one at a time for each handle, without keeping the
reader waiting: only the read that completes the version waits for the hash, and a reader that is
`BACKLOG` ahead of it.  Everything else happens between two awaits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial

import trio

from natsfs.errors import DamageKnown, DigestMismatch
from natsfs.store.base import check_digest
from natsfs.store.model import ObjectInfo
from natsfs.store.primitives import Data
from natsfs.threads import in_thread_or_here

#: Bytes that are hashed on the spot: they take 36 µs, the way to a thread and back takes 92 µs.
INLINE = 64 * 1024

#: Bytes that go to a thread together.  At 0.5 ms for a MiB the way would cost a fifth of that.
AT_ONCE = 2 * 1024 * 1024

#: Bytes that may wait for the hash: 9 ms of it, a window of read-ahead.
BACKLOG = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Claim:
    """The place of one read in a check: it is to bring [*start*, *stop*), after *skip* bytes."""

    run: _Run
    start: int
    stop: int
    skip: int


class Verifier:
    """The check of one handle on the version *info*.  Hashing is done in *nursery*."""

    def __init__(self, info: ObjectInfo, nursery: trio.Nursery) -> None:
        self._info = info
        self._nursery = nursery
        self._run: _Run | None = None
        self._verified = not info.digest
        self._mismatch: DigestMismatch | None = None

    def expect(self, offset: int, stop: int) -> Claim | None:
        """Announce a read that has arrived; None if it is no part of a check.

        Errors: `DamageKnown`, if the read has the last byte of a version whose check has failed and
        is no part of another.  An error on what the kernel reads ahead reaches nobody; it then
        asks for that once more, page by page.
        """
        claim = None if self._verified else self._claim(offset, stop)
        if claim is None and self._mismatch is not None and stop >= self._info.size:
            raise DamageKnown(str(self._mismatch))
        return claim

    def _claim(self, offset: int, stop: int) -> Claim | None:
        if offset == 0 and (self._run is None or self._run.broken):
            self._run = _Run(self._info.size)
        run = self._run
        if run is None or run.broken or not offset <= run.expected < stop:
            return None
        claim = Claim(run, run.expected, stop, run.expected - offset)
        run.expected = stop
        return claim

    def abandon(self, claim: Claim | None) -> None:
        """The read has failed or was cancelled."""
        if claim is not None:
            claim.run.give_up()

    async def feed(self, claim: Claim | None, data: Data) -> None:
        """Hand in what the read has brought.

        Errors: `DigestMismatch`, if it has the last byte of a version that was read in full and is
        not what its digest promises.
        """
        if claim is None or claim.run.broken:
            return
        run = claim.run
        run.take(claim.start, memoryview(data)[claim.skip :])
        last = claim.stop == self._info.size
        self._hash(run, AT_ONCE)
        if last:
            await run.settled.wait()
            self._hash(run, 0)
        if last:
            await run.idle.wait()
        while run.waiting > BACKLOG:
            await run.progress.wait()
        if last and not run.broken:
            run.give_up()  # a second reading begins a new check, or none
            try:
                check_digest(self._info, run.digest.digest())
            except DigestMismatch as error:
                if self._mismatch is not None:
                    raise DamageKnown(str(error)) from error
                self._mismatch = error
                raise
            self._verified, self._mismatch = True, None

    def _hash(self, run: _Run, worth: int) -> None:
        """Hash what waits, in a thread if that is *worth* so many bytes; a little right here."""
        if run.hashing:
            return
        if run.waiting <= INLINE:
            run.hash_now()
        elif run.waiting >= worth:
            run.start()
            self._nursery.start_soon(run.hash_in_thread)


class _Run:
    """One reading from the start of *size* bytes.  *settled* is set when all have arrived, or when
    it is *broken*."""

    def __init__(self, size: int) -> None:
        self.settled = trio.Event()
        self._size = size
        self.expected = 0  # up to here reads have arrived
        self.reached = 0  # up to here their bytes have
        self.waiting = 0  # so many of these are not hashed yet
        self.broken = False
        self.hashing = False
        self.idle = trio.Event()
        self.progress = trio.Event()
        self.digest = hashlib.sha256()
        self._early: dict[int, memoryview] = {}
        self._queue: list[memoryview] = []

    def take(self, start: int, piece: memoryview) -> None:
        self._early[start] = piece
        while (piece_in_turn := self._early.pop(self.reached, None)) is not None:
            self._queue.append(piece_in_turn)
            self.reached += len(piece_in_turn)
            self.waiting += len(piece_in_turn)
        if self.reached == self._size:
            self.settled.set()

    def give_up(self) -> None:
        self.broken = True
        self.settled.set()
        self.idle.set()
        self._early.clear()
        self._queue.clear()
        self._advance(0)

    def start(self) -> None:
        self.hashing = True
        self.idle = trio.Event()

    def hash_now(self) -> None:
        pieces, self._queue = self._queue, []
        self._update(pieces)
        self._advance(0)
        self.idle.set()

    async def hash_in_thread(self) -> None:
        try:
            while self._queue:
                pieces, self._queue = self._queue, []
                await in_thread_or_here(partial(self._update, pieces))
                self._advance(sum(map(len, self._queue)))
        except BaseException:
            self.give_up()
            raise
        finally:
            self.hashing = False
            self.idle.set()

    def _advance(self, waiting: int) -> None:
        """So many bytes are left to be hashed."""
        self.waiting = waiting
        progress, self.progress = self.progress, trio.Event()
        progress.set()

    def _update(self, pieces: list[memoryview]) -> None:
        for piece in pieces:
            self.digest.update(piece)
