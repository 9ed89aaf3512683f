"""Names that one mount claims before it has anything to store under them (A3).

open(2) with O_CREAT|O_EXCL has to be decided at once and for all mounts, while the object appears
only when the file is closed (W2).  So a *claim* is published: a tombstone, which every other client
reads as "deleted", whose metadata names the mount.  Publishing it is a compare-and-set on the name,
so of any number of mounts one succeeds; the others see the claim and answer EEXIST.

A claim is renewed while its file is open, replaced by the file's first version, and withdrawn when
the file is removed or renamed before that.  One whose owner died ends by itself: the message has a
time to live where the bucket allows that, and no mount honours it for longer anywhere else.

Concurrency: callers hold the reservation of the name.  `honour` and `own` are atomic.
"""

from __future__ import annotations

import logging
import time

import trio

from natsfs.errors import ExistsError, NatsfsError
from natsfs.filesystem.attributes import CLAIM_KEY
from natsfs.filesystem.naming import name_of
from natsfs.filesystem.publisher import TOMBSTONE_TTL, Publisher
from natsfs.filesystem.state import Mounted
from natsfs.store.model import MetaWrite, ObjectInfo
from natsfs.store.wire import new_nuid
from natsfs.tree.nodes import Leaf

log = logging.getLogger(__name__)

#: Seconds that a claim is honoured after it was last published: long against a pause of its owner's
#: connection, short against the patience of who waits for a lock file to go.
CLAIM_TTL = 60

#: Seconds between renewals: two may be lost.
RENEW = 20.0


class Claims:
    """The claims of this mount, and of others."""

    def __init__(self, mounted: Mounted, publisher: Publisher) -> None:
        self._m = mounted
        self._publisher = publisher
        self._owner = new_nuid()
        #: The revision of the newest claim for each file that has one and may not be stored yet.
        self._own: dict[Leaf, int] = {}
        mounted.on_tombstone = self.honour

    def honour(self, grave: ObjectInfo) -> None:
        """Take note of a tombstone, which may be a claim."""
        owner = grave.metadata.get(CLAIM_KEY, "")
        if not owner or owner == self._owner:
            self._m.foreign_claims.pop(grave.subject, None)
            return
        # Clocks of hosts differ: a claim is never honoured for longer than its life from now.
        age = max(0.0, time.time() - grave.time_ns / 1e9)
        ends = trio.current_time() + max(0.0, CLAIM_TTL - age)
        self._m.foreign_claims[grave.subject] = ends

    async def claim(self, name: str) -> int:
        """Claim the object *name* for a file that is about to be created; return the claim's
        revision.

        Errors: `ExistsError` (it exists, or another mount claims it), those of
        `ObjectStore.commit`.
        """
        subject = self._publisher.subject_of(name)

        def build() -> list[MetaWrite]:
            if self._m.namespace.find(subject) is not None:
                raise ExistsError(f"{name!r} was just created by another client")
            self._publisher.check_unclaimed(subject)
            return [self._write(name, subject)]

        claim = (await self._publisher.publish(build))[0]
        self._m.namespace.bury(claim)
        return claim.revision

    def own(self, leaf: Leaf, revision: int) -> None:
        """*leaf* has been created under a name that this mount claimed with *revision*."""
        self._own[leaf] = revision

    async def withdraw(self, leaf: Leaf, name: str) -> None:
        """*leaf* does not have the *name* any more that may have been claimed for it.  There is
        nothing to withdraw if it was stored, or if another client has put something there.

        Failure is logged and not raised: the claim ends by itself, and the change that this is the
        end of has happened.
        """
        claim = self._own.pop(leaf, None)
        if claim is None:
            return
        subject = self._publisher.subject_of(name)
        grave = ObjectInfo(name, self._m.store.bucket, subject, deleted=True)

        def build() -> list[MetaWrite]:
            if self._m.namespace.last_revision(subject) != claim:
                return []
            return [MetaWrite(grave, claim, ttl=TOMBSTONE_TTL)]

        try:
            withdrawn = await self._publisher.publish(build)
        except NatsfsError as error:
            log.info("the claim of %r ends by itself: %s", name, error)
            return
        for info in withdrawn:
            self._m.namespace.bury(info)

    async def run(self) -> None:
        """Renew claims, and forget those of others that have ended, until cancelled."""
        while True:
            await trio.sleep(RENEW)
            for leaf in list(self._own):
                await self._renew(leaf)
            now = trio.current_time()
            ended = [s for s, ends in self._m.foreign_claims.items() if ends <= now]
            for subject in ended:
                del self._m.foreign_claims[subject]

    async def _renew(self, leaf: Leaf) -> None:
        async with self._m.reservations.hold(lambda: name_of(leaf)):
            if leaf.parent is None or leaf.info is not None:
                self._own.pop(leaf, None)
                return
            name = leaf.object_name
            subject = self._publisher.subject_of(name)
            try:
                stored = await self._publisher.publish(lambda: [self._write(name, subject)])
                self._m.namespace.bury(stored[0])
                self._own[leaf] = stored[0].revision
            except NatsfsError as error:
                log.info("the claim of %r was not renewed: %s", name, error)

    def _write(self, name: str, subject: str) -> MetaWrite:
        bucket = self._m.store.bucket
        grave = ObjectInfo(name, bucket, subject, deleted=True, metadata={CLAIM_KEY: self._owner})
        return MetaWrite(grave, self._m.namespace.last_revision(subject), ttl=CLAIM_TTL)
