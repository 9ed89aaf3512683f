"""What the journal is told of open files: the only module that knows how a file looks in there.

A file is in the journal while it has bytes that JetStream has not acknowledged (W7).  Those that a
program is still writing are there, too, but are only offered after a crash: half of a file is not
what the program wanted to replace the old one with (W2).

Concurrency: everything is atomic, but for `kept`.
"""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter

from natsfs.data.journal import Entry
from natsfs.data.outflow import Outflow
from natsfs.data.records import Below, State
from natsfs.data.small import Small
from natsfs.data.spool import Spool
from natsfs.filesystem.appearance import attributes_of
from natsfs.filesystem.attributes import Attributes
from natsfs.filesystem.state import Mounted
from natsfs.handles import OpenFile, Promised
from natsfs.store.model import ObjectInfo
from natsfs.store.primitives import Data
from natsfs.store.wire import new_nuid
from natsfs.tree.nodes import Directory, Leaf, Node

_numbers = attrgetter(*(field.name for field in fields(Attributes)))


class Journaling:
    """Keeps the journal of one mount."""

    def __init__(self, mounted: Mounted) -> None:
        self._m = mounted
        self._files: dict[Entry, OpenFile] = {}

    def files(self) -> list[OpenFile]:
        """Those that are in it."""
        return list(self._files.values())

    def wrote(self, file: OpenFile, start: int, data: Data, *, held: bool) -> None:
        """*data* was put at *start*; *held* says that a spool held something there already."""
        entry = self._going_on(file)
        if entry is None:
            return
        if isinstance(file.content, Spool):
            if held:
                entry.overwrite()
            else:
                entry.hold(start, start + len(data))
        else:
            entry.write(start, data)
            if isinstance(file.content, Outflow):
                self._forget(file, entry, file.content)

    def cut(self, file: OpenFile, size: int) -> None:
        """The size was set."""
        entry = self._going_on(file)
        if entry is not None:
            entry.cut(size)

    def described(self, file: OpenFile) -> None:
        """Its attributes, or its name, are others now."""
        if file.entry is not None and file.entry.state is not None:
            if not is_named(file):
                self.ended(file)
            else:
                file.entry.alter(self._state(file, closed=file.entry.state.closed))

    def moved(self, *nodes: Node | None) -> None:
        """*nodes* were given other names, or lost theirs, with all that is below them."""
        for node in nodes:
            if isinstance(node, Directory):
                for file in self.files():
                    self._renamed(file)
            elif isinstance(node, Leaf) and isinstance(node.file, OpenFile):
                self._renamed(node.file)

    def supplanted(self, file: OpenFile, by: OpenFile) -> None:
        """*by* has taken the name of *file*.  What was closed there and is not stored stays in the
        journal until something of *by* is safe, which it is to be replaced by (W2, W7)."""
        entry, content = file.entry, file.content
        if by.promised is not None or self.has_promised(by) or not by.dirty:
            return
        if entry is None or not entry.closed:
            by.promised, file.promised = file.promised, None
        elif isinstance(content, Spool | Outflow):
            content.keep()
            by.promised, file.entry = Promised(entry, content, file), None
        else:
            by.promised, file.entry = Promised(entry), None
        if by.promised is not None:
            self._files[by.promised.entry] = by

    def about_to_yield(self, file: OpenFile, nuid: str) -> None:
        """A rename is about to give the name of *file* to the version *nuid*."""
        file.yields = nuid
        promised = file.promised.entry if file.promised is not None else None
        for entry in (promised, file.entry):
            if entry is not None and entry.state is not None:
                entry.change(entry.state.but(yields=nuid))

    def about_to_store(self, file: OpenFile, told: tuple[Entry, int] | None, nuid: str) -> None:
        """What the entry in *told* said at its count of alterations there may be stored as the
        version *nuid* from now on.  One that was tried before may have been stored as what the
        entry said then: where it is something else now, nobody could tell."""
        entry, alterations = told or (None, 0)
        if entry is None or entry.state is None:
            return
        state = self._state(file, closed=entry.closed) if entry is file.entry else entry.state
        nuids = {*state.nuids}
        if nuid not in file.tried and entry.alterations == alterations:
            nuids.add(nuid)
        own = {*state.own, nuid}
        if nuids != {*entry.state.nuids} or own != {*entry.state.own}:
            entry.change(state.but(nuids=tuple(nuids), own=tuple(own)))

    def has_promised(self, file: OpenFile) -> bool:
        """Whether a change would destroy what was closed and is not stored yet (W7, W8)."""
        return file.entry is not None and file.entry.closed

    def keep_promised(self, file: OpenFile) -> None:
        """The file begins anew: what was closed and is not stored stays in the journal until
        something newer is safe."""
        if not self.has_promised(file):
            return
        entry, content = file.entry, file.content
        assert entry is not None
        self._drop_promised(file)
        if isinstance(content, Spool | Outflow):
            content.keep()
            file.content = None
            file.promised = Promised(entry, content)
        else:
            file.promised = Promised(entry)
        file.entry = None

    def _drop_promised(self, file: OpenFile) -> None:
        """Something newer is safe, or nobody wants it."""
        promised, file.promised = file.promised, None
        if promised is not None:
            self._files.pop(promised.entry, None)
            promised.end()

    def saved(self, file: OpenFile) -> None:
        """A version was stored.  What was written meanwhile is on top of that."""
        self._drop_promised(file)
        again = file.dirty and file.entry is not None
        # The version that it has become must not be taken for what is to be stored now.
        self.ended(file)
        if again:
            self._begin(file)

    async def rebased(self, file: OpenFile) -> bool:
        """Its bytes are told anew, because they lie on another version now: what its program was
        done with stays so, and the same record replaces the old state and brings the new one.

        Waits until the disk has it, and says whether it does; if not, the disk may have the old
        state, which needs the old content."""
        entry = file.entry
        if entry is None:
            return True
        self._begin(file, closed=entry.closed)
        return await entry.sync()

    def ended(self, file: OpenFile) -> None:
        """Nothing of it has to be saved any more."""
        self._drop_promised(file)
        entry, file.entry = file.entry, None
        if entry is not None:
            self._files.pop(entry, None)
            entry.end()

    async def kept(self, file: OpenFile, *, closed: bool) -> bool:
        """Wait until the disk has what is not saved, and say whether it has got everything.
        *closed* says that the program is done with it."""
        if not (file.dirty and is_named(file)):
            return True
        entry = self._told(file, closed=closed)
        if entry is None:
            return False
        safe = await entry.sync()
        if safe and entry is file.entry and entry.closed:
            self._drop_promised(file)
        return safe

    def closed(self, file: OpenFile) -> None:
        """Its program is done with it: what is not saved is to be saved after a crash."""
        if file.dirty and is_named(file):
            self._told(file, closed=True)

    def set_aside(self, file: OpenFile, trouble: str) -> None:
        """It cannot be stored, and the bucket says why: it waits for its user in the journal."""
        self._drop_promised(file)
        entry, file.entry = file.entry, None
        if entry is not None and entry.state is not None:
            entry.change(self._state(file, closed=True, entry=entry).but(trouble=trouble))
            self._files.pop(entry, None)
            if not isinstance(file.content, Small | None):
                file.content.keep()

    # -- inside -----------------------------------------------------------------------------------

    def _told(self, file: OpenFile, *, closed: bool) -> Entry | None:
        """The entry of *file*, which has got everything unless it is broken."""
        if file.entry is None or file.entry.broken:
            self._begin(file)
        entry = file.entry
        if entry is not None:
            entry.change(self._state(file, closed=closed))
        return entry

    def _going_on(self, file: OpenFile) -> Entry | None:
        """The entry of *file* if one more change has to be told; None if it was told whole."""
        if not is_named(file):
            return None
        if not isinstance(file.content, Spool | Outflow):
            self.keep_promised(file)  # its bytes are in the log
        entry = file.entry
        # What streams is forgotten as it is stored; anything else might grow for ever.
        long = entry is not None and entry.long and not isinstance(file.content, Outflow)
        if entry is None or entry.broken or long or file.journaled is not file.content:
            self._begin(file)
            return None
        return entry

    def _begin(self, file: OpenFile, *, closed: bool = False) -> None:
        """Tell all that there is of *file*, if it can be told.  Only what is in a spool, or in the
        version below, can be *closed* at once: what follows the state opens it again."""
        if isinstance(file.content, Spool) and not file.content.lasting:
            self.ended(file)
            return
        if file.entry is None:
            file.entry = self._m.journal.of(file.bucket).entry()
            self._files[file.entry] = file
        entry, content = file.entry, file.content
        file.journaled = content
        entry.begin(
            self._state(file, closed=closed, anew=True),
            content if isinstance(content, Spool) else None,
        )
        if isinstance(content, Small):
            entry.write(0, content.read(0, content.size))
        elif isinstance(content, Outflow):
            for start, data in content.unsent():
                entry.write(start, data)

    def _forget(self, file: OpenFile, entry: Entry, content: Outflow) -> None:
        if entry.can_forget(content.acknowledged):
            entry.forget(self._state(file, closed=False))

    def _renamed(self, file: OpenFile) -> None:
        if not is_named(file):
            self.ended(file)
        elif file.promised is not None:
            entry = file.promised.entry
            if entry.state is not None and entry.state.name != _name_of(file):
                entry.alter(_replacing(file, entry.state.but(name=_name_of(file))))
        state = file.entry.state if file.entry is not None else None
        if state is not None and state.name != _name_of(file):
            self.described(file)

    def _state(
        self, file: OpenFile, *, closed: bool, anew: bool = False, entry: Entry | None = None
    ) -> State:
        known = entry or file.entry
        before = None if known is None else known.state
        content = file.content
        outflow = content if isinstance(content, Outflow) else None
        stored = outflow.stored() if outflow is not None else file.base
        state = State(
            own=before.own if before is not None else (),
            after=_after(file),
            identity=before.identity if before is not None else new_nuid(),
            name=_name_of(file) if is_named(file) else (before.name if before else ""),
            size=0,
            below=_below(stored),
            sent=stored.size if outflow is not None and stored is not None else 0,
            appended_from=file.appended_from,
            attributes=_numbers(attributes_of(self._m, file.leaf)),
            closed=closed,
        )
        state = _replacing(file, state)
        if outflow is not None and outflow.nuid not in state.own:
            state = state.but(own=(*state.own, outflow.nuid))
        if anew or before is None:
            return state.but(**_content_of(file))
        return state.but(
            size=before.size,
            base_size=before.base_size,
            held=before.held,
            spool=before.spool,
            nuids=before.nuids,
        )


