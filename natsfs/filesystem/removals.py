"""What no watch shows: purges, deletions of messages, expiry, and changes of the bucket itself.

Three sources, each a net below the one before it:

- *Advisories*: the server tells of requests to the stream as they are made, by whomever; a purge
  shows a millisecond after it.  They come without promise, so they are hints: each is checked at
  the leader.
- *Expiry* is foreseen: the bucket's TTL and the life of a single message are known with each meta.
- *The census*: once in a while the number of messages is asked for, and of metas if it changed.
  When the tree has another number of them, the watch begins again, which compares everything.

After a lost connection the watch begins again anyhow.

Concurrency: three tasks in `run`, which share the set of suspects between awaits only.
"""

from __future__ import annotations

import heapq
import logging
import math

import trio

from natsfs.errors import BucketNotFoundError, NatsfsError
from natsfs.filesystem import settings
from natsfs.filesystem.intake import Intake
from natsfs.filesystem.lifetimes import expiry_ns
from natsfs.filesystem.state import Mounted
from natsfs.store.model import BucketStatus, ObjectInfo, Removed

log = logging.getLogger(__name__)

#: Seconds after an advisory until a subject is looked at once more: a consumer may deliver what was
#: purged behind the advisory of the purge.
SECOND_LOOK = 1.0

#: Seconds that expiry is looked at late.  The server drops a message with a life of its own 5 ms
#: after that ends, and one that the bucket's TTL ends up to 0.26 s after (seen on 2.15.1); and one
#: STREAM.INFO, 0.6 ms, answers for all that expired meanwhile.
EXPIRY_SLACK = 0.3

#: Most seconds between looks at something that should have expired and has not.
EXPIRY_RETRY = 60.0

#: Seconds between two countings.  Of a bucket in which nothing happens that is one STREAM.INFO of
#: 1 KB a minute, and of others one direct get on top (see `Bucket.count_metas`).
CENSUS = 60.0

#: Seconds after which a number that is not the expected one is asked for again, because messages
#: may have been on their way.
CENSUS_AGAIN = 2.0


#: Seconds between two looks at what the credentials may do: a program that is refused may try again
#: at once and for ever, and nobody gives rights more often.
RIGHTS_PAUSE = 1.0


