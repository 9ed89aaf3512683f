"""The journal: what programs wrote and JetStream has not acknowledged, on local disk (W7, W8).

A *run* is a directory of one mounted bucket's own, locked for as long as its process lives.  It has
the spools of files, and a log in segments of fixed size, which are used again and again: bytes that
stream through a mount cost a copy into the page cache, 0.06 ms for 1 MiB, and next to nothing on
disk.  What is in the page cache survives the death of the process; `sync` makes it survive that of
the machine.

An *entry* is one file that is not saved.  A segment is kept while an entry needs a record in it.

Nothing here raises because of the disk: an entry that could not be written to is `broken`, one
warning says why, and its file goes on in memory or in its spool as if there were no journal.

Concurrency: everything is synchronous and atomic, but for `sync`.
"""

from __future__ import annotations

import errno
import logging
from contextlib import suppress
from pathlib import Path

import trio

from natsfs.data.coverage import Coverage
from natsfs.data.disk import Disk, Reliable, Watched
from natsfs.data.log import Log, Segment
from natsfs.data.records import (
    CHANGES,
    RECORD_BYTES,
    Kind,
    State,
    altered,
    render_live,
    render_state,
)
from natsfs.data.runs import Run
from natsfs.data.spool import Spool
from natsfs.errors import CacheError, NatsfsError
from natsfs.store.primitives import Data
from natsfs.threads import in_thread

log = logging.getLogger(__name__)

#: Bytes of records after which an entry is written anew: a program may write one place for ever.
LONGEST = 8 * 1024 * 1024

#: Bytes that are written at once: what the kernel sends at most.
PIECE = 1024 * 1024

#: Entries in a segment that are worth moving to have it free.
FEW = 16


