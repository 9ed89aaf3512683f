"""What a mount that died had not saved: found in its journal, and saved now (W7).

A file whose program was done with it is put back into the tree as it was, and waits to be saved
like any other.  It never takes the name from a version that another client stored since: it is
stored beside that, as `conflicts` calls such versions.  A file that was still being written, or of
which parts are damaged, is left for its user (`natsfs recover`).

Concurrency: `adopt` is called once, before programs can use the tree.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from natsfs.data.coverage import Held
from natsfs.data.salvage import UNFINISHED, Salvaged, salvage
from natsfs.errors import NatsfsError
from natsfs.filesystem.commits import COMMIT_PIECE, Commits
from natsfs.filesystem.conflicts import kept_name
from natsfs.filesystem.contents import read
from natsfs.filesystem.journaling import Journaling, attributes_in, version_below
from natsfs.filesystem.state import Mounted
from natsfs.filesystem.unsaved import Unsaved
from natsfs.handles import Content, OpenFile
from natsfs.store.model import ObjectInfo
from natsfs.store.wire import meta_subject
from natsfs.threads import in_thread_or_here
from natsfs.tree.names import encode_component, split_name
from natsfs.tree.nodes import Directory, Leaf, called, info_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Left:
    """A file that was not saved, and is left for its user."""

    name: str
    size: int
    time_ns: int
    trouble: str


#: Why a file is left that could be stored.
UNSAVED = "the server has not taken it yet"

#: Why one is left whose name has gone to another file.
REPLACED = "a rename has put another file in its place"

#: Does with a file that is left what its user wants; it is dropped then.
Deal = Callable[[Salvaged], Awaitable[None]]


class Recovery:
    """Saves what the journals of a bucket hold."""

    def __init__(
        self, mounted: Mounted, unsaved: Unsaved, commits: Commits, journaling: Journaling
    ) -> None:
        self._m = mounted
        self._unsaved = unsaved
        self._commits = commits
        self._journaling = journaling
        #: How many files were put back.
        self.adopted = 0
        #: What is left.
        self.left: list[Left] = []
        #: By the name that they got, those that were put back.
        self._restored: dict[str, Salvaged] = {}

    async def adopt(self, parent: Path) -> None:
        """Put back what the dead runs in *parent* hold."""
        await self.each(parent, self._take)
        self._report()

    async def settle(self, parent: Path, deal: Deal) -> None:
        """Let *deal* decide on what was left."""
        self.left = []

        async def dealt(salvaged: Salvaged) -> bool:
            return await self.attempt(salvaged, deal)

        await self.each(parent, dealt)

    def count_left(self) -> None:
        """Saving has ended: what is still in the journal of this run is left, too."""
        for state in self._m.journal.left():
            salvaged = self._restored.get(state.name)
            size, time_ns = (salvaged.size, salvaged.time_ns) if salvaged else (state.size, 0)
            self.left.append(Left(state.name, size, time_ns, state.trouble or UNSAVED))

    async def each(self, parent: Path, take: Callable[[Salvaged], Awaitable[bool]]) -> None:
        """Call *take* with each file that the dead runs in *parent* hold, but for what was to stay
        until something newer was safe that is.  Of a run nothing stays when it was true for all of
        them."""
        runs = await in_thread_or_here(lambda: list(salvage(parent)))
        for run, found in runs:
            past = self._past(found)
            taken = [
                await (self.attempt(one, _nothing) if one.state.identity in past else take(one))
                for one in found
            ]
            if all(taken):
                await in_thread_or_here(run.remove)
            else:
                run.release()

    async def _take(self, salvaged: Salvaged) -> bool:
        if self._is_stored(salvaged):
            return await self.attempt(salvaged, _nothing)
        if self._is_replaced(salvaged):
            self._leave(salvaged, REPLACED)
            return False
        if salvaged.finished:
            taken = await self.attempt(salvaged, self.restore_there)
            self.adopted += taken
            return taken
        self._leave(salvaged, salvaged.trouble or UNFINISHED)
        return False

    async def attempt(self, salvaged: Salvaged, deal: Deal) -> bool:
        """Whether *deal* did it, so that the journal need not keep it."""
        try:
            await deal(salvaged)
            await in_thread_or_here(salvaged.drop)
        except (NatsfsError, OSError) as error:
            log.error(
                "%r cannot be recovered: %s",
                salvaged.state.name,
                error,
                extra={"object": salvaged.state.name},
            )
            self._leave(salvaged, str(error))
            return False
        for nuid in salvaged.own:
            self._m.purger.discard(nuid)  # unless it got a name, and once nobody reads it any more
        return True

    def _leave(self, salvaged: Salvaged, why: str) -> None:
        self.left.append(Left(salvaged.state.name, salvaged.size, salvaged.time_ns, why))

    def _past(self, found: list[Salvaged]) -> set[str]:
        """The identities of those in *found* that were to stay until another one was safe, of which
        the bucket has a version."""
        known = {one.state.identity: one.own for one in found}
        subjects = self._m.namespace.subjects_with
        return {
            one.state.after
            for one in found
            if any(subjects(nuid) for nuid in one.own - known.get(one.state.after, frozenset()))
        }

    def _is_replaced(self, salvaged: Salvaged) -> bool:
        """Whether a rename has given its name to another file, which it is not to destroy."""
        nuid, namespace = salvaged.state.yields, self._m.namespace
        subjects = namespace.subjects_with(nuid) if nuid else ()
        found = [info_of(namespace.find(subject)) for subject in subjects]
        return any(info is not None and info.name == salvaged.state.name for info in found)

    def _is_stored(self, salvaged: Salvaged) -> bool:
        """Whether it became a version before the mount died."""
        subjects = self._m.namespace.subjects_with
        return any(subjects(nuid) for nuid in salvaged.nuids)

    async def restore_there(self, salvaged: Salvaged) -> None:
        """Put *salvaged* into the tree under its name, or beside what has that by now.  Errors: of
        `restore`."""
        await self.restore(salvaged, self._leaf(salvaged))

    async def store_beside(self, salvaged: Salvaged) -> None:
        """Put *salvaged* into the tree under a name that says what it is.  Errors: of `restore`."""
        directory, name = self._place(salvaged)
        await self.restore(salvaged, self._beside(directory, name, salvaged, "recovered"))

    async def save(self, salvaged: Salvaged, top: Path) -> None:
        """Write the bytes of *salvaged* into a new file below *top*.

        What cannot be read of the version below it is zeros there, and said in the log.

        Errors: `OSError`, `CacheError`."""
        directories, text = split_name(salvaged.state.name)
        parts = [os.fsdecode(encode_component(part)) for part in (*directories, text)]
        path = top.joinpath(*parts)
        below = version_below(salvaged.state, self._m.store.bucket)
        file = OpenFile(Leaf(None, b"", None), below, self._m.store.identity)
        file.content = salvaged.content(self._m.journal.of(file.bucket))
        missing, trouble = 0, ""
        try:
            await in_thread_or_here(lambda: path.parent.mkdir(parents=True, exist_ok=True))
            async with await trio.open_file(path, "xb") as stream:
                for start in range(0, file.size, COMMIT_PIECE):
                    size = min(COMMIT_PIECE, file.size - start)
                    try:
                        piece = await self._whole(file, start, size)
                    except NatsfsError as error:
                        piece, zeros = _held(file.content, start, size)
                        missing, trouble = missing + zeros, str(error)
                    await stream.write(piece)
        finally:
            file.content.close()
        if missing:
            log.warning(
                "%s: %d of %d bytes are zeros, because the bucket does not have them: %s",
                path,
                missing,
                file.size,
                trouble,
            )

    async def _whole(self, file: OpenFile, start: int, size: int) -> bytes:
        with self._commits.reading(file) as stream:
            return bytes(await read(file, stream, start, size))

    async def restore(self, salvaged: Salvaged, leaf: Leaf) -> None:
        """Let *leaf* be *salvaged*, and wait to be saved.

        Errors: `NoSpaceError`, `CacheError` (this host's disk)."""
        state = salvaged.state
        below = version_below(state, self._m.store.bucket)
        file = OpenFile(leaf, below, self._m.store.identity)
        try:
            file.content = salvaged.content(self._m.journal.of(file.bucket))
        except BaseException:
            if leaf.info is None:
                self._m.namespace.detach(leaf)
            raise
        file.replaces, file.supplants = state.replaces, state.supplants
        file.tried = set(salvaged.own)
        file.appended_from = state.appended_from
        file.changes, file.pages_true = 1, False
        leaf.file = file
        leaf.attributes = replace(attributes_in(state), size=file.size)
        if below is not None:
            self._m.purger.hold(below.nuid)
        if not await self._journaling.kept(file, closed=True):
            log.warning(
                "%r is recovered, but not in the journal of this mount",
                state.name,
                extra={"object": state.name},
            )
        self._restored[leaf.object_name] = salvaged
        self._unsaved.take(file)

    def _leaf(self, salvaged: Salvaged) -> Leaf:
        """The place of *salvaged* in the tree: its own, or one beside what is there by now."""
        directory, name = self._place(salvaged)
        there = called(directory, split_name(salvaged.state.name)[1], Leaf)
        if there is not None and there.file is None and self._may_replace(salvaged, there.info):
            return there
        if name in directory.children:
            log.warning(
                "%r has another version by now, which stays",
                salvaged.state.name,
                extra={"object": salvaged.state.name},
            )
            return self._beside(directory, name, salvaged, "conflict")
        leaf = Leaf(None, b"", None)
        self._m.namespace.place(leaf, directory, name)
        return leaf

    def _place(self, salvaged: Salvaged) -> tuple[Directory, bytes]:
        directories, text = split_name(salvaged.state.name)
        return self._directory(directories), encode_component(text)

    def _beside(self, directory: Directory, name: bytes, salvaged: Salvaged, word: str) -> Leaf:
        """A place beside what has the *name*."""
        host, taken = self._m.conflict.host, directory.children
        beside = kept_name(name, host, salvaged.time_ns, lambda name: name in taken, word)
        leaf = Leaf(None, b"", None)
        self._m.namespace.place(leaf, directory, beside)
        log.warning(
            "%r is saved as %r",
            salvaged.state.name,
            leaf.object_name,
            extra={"object": salvaged.state.name},
        )
        return leaf

    def _may_replace(self, salvaged: Salvaged, other: ObjectInfo | None) -> bool:
        """Whether what it was written on top of is still what has its name; what was appended can
        go behind anything (A4)."""
        if other is None or other.link is not None:
            return False
        ours = other.nuid == salvaged.state.replaces or other.nuid in salvaged.own
        return ours or (salvaged.state.appended_from is not None and bool(salvaged.state.replaces))

    def _directory(self, parts: list[str]) -> Directory:
        """The directory called so, made in the tree if there is none any more."""
        directory = self._m.namespace.root
        for part in parts:
            below = called(directory, part, Directory)
            if below is None:
                below = Directory(None, b"", "")
                meta_subject(self._m.store.bucket, f"{directory.prefix}{part}/")
                self._m.namespace.place(below, directory, encode_component(part))
            directory = below
        return directory

    def _report(self) -> None:
        bucket = self._m.store.bucket
        if self.adopted:
            log.warning(
                "bucket %s: %d files of a mount that died are saved now", bucket, self.adopted
            )
        if self.left:
            log.warning(
                "bucket %s: %d files of a mount that died, %d bytes, wait in the journal for "
                "`natsfs recover`",
                bucket,
                len(self.left),
                sum(left.size for left in self.left),
            )


def _held(content: Content, start: int, size: int) -> tuple[bytes, int]:
    """What *content* itself has of a piece, the rest as zeros, and how many these are."""
    pieces = content.pieces(start, start + size)
    zeros = sum(piece.stop - piece.start for piece in pieces if not isinstance(piece, Held))
    held = b"".join(
        content.read(piece.start, piece.stop)
        if isinstance(piece, Held)
        else bytes(piece.stop - piece.start)
        for piece in pieces
    )
    return held, zeros


async def _nothing(salvaged: Salvaged) -> None:
    """It is where it should be."""