class Removals:
    """Finds out what has gone."""

    def __init__(self, mounted: Mounted, intake: Intake) -> None:
        self._m = mounted
        self._intake = intake
        self._subjects: set[str] = set()
        self._revisions: set[int] = set()
        self._anything = False
        self._settings = False
        self._hint = trio.Event()
        self._began = False
        #: Whether the credentials may be allowed something else, and when that was last thought.
        self._rights = False
        self._doubted_at = -math.inf
        #: When to look, by the server's clock; subject and revision; how often it was looked at.
        self._expiring: list[tuple[int, str, int, int]] = []
        self._earlier = trio.Event()
        #: Number of messages in the stream, and by how many metas the server had more than the
        #: tree, when that was last found to be right.
        self._messages = -1
        self._counted = -1
        self._surplus = 0
        intake.on_meta = self._note
        intake.on_restart = self._restarted
        intake.on_doubt = self._doubt
        mounted.on_doubtful_rights = self._doubt_rights

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled; "started" when the server has been asked to tell."""
        async with self._m.store.advisories() as advisories, trio.open_nursery() as nursery:
            task_status.started()
            nursery.start_soon(self._follow_hints, nursery)
            nursery.start_soon(self._follow_expiry)
            nursery.start_soon(self._take_census)
            async for advisory in advisories:
                if not isinstance(advisory, Removed):
                    self._settings = True
                elif advisory.subject:
                    self._subjects.add(advisory.subject)
                elif advisory.revision:
                    self._revisions.add(advisory.revision)
                else:
                    self._anything = True
                self._hint.set()

    # -- hints ------------------------------------------------------------------------------------

    def _restarted(self) -> None:
        # When the watch begins they have just been looked at.
        self._rights = self._began
        self._began = self._settings = True
        self._hint.set()

    def _doubt(self, subjects: set[str]) -> None:
        if subjects:
            self._subjects |= subjects
            self._hint.set()

    def _doubt_rights(self) -> None:
        now = trio.current_time()
        if now > self._doubted_at + RIGHTS_PAUSE:
            self._doubted_at = now
            self._rights = self._settings = True
            self._hint.set()

    async def _follow_hints(self, nursery: trio.Nursery) -> None:
        while True:
            await self._hint.wait()
            self._hint = trio.Event()
            try:
                if self._settings:
                    self._settings = False
                    await self._follow_settings()
                # What is still being delivered would come back after having been taken out.
                await self._intake.complete()
                await self._look_at_hints(nursery)
            except NatsfsError as error:
                log.info("what was purged will show later: %s", error)

    async def _look_at_hints(self, nursery: trio.Nursery) -> None:
        if self._anything:
            self._anything = False
            await self._look_at_everything()
        subjects, self._subjects = self._subjects, set()
        subjects |= self._with_revisions()
        for subject in subjects:
            await self._look(subject)
        if subjects:
            nursery.start_soon(self._look_once_more, subjects)

    def _with_revisions(self) -> set[str]:
        """The subjects whose newest message was deleted by its revision: one pass over the tree for
        all that came together."""
        revisions, self._revisions = self._revisions, set()
        return self._m.namespace.index.subjects_at(revisions) if revisions else set()

    async def _look_once_more(self, subjects: set[str]) -> None:
        await trio.sleep(SECOND_LOOK)
        for subject in subjects:
            await self._look(subject)

    async def _look(self, subject: str) -> None:
        if self._m.namespace.last_revision(subject) or subject in self._m.malformed:
            try:
                await self._intake.look_again(subject)
            except NatsfsError as error:
                log.info("whether %s is still there is unknown: %s", subject, error)

    async def _look_at_everything(self) -> None:
        """Of a purge without a filter, or up to a revision, the first revision that is left tells
        everything; what else was purged is found by comparing."""
        status = await self._m.store.status()
        namespace = self._m.namespace
        for subject in namespace.subjects():
            self._intake.gone_before(subject, status.first_revision)
        if len(namespace):
            self._intake.compare()

    async def _follow_settings(self) -> None:
        try:
            if self._rights:
                self._rights = False
                await settings.look_again(self._m)
            status = await self._m.store.status()
        except BucketNotFoundError:
            # The watch waits for it to come back.
            self._intake.compare()
            return
        self._adopt(status)

    def _adopt(self, status: BucketStatus) -> None:
        max_age_ns = self._m.max_age_ns
        settings.follow(self._m, status)
        if not self._intake.follows(status):
            self._intake.compare()
        elif self._m.max_age_ns != max_age_ns:
            self._expiring.clear()
            for info in self._m.namespace.index.infos():
                self._note(info)

    # -- expiry -----------------------------------------------------------------------------------

    def _note(self, info: ObjectInfo) -> None:
        ends = expiry_ns(info, self._m.max_age_ns)
        if ends is not None:
            due = ends + round(EXPIRY_SLACK * 1e9)
            heapq.heappush(self._expiring, (due, info.subject, info.revision, 0))
            if self._expiring[0][0] == due:
                self._earlier.set()

    async def _follow_expiry(self) -> None:
        while True:
            wait = float("inf")
            if self._expiring:
                wait = max(0.0, (self._expiring[0][0] - self._m.server_now_ns()) / 1e9)
            self._earlier = trio.Event()
            with trio.move_on_after(wait):
                await self._earlier.wait()
                continue
            due = self._take_due()
            try:
                await self._intake.complete()
                await self._look_at_expired(due)
            except NatsfsError as error:
                log.info("what expired will show later: %s", error)
                self._put_back(due)
            # However many expire one after the other, they are looked at together.
            await trio.sleep(EXPIRY_SLACK)

    def _take_due(self) -> list[tuple[str, int, int]]:
        now, due = self._m.server_now_ns(), []
        while self._expiring and self._expiring[0][0] <= now:
            _, subject, revision, looks = heapq.heappop(self._expiring)
            if self._m.namespace.last_revision(subject) == revision:
                due.append((subject, revision, looks))
        return due

    async def _look_at_expired(self, due: list[tuple[str, int, int]]) -> None:
        if not due:
            return
        status = await self._m.store.status()
        for subject, _, _ in due:
            if not self._intake.gone_before(subject, status.first_revision):
                await self._look(subject)
        self._put_back(due)

    def _put_back(self, due: list[tuple[str, int, int]]) -> None:
        """Look again later at those of *due* that are still there: clocks differ."""
        now = self._m.server_now_ns()
        for subject, revision, looks in due:
            if self._m.namespace.last_revision(subject) == revision:
                delay = min(EXPIRY_SLACK * 2**looks, EXPIRY_RETRY)
                entry = (now + round(delay * 1e9), subject, revision, min(looks + 1, 10))
                heapq.heappush(self._expiring, entry)

    # -- the census -------------------------------------------------------------------------------

    async def _take_census(self) -> None:
        while True:
            await trio.sleep(CENSUS)
            try:
                await self._intake.complete()
                if await self._disagrees():
                    await trio.sleep(CENSUS_AGAIN)
                    if await self._disagrees():
                        await self._resolve()
            except BucketNotFoundError:
                self._intake.compare()
            except NatsfsError as error:
                log.info("the bucket was not counted: %s", error)

    async def _disagrees(self) -> bool:
        """Whether the server holds another number of metas than the tree knows of, or may hold
        others and something has changed."""
        status = await self._m.store.status()
        self._adopt(status)
        if status.messages == self._messages:
            return False
        surplus = await self._count_surplus()
        self._counted = status.messages
        if surplus is None or surplus == self._surplus:
            if self._m.store.watch_may_skip:
                return True
            self._messages = status.messages
            return False
        return True

    async def _resolve(self) -> None:
        """Compare everything.  What then still differs, because some subject holds two metas, does
        so for good."""
        counted = self._counted
        log.info("the bucket may hold other objects than were told; comparing")
        self._intake.compare()
        await self._intake.complete()
        surplus = await self._count_surplus()
        self._surplus = surplus if surplus is not None else 0
        self._messages = counted

    async def _count_surplus(self) -> int | None:
        metas = await self._m.store.count_metas()
        if metas is None:
            return None
        namespace = self._m.namespace
        return metas - len(namespace) - len(namespace.graves) - len(self._m.malformed)
