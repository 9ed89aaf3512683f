"""What a new version says besides its bytes, and what is stored together with it: decided when its
bytes are stored, and again whenever somebody was faster.

Concurrency: a `Replacing` serves one upload in one task, which holds the reservation of the name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from natsfs.errors import WrongRevision
from natsfs.filesystem.appearance import attributes_of
from natsfs.filesystem.attributes import encode
from natsfs.filesystem.intake import Intake
from natsfs.filesystem.state import Mounted
from natsfs.store.base import described, tombstone
from natsfs.store.contention import Contention
from natsfs.store.model import NOTHING, MetaWrite, ObjectInfo, ObjectMeta
from natsfs.store.wire import meta_subject
from natsfs.tree.nodes import Leaf, info_of

#: Gives the metas that have to be stored together with a version that replaces another one, or
#: raises what ends its commit.
Judge = Callable[[ObjectInfo | None], list[MetaWrite]]


class Replacing:
    """The decisions of one upload for *leaf*.  *old* is what it replaces by the last of them."""

    def __init__(
        self, mounted: Mounted, intake: Intake, leaf: Leaf, judge: Judge, contention: Contention
    ) -> None:
        self._m = mounted
        self._intake = intake
        self._leaf = leaf
        self._judge = judge
        self._contention = contention
        self._decided: list[MetaWrite] = []
        self.old: ObjectInfo | None = None

    async def decide(self, version: ObjectInfo, lost: WrongRevision | None) -> list[MetaWrite]:
        """`Place` of the upload.  Errors: those of the judge, of `Contention` and of reading."""
        if lost is not None:
            await self._contention.lost(lost)
            await self._intake.refresh_lost(self._decided, lost, keep=self._leaf)
            for kept in self._decided[:-1]:
                await self._take_back(kept.info)
        self.old = self._leaf.info
        beside = self._judge(self.old)
        name = self._leaf.object_name
        subject = self.old.subject if self.old else meta_subject(self._m.store.bucket, name)
        info = described(replace(version, name=name, subject=subject), self._meta())
        self._decided = [*beside, MetaWrite(info, self._m.namespace.last_revision(subject))]
        return self._decided

    async def _take_back(self, kept: ObjectInfo) -> None:
        """Without atomic batches *kept* was stored although the version after it was refused."""
        await self._intake.refresh(kept.subject)
        found = info_of(self._m.namespace.find(kept.subject))
        if found is not None and found.nuid == kept.nuid:
            await self._m.store.commit([MetaWrite(tombstone(found), found.revision)])
            await self._intake.refresh(kept.subject)

    def _meta(self) -> ObjectMeta:
        """What the old version said besides its bytes, and the attributes."""
        attributes = encode(attributes_of(self._m, self._leaf))
        old, file = self.old, self._leaf.file
        if old is None or (file is not None and file.supplants and old.nuid == file.replaces):
            return ObjectMeta(metadata=attributes)
        return ObjectMeta(
            description=old.description,
            headers=old.headers,
            metadata={**(old.metadata or NOTHING), **attributes},
            extra=old.extra,
        )
