"""Changes of this mount, published as compare-and-set.

The only module that writes to the bucket on behalf of the filesystem.  Each change states the
revision that it was decided on.  When the server says that another one is there, that one is read
back, taken into the tree, and the change is decided again: a metadata change then keeps what the
other writer changed (M5, M6), a commit of bytes replaces the other version whole (A4).

Concurrency: callers hold the reservation of every name they change.  After each await, what was
decided on is looked up again from the tree.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

import trio

from natsfs.errors import (
    ExistsError,
    NoSpaceError,
    NotFoundError,
    PermissionsError,
    QuotaExceededError,
    ReadOnlyError,
    WrongRevision,
)
from natsfs.filesystem.appearance import attributes_of
from natsfs.filesystem.attributes import Attributes, encode, with_times
from natsfs.filesystem.intake import Intake
from natsfs.filesystem.replacing import Judge, Replacing
from natsfs.filesystem.settings import became_read_only
from natsfs.filesystem.state import Mounted
from natsfs.handles import is_dirty
from natsfs.store.base import tombstone
from natsfs.store.contention import Contention
from natsfs.store.model import MetaWrite, ObjectInfo
from natsfs.store.primitives import Place
from natsfs.store.wire import meta_subject
from natsfs.tree.nodes import Directory, Leaf

log = logging.getLogger(__name__)

#: Seconds that the tombstones of natsfs live where the bucket allows it: temporary files must not
#: pile up, and `natsfs ls --deleted` is to show what was removed today.
TOMBSTONE_TTL = 24 * 3600


class Publisher:
    """Writes metas and versions."""

    def __init__(self, mounted: Mounted, intake: Intake) -> None:
        self._m = mounted
        self._intake = intake

    def subject_of(self, name: str) -> str:
        """The subject that a new object *name* gets.  Errors: `NameTooLongError`."""
        return meta_subject(self._m.store.bucket, name)

    def check_unclaimed(self, subject: str) -> None:
        """Errors: `ExistsError` while another mount claims the name on *subject* (A3)."""
        if self._m.foreign_claims.get(subject, 0.0) > trio.current_time():
            raise ExistsError("another mount is creating it")

    async def put(
        self,
        leaf: Leaf,
        upload: Callable[[Place], Awaitable[tuple[ObjectInfo, ...]]],
        judge: Judge,
        contention: Contention,
    ) -> ObjectInfo:
        """Store a version of *leaf*, which is part of the tree, and confirm it there.

        *judge* is asked before bytes are sent, and whenever it is decided what to replace; what is
        replaced and not kept waits for its purge.  *upload* stores the bytes and then what it is
        told; it may be called again.

        Errors: those of *judge* and *upload*; `RequestTimeout` when *contention* has no more time.
        """
        while True:
            judge(leaf.info)
            replacing = Replacing(self._m, self._intake, leaf, judge, contention)
            try:
                stored = await upload(replacing.decide)
            except ReadOnlyError as error:
                became_read_only(self._m, str(error))
                raise
            except PermissionsError:
                self._m.on_doubtful_rights()
                raise
            except (NoSpaceError, QuotaExceededError):
                if not await self._m.purger.drain():
                    raise
            else:
                *kept, info = stored
                self._confirm(leaf, info, None if kept else replacing.old)
                for other in kept:
                    log.info(
                        "what %r was meanwhile is kept as %r",
                        info.name,
                        other.name,
                        extra={"object": info.name},
                    )
                    self._intake.take(other)
                return info

    async def refresh(self, leaf: Leaf) -> None:
        """Read back what *leaf*'s object is now.  A deleted one leaves *leaf*, which is part of the
        tree, in there, for the commit that is about to bring it back.

        Errors: those of `ObjectStore.get_info_at`."""
        subject = leaf.info.subject if leaf.info else self.subject_of(leaf.object_name)
        await self._intake.refresh(subject, keep=leaf)

    async def create(
        self, directory: Directory, name: bytes, info: ObjectInfo, attributes: Attributes
    ) -> Leaf:
        """A new object without bytes of its own, *info*, as *name* in *directory*.

        Errors: `ExistsError` (somebody has the name already), those of `ObjectStore.commit`.
        """
        subject = self.subject_of(info.name)
        stored = (await self._exclusively(lambda: info, subject))[0]
        leaf = Leaf(None, b"", None)
        leaf.attributes = replace(attributes, ctime_ns=stored.time_ns)
        self._m.notifier.changed(self._m.namespace.place(leaf, directory, name))
        self._confirm(leaf, stored, None)
        return leaf

    async def mark(self, directory: Directory, name: str, attributes: Attributes) -> None:
        """Store a marker *name* for *directory*, which has none.  Errors: as `create`."""
        info = ObjectInfo(name, self._m.store.bucket, "", metadata=encode(attributes))
        stored = (await self._exclusively(lambda: info, self.subject_of(name)))[0]
        directory.attributes = replace(attributes, ctime_ns=stored.time_ns)
        self._confirm(directory, stored, None)

    async def edit(
        self, node: Leaf | Directory, edit: Callable[[ObjectInfo], ObjectInfo]
    ) -> ObjectInfo:
        """Let *edit* change the meta of *node*, which has one; it is called anew whenever another
        client was faster, with what that client wrote (M5).

        Errors: `NotFoundError` (a foreign client deleted it), those of *edit* and of
        `ObjectStore.commit`.
        """

        def build() -> list[MetaWrite]:
            info = _current(node)
            return [self._m.rewrite(edit(with_times(info)), info.revision)]

        stored = (await self.publish(build))[0]
        written = node.attributes if isinstance(node, Leaf) and is_dirty(node) else None
        node.attributes = None
        self._confirm(node, stored, None)
        if written is not None:
            # Somebody wrote to the file meanwhile.
            now = attributes_of(self._m, node)
            node.attributes = replace(now, size=written.size, mtime_ns=written.mtime_ns)
        return stored

    async def remove(self, node: Leaf | Directory) -> None:
        """Replace the object of *node* by a tombstone; the tree is the caller's business.

        Errors: those of `ObjectStore.commit`.
        """

        info = _current(node)

        def build() -> list[MetaWrite]:
            nonlocal info
            info = _current(node)
            return [MetaWrite(tombstone(info), info.revision, ttl=TOMBSTONE_TTL)]

        try:
            stored = (await self.publish(build))[0]
        except NotFoundError:
            return  # somebody else was faster
        except (NoSpaceError, QuotaExceededError):
            # In a full bucket even a tombstone is refused until bytes are freed (protocol.md 2.7).
            if info.chunks and len(self._m.namespace.subjects_with(info.nuid)) < 2:
                await self._m.store.purge_chunks(info.nuid)
            try:
                stored = (await self.publish(build))[0]
            except (NoSpaceError, QuotaExceededError):
                await self._remove_meta(info)
                return
        else:
            self._m.purger.schedule(info)
        self._m.namespace.bury(stored)

    async def _remove_meta(self, info: ObjectInfo) -> None:
        """Remove the object *info*, whose meta is all that is left of it to be freed: there is no
        room for a tombstone beside it.  Then there is, as a rule, for those who watch.

        Errors: those of `ObjectStore.purge_meta`.
        """
        await self._m.store.purge_meta(info.subject, info.revision)
        self._m.unconfirmed.discard(info.subject)
        self._m.notifier.changed(self._m.namespace.vanish(info.subject))
        try:
            grave = MetaWrite(tombstone(info), 0, ttl=TOMBSTONE_TTL)
            self._m.namespace.bury((await self._m.store.commit([grave]))[0])
        except (NoSpaceError, QuotaExceededError, WrongRevision) as error:
            log.info(
                "%r was purged, which no watch tells of: %s",
                info.name,
                error,
                extra={"object": info.name},
            )

    async def publish(self, build: Callable[[], list[MetaWrite]]) -> tuple[ObjectInfo, ...]:
        """Commit what *build* decides, deciding again whenever the server has something newer.

        Errors: those of *build* and of `ObjectStore.commit`.
        """
        contention = Contention(self._m.store)
        while True:
            writes = build()
            try:
                return await self.send(writes)
            except WrongRevision as lost:
                await contention.lost(lost)
                await self._intake.refresh_lost(writes, lost)

    async def send(self, writes: list[MetaWrite]) -> tuple[ObjectInfo, ...]:
        """Commit *writes* as they are; in a full bucket, again after what can be freed is.

        Errors: those of `ObjectStore.commit`.
        """
        while True:
            try:
                return await self._m.store.commit(writes) if writes else ()
            except ReadOnlyError as error:
                became_read_only(self._m, str(error))
                raise
            except PermissionsError:
                self._m.on_doubtful_rights()
                raise
            except (NoSpaceError, QuotaExceededError):
                if not await self._m.purger.drain():
                    raise

    async def _exclusively(
        self, info: Callable[[], ObjectInfo], subject: str
    ) -> tuple[ObjectInfo, ...]:
        """Commit *info* where nothing, or a tombstone, is."""

        def build() -> list[MetaWrite]:
            if self._m.namespace.find(subject) is not None:
                raise ExistsError(f"{info().name!r} was just created by another client")
            self.check_unclaimed(subject)
            return [MetaWrite(info(), self._m.namespace.last_revision(subject))]

        return await self.publish(build)

    def _confirm(
        self, node: Leaf | Directory, info: ObjectInfo, replaced: ObjectInfo | None
    ) -> None:
        self._m.namespace.confirm(node, info)
        self._m.unconfirmed.add(info.subject)
        if replaced is not None and replaced.nuid != info.nuid:
            self._m.purger.schedule(replaced)


def _current(node: Leaf | Directory) -> ObjectInfo:
    info = node.marker if isinstance(node, Directory) else node.info
    if info is None or (isinstance(node, Leaf) and node.parent is None):
        raise NotFoundError("another client deleted it")
    return info
