"""What becomes of files that are not saved when their last handle goes: they wait, and nothing is
thrown away in silence (W7).

Some wait because saving them failed; they are tried again, now and then, until the mount ends.
Some were written after their last close, through a mapping: nobody waits for these.
With *writeback* (W8) all do: close(2) returns when the disk has the bytes, and they are saved one
after the other, in the order in which they were closed.

Concurrency: one task saves what waits; `settle` and `finish` may do so at the same time, as every
commit has the file's lock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import trio

from natsfs.data.outflow import Outflow
from natsfs.data.spool import Spool
from natsfs.errors import (
    ConflictError,
    ConnectionLost,
    NatsfsError,
    NoSpaceError,
    QuotaExceededError,
    ReadOnlyError,
    ReplacedBucket,
    RequestTimeout,
    StaleNode,
    StaleVersion,
)
from natsfs.filesystem.commits import Commits
from natsfs.filesystem.journaling import Journaling, is_named
from natsfs.filesystem.state import Mounted
from natsfs.handles import OpenFile, is_open_for_writing
from natsfs.tree.nodes import Directory, EntryChange, Leaf, Node, NodeChange, is_below

log = logging.getLogger(__name__)

#: Seconds between attempts to save what could not be saved when it was closed.
RETRY = 5.0

#: Bytes that may wait with *writeback* before close(2) waits, too: some seconds of a fast server,
#: and the most that is lost with the disk of this host.
MOST_BYTES = 1024**3

#: Files that may wait: each of them keeps some KiB of memory.
MOST_FILES = 10_000

#: Seconds that a closed file is left alone with *writeback*: rsync, tar and editors give it its
#: attributes and its name next, which cost nothing until it is stored, and as much as all else
#: afterwards.  So short that nobody who waits for it elsewhere notices.
LINGER = 0.1

#: Why something is left of which the bucket is gone, though there is one of its name.
FORMER = "was written to an earlier bucket of this name"

#: What would prevent the saving of any other file as well, and what of any other that is as large:
#: that stops what has an order (W8).
_AWAY = (RequestTimeout, ConnectionLost)
_FULL = (NoSpaceError, QuotaExceededError)


@dataclass(frozen=True, slots=True)
class UnsavedFile:
    """A file that JetStream does not have, or not as it is: *stored* of its *size* bytes are there,
    None where nobody knows.  *state* is "open", "storing" or "waiting" (closed)."""

    name: str
    size: int
    stored: int | None
    state: str


def described(file: OpenFile) -> UnsavedFile:
    """*file* for those who look."""
    stored = file.content.acknowledged if isinstance(file.content, Outflow) else None
    state = "storing" if file.lock.locked() else "open" if file.handles else "waiting"
    return UnsavedFile(file.leaf.heir.object_name, file.size, stored, state)


class Unsaved:
    """The files that wait."""

    def __init__(self, mounted: Mounted, commits: Commits, journaling: Journaling) -> None:
        self._m = mounted
        self._commits = commits
        self._journaling = journaling
        #: Those to be tried at once, in this order, and how many bytes they have.
        self._due: dict[OpenFile, int] = {}
        self._due_bytes = 0
        #: When those are to be tried that are left alone for a while.
        self._lingering: dict[OpenFile, float] = {}
        self._wake = trio.Event()
        #: Held by whoever saves what is due, so that nothing is overtaken.
        self._saving = trio.Lock()

    # -- the end of a file ------------------------------------------------------------------------

    async def close(self, file: OpenFile) -> None:
        """A descriptor that may write is being closed.  Errors: those of `Commits.commit`."""
        if not (self._m.writeback and await self._defer(file)):
            await self._commit(file, closed=True)

    async def sync(self, file: OpenFile, *, finished: bool = False) -> None:
        """Commit *file*, and with *writeback*, before it, what was closed before (W8).  *finished*
        says that it need not be if a program has begun to write it again meanwhile.

        Errors: of `commit`, also what prevented that of an earlier file, if that is the server: it
        would prevent this one after another time-out, or be late for the order.
        """
        async with self._saving:
            for other in list(self._due) if self._m.writeback else ():
                error = await self._try(other) if other is not file else None
                if error is not None:
                    await self._keep(file, closed=False)
                    raise error
        await self._commit(file, closed=False, finished=finished)

    async def before_change(self, file: OpenFile) -> None:
        """A large file is written again before what was closed is stored: what is on its way has to
        arrive whole (W2), and what a close has promised to store comes first (W8).

        Errors: those of `Commits.commit`, with a promise."""
        if not isinstance(file.content, Spool | Outflow) or not self._journaling.has_promised(file):
            return
        if self._m.writeback:
            await self.sync(file)
        elif file.lock.locked():
            async with file.lock:
                pass

    async def before_move(self, node: Node) -> None:
        """*node* is about to get another name.  Files that were closed and whose old version the
        bucket has are stored first: the version would get the name, and if this process or the
        connection died then the bytes would be stored under the old one.

        Errors: of `sync`."""
        if isinstance(node, Directory):
            known = self._all_waiting(self._journaling.files())
            files = [file for file in known if is_below(file.leaf, node)]
        else:
            files = [node.file] if isinstance(node, Leaf) and node.file is not None else []
        for file in files:
            outdated = file.dirty and file.leaf.info is not None
            if outdated and not self._commits.is_unfinished(file):
                await self.sync(file, finished=True)
                self._commits.let_go(file)

    async def release(self, file: OpenFile) -> None:
        """The last descriptor of a handle that may write is gone, and the handle with it: what no
        close has saved is saved soon.  Only when too much waits for that, this waits, too."""
        if not file.dirty or not is_named(file) or is_open_for_writing(file):
            return
        closed = self._journaling.has_promised(file)
        if self._m.read_only is None:
            self._journaling.closed(file)
        if file in self._due and closed:
            return
        if self._is_full():
            await self._commit_or_keep(file)
        else:
            self.take(file)

    def take(self, file: OpenFile) -> None:
        """*file*, which nobody has open for writing, is to be saved."""
        self._commits.waiting.add(file)
        self._hurry(file)

    async def _commit(self, file: OpenFile, *, closed: bool, finished: bool = False) -> None:
        self._take_out(file)
        try:
            await self._commits.commit(file, closed=finished)
        except ReplacedBucket:
            await self._keep(file, closed=True)
            self._part_with(file)
            raise
        except NatsfsError as error:
            # The program hears that it failed; what it wrote stays, and is tried again.
            if not isinstance(error, ReadOnlyError | ConflictError):
                await self._keep(file, closed=closed)
            raise

    async def _keep(self, file: OpenFile, *, closed: bool) -> None:
        """Let the disk have *file*, which stays closed if it was."""
        closed = closed or (file.entry is not None and file.entry.closed)
        await self._journaling.kept(file, closed=closed)

    async def _defer(self, file: OpenFile) -> bool:
        """Whether *file* can be saved later, because the disk has it."""
        if not file.dirty or not is_named(file):
            return True
        if file.lock.locked() or self._is_full():
            return False
        if self._m.read_only is not None or not await self._journaling.kept(file, closed=True):
            return False
        self._hurry(file)
        self._lingering[file] = trio.current_time() + LINGER
        return True

    def _is_full(self) -> bool:
        files = max(len(self._due), len(self._commits.waiting))
        return files >= MOST_FILES or self._due_bytes > MOST_BYTES

    def _hurry(self, file: OpenFile) -> None:
        self._take_out(file)
        self._due[file] = file.size
        self._due_bytes += file.size
        self._wake.set()

    def _take_out(self, file: OpenFile) -> None:
        self._due_bytes -= self._due.pop(file, 0)
        self._lingering.pop(file, None)

    # -- saving what waits ------------------------------------------------------------------------

    async def run(self) -> None:
        """Save what waits, until cancelled."""
        retry_at = trio.current_time() + RETRY
        while True:
            with trio.move_on_at(retry_at):
                await self._wake.wait()
            self._wake = trio.Event()
            while self._due:
                await trio.sleep_until(self._lingering.get(next(iter(self._due)), 0.0))
                async with self._saving:
                    if self._due and await self._try(next(iter(self._due))) is not None:
                        break
            if trio.current_time() >= retry_at:
                async with self._saving:
                    await self._try_all()
                retry_at = trio.current_time() + RETRY

    async def _try_all(self) -> None:
        for file in self._all_waiting():
            if await self._try(file) is not None:
                break

    async def _try(self, file: OpenFile) -> NatsfsError | None:
        """Save *file*.  Gives the error if the server is what prevents it: what was closed after it
        then has to wait, too."""
        if self._has_gone(file):
            return None
        in_order = file in self._due
        self._take_out(file)
        if is_open_for_writing(file):
            return None  # its close comes here again, and until then it may be half written
        error = await self._commit_or_keep(file)
        self._commits.let_go(file)
        if not isinstance(error, (*_AWAY, *_FULL) if self._m.writeback else _AWAY):
            return None
        if in_order and file not in self._due:
            self._due = {file: file.size, **self._due}
            self._due_bytes += file.size
        return error

    async def finish(self, files: list[OpenFile]) -> int:
        """Commit *files* and everything that waits because the mount ends; return how many failed.

        Cancelling it leaves what is not saved in the journal.
        """
        for file in self._all_waiting(files):
            await self._commit_or_keep(file, ends=True)
            self._commits.let_go(file)
        return len(self._commits.waiting)

    def _has_gone(self, file: OpenFile) -> bool:
        """Whether *file* has lost its name while it waited: it goes with its last handle (W5)."""
        if is_named(file):
            return False
        self._take_out(file)
        self._commits.waiting.discard(file)
        self._commits.let_go(file)
        return True

    def abandon(self, files: list[OpenFile]) -> None:
        """Forget what *files* and those that wait have on local disk: there is no bucket for it."""
        for file in self._all_waiting(files):
            if file.content is not None:
                file.content.close()
            self._journaling.ended(file)
        self._commits.abandon()
        self._due, self._due_bytes, self._lingering = {}, 0, {}

    def bytes(self, files: Callable[[], list[OpenFile]] = list) -> int:
        """How many bytes JetStream has not acknowledged, in *files* and in those that wait."""
        return sum(file.size for file in self.all(files()))

    def all(self, files: list[OpenFile]) -> list[OpenFile]:
        """Those of *files* that are not saved, and those that wait, which are closed."""
        return [file for file in self._all_waiting(files) if file.dirty and is_named(file)]

    def _all_waiting(self, files: Iterable[OpenFile] = ()) -> list[OpenFile]:
        """Those that are to be tried at once, *files*, and those that wait, each of them once."""
        return list(dict.fromkeys((*self._due, *files, *self._commits.waiting)))

    def stored_bytes(self) -> int:
        """How many bytes of those that wait JetStream has acknowledged already."""
        contents = (file.content for file in (*self._commits.waiting, *self._due))
        return sum(c.acknowledged for c in contents if isinstance(c, Outflow))

    async def _commit_or_keep(self, file: OpenFile, *, ends: bool = False) -> NatsfsError | None:
        """Commit *file*; what prevents it is logged and given back.  *ends* says that its program
        cannot go on, as the mount ends."""
        await self._m.journal.disk.ready()
        promised = file.entry is not None and file.entry.closed
        try:
            await self._commits.commit(file, closed=not ends)
        except ReadOnlyError as error:
            self._give_up(file, str(error), promised=promised)
            return error
        except ReplacedBucket as error:
            await self._keep(file, closed=True)
            self._part_with(file)
            return error
        except ConflictError as error:
            log.error("%s", error)
            if promised:
                self._set_aside(file, str(error))
            return error
        except NatsfsError as error:
            if promised and _is_final(error):
                self._give_up(file, f"what the bucket had of it is gone: {error}", promised=True)
                return error
            self._tell(file, error)
            self._commits.waiting.add(file)
            # A program may have opened it meanwhile, and written half of what it is to be.
            await self._keep(file, closed=ends or not is_open_for_writing(file))
            return error
        return None

    def _tell(self, file: OpenFile, error: NatsfsError) -> None:
        if not file.troubled and is_named(file):  # it may have lost its name meanwhile
            file.troubled = True
            name = file.leaf.heir.object_name
            log.error(
                "%r is not saved yet and will be tried again: %s",
                name,
                error,
                extra={"object": name},
            )

    def _give_up(self, file: OpenFile, trouble: str, *, promised: bool) -> None:
        """The bucket was sealed or has gone, or the bytes of the file that it had: what was written
        can never be stored.  The tree goes back to what the bucket holds, instead of showing what
        is in no bucket."""
        leaf = file.leaf
        if promised:
            self._set_aside(file, trouble)
        elif is_named(file):
            name = leaf.heir.object_name
            log.error(
                "%r cannot be saved, its changes are dropped: %s",
                name,
                trouble,
                extra={"object": name},
            )
        file.committed = file.changes
        self._commits.waiting.discard(file)
        file.pages_true = False
        if leaf.info is not None:
            leaf.attributes = None
            self._m.notifier.changed([NodeChange(leaf)])
        elif leaf.parent is not None:
            parent, name_there = leaf.parent, leaf.name
            changes = self._m.namespace.detach(leaf)
            self._m.notifier.changed([EntryChange(parent, name_there, gone=leaf), *changes])

    def _part_with(self, file: OpenFile) -> None:
        """What is in *file* was written to a bucket that is gone.  To store it in another one of
        its name may not be what anybody wants; whoever has it open is told so again."""
        if is_named(file):
            self._give_up(file, FORMER, promised=True)
        file.refused = True

    def _set_aside(self, file: OpenFile, trouble: str) -> None:
        """No close(2) has told anybody that *file* would not be stored."""
        if is_named(file):
            log.error(
                "%r cannot be saved and stays in the journal, where `natsfs recover` finds it: %s",
                file.leaf.heir.object_name,
                trouble,
            )
        self._journaling.set_aside(file, trouble)


def _is_final(error: NatsfsError) -> bool:
    """Whether bytes that the server had are gone for good; a bucket may be there again."""
    return isinstance(error, StaleVersion) and not isinstance(error, StaleNode)