def attributes_in(state: State) -> Attributes:
    """The attributes that the file of *state* had."""
    return Attributes(*state.attributes)


def version_below(state: State, bucket: str) -> ObjectInfo | None:
    """The version that bytes which were never written are those of."""
    below = state.below
    if below is None:
        return None
    return ObjectInfo(
        name=below.name,
        bucket=bucket,
        subject=below.subject,
        nuid=below.nuid,
        size=below.size,
        chunks=below.chunks,
        max_chunk_size=below.max_chunk_size,
        digest=below.digest,
    )


def is_named(file: OpenFile) -> bool:
    """Whether *file* will be committed, and not go with its last handle (W5)."""
    return file.leaf.heir.parent is not None


def _name_of(file: OpenFile) -> str:
    return file.leaf.heir.object_name


def _replacing(file: OpenFile, state: State) -> State:
    """*state* with the versions that *file* may replace."""
    own = tuple({*state.own, *file.tried})
    return state.but(replaces=file.replaces, supplants=file.supplants, own=own, yields=file.yields)


def _after(file: OpenFile) -> str:
    promised = file.promised.entry.state if file.promised is not None else None
    return promised.identity if promised is not None else ""


def _content_of(file: OpenFile) -> dict[str, object]:
    """The content that an entry begins with: what is in memory is told behind it."""
    content = file.content
    if isinstance(content, Spool):
        coverage = content.coverage
        return {
            "size": coverage.size,
            "base_size": coverage.base_size,
            "held": coverage.held,
            "spool": content.path.name,
        }
    if content is None:
        return {"size": file.size, "base_size": file.size}
    return {}


def _below(version: ObjectInfo | None) -> Below | None:
    if version is None:
        return None
    return Below(
        version.name,
        version.subject,
        version.nuid,
        version.size,
        version.chunks,
        version.max_chunk_size,
        version.digest,
    )