class Journal:
    """The journal of one mounted bucket; nothing is on disk before it is needed.

    *timeout* is how many seconds `sync` may take.  While *disk* is known to hang it is left alone:
    whoever waits for it waits for all.
    """

    def __init__(self, run: Run, timeout: float, disk: Disk = Reliable()) -> None:  # noqa: B008
        self._run = run
        self.disk = Watched(disk)
        self._timeout = timeout
        self._entries: dict[int, Entry] = {}
        self._last_entry = 0
        self.log = Log(self._made, self._move, self.disk.hangs)
        self._synced = 0
        self._syncing = trio.Lock()
        self._failing = False
        self._directory: Path | None = None
        #: Whether the disk may not know of files in it.
        self._new_names = False
        #: Entries with spools that the disk may not have.
        self._unsynced: set[Entry] = set()

    def __len__(self) -> int:
        """How many files are in it."""
        return len(self._entries)

    def left(self) -> list[State]:
        """The files in it, those first that were written first."""
        return [entry.state for entry in self._entries.values() if entry.state is not None]

    @property
    def parent(self) -> Path:
        """Where this run and those of other processes lie."""
        return self._run.parent

    def former(self) -> list[Path]:
        """`Run.former`."""
        return self._run.former()

    def spool(self, base_size: int) -> Spool:
        """A spool that survives the process or, where there can be no journal, one that does not.

        Errors: those of `Spool`."""
        self._check_answering()
        try:
            return Spool(self._made(), base_size, hangs=self.disk.hangs)
        except CacheError as error:
            self.failed(error)
            place = self._run.cache / "spool"
            return Spool(place, base_size, lasting=False, hangs=self.disk.hangs)

    def adopted(self, path: Path, coverage: Coverage) -> Spool:
        """`Spool.taken_over`."""
        return Spool.taken_over(self._made(), path, coverage)

    def entry(self) -> Entry:
        """An entry, of which nothing is written yet."""
        self._last_entry += 1
        return Entry(self, self._last_entry)

    def close(self) -> int:
        """The mount is over.  What is in the journal stays; returns how many files that is."""
        if self.disk.hangs():
            return len(self._entries)  # what else is there goes with the next mount
        for segment in self.log.unsynced if self._entries else ():
            with suppress(OSError):
                segment.sync()
        self._run.leave(keep=bool(self._entries))
        return len(self._entries)

    # -- for entries ------------------------------------------------------------------------------

    def append(self, entry: Entry, kind: Kind, offset: int, body: Data) -> Segment:
        """Write a record.  Errors: those of `Log.append`, `CacheError` (the disk hangs)."""
        self._check_answering()
        segment = self.log.append(kind, entry.number, entry.count, offset, body)
        self._failing = False
        return segment

    def begun(self, entry: Entry) -> None:
        self._entries[entry.number] = entry

    def ended(self, entry: Entry) -> None:
        self._entries.pop(entry.number, None)
        self._unsynced.discard(entry)

    def changed(self, entry: Entry) -> None:
        """The spool of *entry* has something that the disk may not have."""
        if entry.spool is not None:
            self._unsynced.add(entry)

    def failed(self, error: Exception) -> None:
        """The disk refused something."""
        if not self._failing:
            log.warning(
                "the journal cannot be written: %s; until it can, what is not stored yet would be "
                "lost with this process",
                error,
            )
        self._failing = True

    def _check_answering(self) -> None:
        if self.disk.hangs():
            raise CacheError("the local disk does not answer")

    # -- disk -------------------------------------------------------------------------------------

    async def sync(self, entry: Entry) -> bool:
        """Wait until the disk has *entry*, or say that it has not got all of it.

        Callers that come while others wait share the next turn.
        """
        if self.disk.hangs():
            return False
        wanted = self.log.sequence
        with trio.move_on_after(self._timeout) as patience:
            async with self._syncing:
                if not entry.broken and self._synced < wanted:
                    await self._sync(entry)
        if patience.cancelled_caught:
            self.failed(OSError(errno.ETIMEDOUT, "the disk does not answer"))
        return not entry.broken and self._synced >= wanted

    async def _sync(self, entry: Entry) -> None:
        log, reached = self.log, self.log.sequence
        segments, log.unsynced = log.unsynced, set()
        entries, self._unsynced = self._unsynced, set()
        spools = [found.spool for found in entries]
        names, self._new_names = self._new_names, False

        def work() -> None:
            for spool in spools:
                if spool is not None:
                    spool.sync()
            for segment in segments:
                segment.sync()
            if names:
                self._run.sync()

        log.syncing = True
        try:
            await in_thread(work, abandon=True)
        except BaseException as error:
            # Also when nobody waits any more: the next turn must not take them for synced.
            log.unsynced |= segments
            self._unsynced |= entries
            self._new_names = True
            if not isinstance(error, OSError):
                raise
            entry.broken = True
            self.failed(error)
            with suppress(NatsfsError):
                self._made()
        else:
            self._synced, log.syncing = reached, False

    def _move(self) -> None:
        """A segment is full.  The next one begins with who is alive, and who had little there."""
        live = render_live(self._entries)
        with suppress(OSError, NatsfsError):
            self.log.append(Kind.LIVE, 0, 0, self._last_entry, live)
        for entry in list(self._entries.values()):
            entry.move_state()

    def _made(self) -> Path:
        """The directory of the run, for a new file in it.  If somebody removed it, what was in it
        has to be told again.

        Errors: those of `Run.made`."""
        directory = self._run.made()
        if directory != self._directory and self._directory is not None:
            self.log.begin_anew()
            for entry in self._entries.values():
                entry.broken = True
        self._directory, self._new_names = directory, True
        return directory


