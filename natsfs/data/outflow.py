"""Bytes on their way into the bucket while a program writes them, one after the other (W4).

What is acknowledged is read back from the bucket; the rest is in memory, and bounded: a program
that is faster than the server waits in `room`.  Only appending is possible.  For anything else the
content moves into a spool (`pour`), whose base is what has been stored by then.

When the server refuses bytes or is away for too long, the write that needs room fails with that
error, and those already taken stay: the next write, or the commit, sends them again.

Concurrency: a task feeds the draft as long as there is something to feed.  It holds `_lock`, and so
does the commit.  Everything that is not async is atomic.
"""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial

import trio

from natsfs.data.coverage import Base, Held
from natsfs.data.memory import Memory
from natsfs.data.spool import Spool
from natsfs.errors import NoSpaceError, QuotaExceededError
from natsfs.metrics import Metrics
from natsfs.store.base import ObjectStore
from natsfs.store.model import ObjectInfo
from natsfs.store.primitives import Data, Draft, Place

log = logging.getLogger(__name__)

#: Bytes of one file that wait in memory: a window of the store on its way, and the next.
BACKLOG = 8 * 1024 * 1024

#: Bytes for which the feeder is woken: a quarter of the store's window, of which nothing leaves
#: before it is full anyway.
STEP = 1024 * 1024

#: Small writes are put together until they are as large as a chunk; larger ones than half of that
#: are not copied.
PIECE = 128 * 1024

#: Bytes that may be skipped and are sent as zeros.
GAP = 1024 * 1024

_ZEROS = memoryview(bytes(GAP))


@dataclass(slots=True)
class _Piece:
    """The bytes from *start* on.  An *open* one grows."""

    start: int
    data: bytes | bytearray | memoryview
    open: bool

    @property
    def stop(self) -> int:
        return self.start + len(self.data)


class Outflows:
    """What the files of one mount that are being written share.

    *nursery* is where they are fed from.  *relieve* frees space in the bucket and says whether it
    could; *discard* is told of a nuid whose chunks nobody needs.
    """

    def __init__(
        self,
        store: ObjectStore,
        nursery: trio.Nursery,
        relieve: Callable[[], Awaitable[int]],
        discard: Callable[[str], None],
        metrics: Metrics | None = None,
    ) -> None:
        self.metrics = metrics or Metrics()
        self.memory = Memory()
        self.store = store
        self.nursery = nursery
        self.relieve = relieve
        self.discard = discard
        self._begun: weakref.WeakSet[Outflow] = weakref.WeakSet()

    def begin(self, name: str) -> Outflow:
        """The content of an empty file, object *name* as far as messages say.

        Errors: `ReadOnlyError`.
        """
        outflow = Outflow(self, self.store.draft(name))
        self._begun.add(outflow)
        return outflow

    def hurry(self) -> None:
        """Have everything leave that waits for more, because memory is short."""
        for outflow in list(self._begun):
            outflow.hurry()