class Entry:
    """One file that is not saved.

    *broken* says that the journal has not got all of it.
    """

    def __init__(self, journal: Journal, number: int) -> None:
        self.number = number
        self.count = 0
        self.broken = False
        self.spool: Spool | None = None
        self.state: State | None = None
        #: How often it became something else.
        self.alterations = 0
        self._journal = journal
        #: Where its state is.
        self._home: Segment | None = None
        #: Where changes of it are, how far they reach in the file, and the count of the last one.
        self._bytes: dict[Segment, tuple[int, int]] = {}
        self._began = 0
        self._forgotten = 0
        self._written = 0

    def begin(self, state: State, spool: Spool | None = None) -> None:
        """It is *state*, with the bytes in *spool*; those in memory are to be written next."""
        self.spool = spool
        self._journal.changed(self)
        self.count, self.broken, self._written = 0, False, 0
        self.alterations += 1
        self._began = self._forgotten = 0
        left, self._bytes = list(self._bytes), {}
        self._journal.begun(self)
        if self._tell(Kind.BEGIN, state):
            self._began = self._journal.log.sequence
        for segment in left:
            self._journal.log.release(segment)

    def change(self, state: State) -> None:
        """It is *state* in all but the content that it began with."""
        self._tell(Kind.STATE, state)

    def alter(self, state: State) -> None:
        """It is *state*, and so another file than any that was stored."""
        self.alterations += 1
        self.change(state.but(nuids=()))

    def write(self, offset: int, data: Data) -> None:
        """*data* was written at *offset*."""
        for start in range(0, len(data), PIECE):
            piece = memoryview(data)[start : start + PIECE]
            self._change(Kind.WRITE, offset + start, piece, offset + start + len(piece))

    def hold(self, start: int, stop: int) -> None:
        """The spool holds [*start*, *stop*)."""
        self._journal.changed(self)
        self._change(Kind.HOLD, start, (stop - start).to_bytes(8, "little"), stop)

    def overwrite(self) -> None:
        """The spool holds other bytes where it held some already."""
        self._journal.changed(self)
        if self.state is not None and (self.closed or self.state.nuids):
            self.change(altered(self.state))
        self.alterations += 1

    def cut(self, size: int) -> None:
        """The size is *size*."""
        self._change(Kind.CUT, size, b"", size)

    def can_forget(self, stop: int) -> bool:
        """Whether a segment can go because the bytes before *stop* are stored."""
        return any(reach <= stop for reach, _ in self._bytes.values())

    def forget(self, state: State) -> None:
        """It is *state*, which says that more bytes are stored: these are not needed here."""
        gone = {s: count for s, (reach, count) in self._bytes.items() if reach <= state.sent}
        forgotten = max(gone.values(), default=0)
        if not self._tell(Kind.STATE, state.but(forgotten=forgotten)):
            return
        for segment in gone:
            del self._bytes[segment]
            self._journal.log.release(segment)

    @property
    def closed(self) -> bool:
        """Whether its program was told that the disk has it."""
        return self.state is not None and self.state.closed

    @property
    def long(self) -> bool:
        """Whether it should begin anew, because there is more of it than needs to be."""
        return self._written > LONGEST

    def end(self) -> None:
        """There is nothing to be saved any more.  Ending again does nothing."""
        if self.state is None:
            return
        self.state, self.spool = None, None
        self._append(Kind.END, 0, b"")
        self._journal.ended(self)
        for segment in [*self._bytes, *([self._home] if self._home is not None else [])]:
            self._journal.log.release(segment)
        self._home, self._bytes = None, {}

    def move_state(self) -> None:
        """A segment is full.  The one with the state can go sooner if the state moves, unless there
        is more in it, or others need it for long anyway."""
        home = self._home
        if home is None or self.state is None or home in self._bytes:
            return
        if home.needed <= FEW:
            self._tell(Kind.STATE, self.state)

    async def sync(self) -> bool:
        """`Journal.sync`."""
        return await self._journal.sync(self)

    def _tell(self, kind: Kind, state: State) -> bool:
        self._forgotten = max(self._forgotten, state.forgotten)
        state = state.but(began=self._began, forgotten=self._forgotten)
        self.state = state
        segment = self._append(kind, 0, render_state(state))
        if segment is None:
            return False
        self._journal.log.need(segment)
        left, self._home = self._home, segment
        if left is not None:
            self._journal.log.release(left)
        return True

    def _change(self, kind: Kind, offset: int, body: Data, reach: int) -> None:
        assert kind in CHANGES
        self.count += 1
        self.alterations += 1
        if self.state is not None and (self.closed or self.state.nuids):
            self.state = altered(self.state)
        segment = self._append(kind, offset, body)
        if segment is None:
            return
        self._written += RECORD_BYTES + len(body)
        if segment not in self._bytes:
            self._journal.log.need(segment)
        self._bytes[segment] = max(reach, self._bytes.get(segment, (0, 0))[0]), self.count

    def _append(self, kind: Kind, offset: int, body: Data) -> Segment | None:
        try:
            return self._journal.append(self, kind, offset, body)
        except (OSError, NatsfsError, MemoryError) as error:
            self.broken = True
            self._journal.failed(error)
            return None