class Outflow:
    """The content of one file."""

    def __init__(self, shared: Outflows, draft: Draft) -> None:
        self._shared = shared
        self._memory = shared.memory
        self._draft = draft
        self._pieces: deque[_Piece] = deque()  # from the first on that is not all acknowledged
        self._size = 0
        self._given = 0  # the draft has the bytes up to here
        self._sealed = False
        self._committing = False
        self._ended = False
        self._kept = False
        self._feeding = False
        self._hurry = False
        self._failure: Exception | None = None
        self._lock = trio.Lock()
        self._progress = trio.Event()
        self._scope = trio.CancelScope()

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return self._size

    @property
    def nuid(self) -> str:
        """That of the version it will be."""
        return self._draft.nuid

    @property
    def acknowledged(self) -> int:
        """How many bytes from the start on have been stored."""
        return self._draft.acknowledged

    @property
    def sealed(self) -> bool:
        """Whether a commit has begun, after which nothing can be appended."""
        return self._sealed

    @property
    def committing(self) -> bool:
        """Whether a commit is under way."""
        return self._committing

    # -- writing ----------------------------------------------------------------------------------

    async def room(self) -> None:
        """Wait until more may be appended.  Whether it still may, is to be looked at again.

        Errors: what feeding has failed with since the last call (those of `Draft.write`).
        """
        while not self._sealed and not self._ended:
            self._raise_failure()
            # What does not fill a chunk cannot leave before the end.
            limit = PIECE if self._memory.full else BACKLOG
            if self._size - self._draft.acknowledged < limit:
                return
            self._hurry = self._memory.full
            self._feed_soon()
            await self._progress.wait()

    def fits(self, start: int) -> bool:
        """Whether bytes at *start* can be appended."""
        return not self._sealed and self._size <= start <= self._size + GAP

    def write(self, start: int, data: bytes | bytearray | memoryview) -> None:
        """Append *data*, which nobody may change any more, where it `fits`; a gap is zeros."""
        if start > self._size:
            self._append(_ZEROS[: start - self._size])
        if data:
            self._append(data)
        if self._size - self._given >= STEP:
            self._feed_soon()

    def hurry(self) -> None:
        """Send what waits until there is more of it."""
        if self._pieces and not self._sealed:
            self._hurry = True
            self._feed_soon()

    def extend(self, size: int) -> None:
        """Append zeros up to *size*, which `fits`."""
        self.write(size, b"")

    async def commit(self, name: str, place: Place) -> tuple[ObjectInfo, ...]:
        """`Draft.commit` of everything.  Nothing can be appended from here on.

        Errors: those of `Draft.commit`; it may be called again.
        """
        self._sealed = self._committing = True
        fed = self._feeding
        try:
            async with self._lock:
                if fed:
                    self._raise_failure()  # has just waited for it as long as one waits
                self._failure = None
                await self._feed(to_the_end=True)
                stored = await self._draft.commit(name, place)
        finally:
            self._committing = False
        self._ended = True
        self._forget(self._size)
        return stored

    # -- reading ----------------------------------------------------------------------------------

    def pieces(self, start: int, stop: int) -> list[Held | Base]:
        """`Spool.pieces`.  The base is what `read_stored` reads."""
        stop = min(stop, self._size)
        held_from = self._pieces[0].start if self._pieces else self._size
        found: list[Held | Base] = []
        if start < min(stop, held_from):
            found.append(Base(start, min(stop, held_from)))
        if max(start, held_from) < stop:
            found.append(Held(max(start, held_from), stop))
        return found

    def read(self, start: int, stop: int) -> bytes:
        """The bytes of a `Held` piece, or of a part of one."""
        return b"".join(
            bytes(piece.data[max(start - piece.start, 0) : stop - piece.start])
            for piece in self._pieces
            if piece.start < stop and start < piece.stop
        )

    async def read_stored(self, start: int, stop: int) -> bytes:
        """The bytes of a `Base` piece or a part of one.  Errors: those of `ObjectStore.read`."""
        return bytes(await self._shared.store.read(self._draft.stored(), start, stop))

    # -- the end ----------------------------------------------------------------------------------

    def stored(self) -> ObjectInfo | None:
        """What has been stored, to be the base of a spool."""
        info = self._draft.stored()
        return info if info.size else None

    def pour(self, spool: Spool) -> None:
        """Put everything behind `stored` into *spool*.  Errors: those of `Spool.write`."""
        for start, data in self.unsent():
            spool.write(start, data)

    def unsent(self) -> Iterator[tuple[int, Data]]:
        """Where bytes behind `stored` begin, and these."""
        begin = self._draft.acknowledged
        for piece in self._pieces:
            skip = max(begin - piece.start, 0)
            yield piece.start + skip, memoryview(piece.data)[skip:]

    def keep(self) -> None:
        """Let the chunks stay when this is closed: the journal needs them."""
        self._kept = True

    def let_go(self) -> None:
        """The journal does not need it any more; whoever has it closes it."""
        self._kept = False

    def drop(self) -> None:
        """Nobody needs it any more."""
        self.close()
        if self._kept:
            self._kept = False
            self._give_back()

    def close(self) -> None:
        """Forget everything, and have the chunks freed that nobody needs.  Closing again does
        nothing."""
        if self._ended:
            return
        self._sealed = self._ended = True
        self._scope.cancel()
        self._forget(self._size)
        if not self._kept:
            self._give_back()

    def _give_back(self) -> None:
        if self._draft.uncertain:
            log.info("whether version %s was stored is unknown: its chunks stay", self.nuid)
        elif self._draft.begun:
            self._shared.discard(self.nuid)

    # -- feeding ----------------------------------------------------------------------------------

    def _append(self, data: bytes | bytearray | memoryview) -> None:
        last = self._pieces[-1] if self._pieces else None
        if last is not None and last.open:
            assert isinstance(last.data, bytearray)
            last.data += data
            last.open = len(last.data) < PIECE
        elif len(data) > PIECE // 2:
            self._pieces.append(_Piece(self._size, data, open=False))
        else:
            self._pieces.append(_Piece(self._size, bytearray(data), open=True))
        self._size += len(data)
        self._memory.held += len(data)

    def _feed_soon(self) -> None:
        if not self._feeding:
            self._feeding, self._scope = True, trio.CancelScope()
            self._shared.nursery.start_soon(self._feed_once)

    async def _feed_once(self) -> None:
        try:
            with self._scope:
                async with self._lock:
                    await self._feed(to_the_end=False)
        except Exception as error:  # it belongs to those who write, not to the nursery
            self._failure = error
            log.debug("feeding version %s: %r", self.nuid, error)
        finally:
            self._feeding = False
            self._wake()

    async def _feed(self, *, to_the_end: bool) -> None:
        """Give the draft what there is; an open piece only if it must not wait."""
        while (piece := self._next()) is not None:
            if piece.open and not to_the_end and not self._hurry:
                break
            piece.open = False
            self._given = piece.stop
            await self._relieved(partial(self._draft.write, piece.data))
            self._shared.metrics.stored.inc(len(piece.data))
            self._forget(self._draft.acknowledged)
        if self._hurry:
            self._hurry = False
            await self._relieved(self._draft.flush)
            self._forget(self._draft.acknowledged)

    def _next(self) -> _Piece | None:
        """The first piece that the draft does not have."""
        for piece in self._pieces:
            if piece.start >= self._given:
                return piece
        return None

    async def _relieved(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do *work*, and finish it once space has been freed if it was refused for want of that."""
        try:
            await work()
        except (NoSpaceError, QuotaExceededError):
            if not await self._shared.relieve():
                raise
            await self._draft.write(b"")

    def _forget(self, stop: int) -> None:
        """Take the pieces before *stop* out of memory."""
        while self._pieces and self._pieces[0].stop <= stop:
            self._memory.held -= len(self._pieces.popleft().data)
        self._wake()

    def _wake(self) -> None:
        progress, self._progress = self._progress, trio.Event()
        progress.set()

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
