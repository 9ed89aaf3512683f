"""Steps without one atomic batch: every meta arrives under its new name before the first leaves.

An interruption leaves both names and never neither (A2).  Where the bucket has batches, a directory
that is too large for one goes in several; otherwise each meta goes alone, so that a lost
compare-and-set says for certain that somebody else has been there.

The first arrival decides whether the rename happens at all.  From then on other clients cannot stop
it any more: what they store under an old name meanwhile moves as well, what they delete there goes
under the new name too, and what they put where an entry has to arrive is replaced, as any rename
replaces what has its name (A4).

Concurrency: callers hold the reservation of every name that the steps touch, so the watch changes
none of them; what the server has is asked for and not looked up in the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from natsfs.errors import NotFoundError, WrongRevision
from natsfs.filesystem.attributes import with_times
from natsfs.filesystem.publisher import TOMBSTONE_TTL, Publisher
from natsfs.filesystem.state import Mounted
from natsfs.store.base import tombstone
from natsfs.store.contention import Contention
from natsfs.store.model import MetaWrite, ObjectInfo
from natsfs.tree.nodes import Directory, Leaf


@dataclass(frozen=True, slots=True)
class Step:
    """One meta on its way: *node*, whose meta is *info*, becomes *moved*, which has its subject.

    *arrived* is what is there already, because an earlier rename was interrupted.
    """

    node: Leaf | Directory
    info: ObjectInfo
    moved: ObjectInfo
    arrived: ObjectInfo | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """A step as the server acknowledged it.

    *grave* is the tombstone under the old name, *arrived* one under the new name if another client
    deleted the object meanwhile.  *foreign*: what arrived may be another client's.
    """

    node: Leaf | Directory
    arrived: ObjectInfo
    grave: ObjectInfo | None
    foreign: bool = False


class Stepwise:
    """Publishes steps in parts of at most *part* metas, which are atomic."""

    def __init__(self, mounted: Mounted, publisher: Publisher, part: int) -> None:
        self._m = mounted
        self._publisher = publisher
        self._part = part

    async def publish(self, steps: Callable[[], list[Step]]) -> list[Done]:
        """Publish *steps*, which are asked for anew until the first of them has arrived.

        Errors: those of *steps* and of `ObjectStore.commit`.  After the first arrival an error
        leaves both names, and the same rename finishes it later.
        """
        taken: list[Step] = []

        def first() -> list[MetaWrite]:
            taken[:] = steps()
            missing = (step for step in taken if step.arrived is None)
            return [self._arrival(step) for step in islice(missing, 1)]

        stored = await self._publisher.publish(first)
        arrived = {step.moved.subject: step.arrived for step in taken if step.arrived is not None}
        arrived |= {info.subject: info for info in stored}
        missing = [step for step in taken if step.moved.subject not in arrived]
        for part in self._parts(missing):
            arrived |= {info.subject: info for info in await self._arrive(part)}
        here = [
            Done(step.node, arrived[step.moved.subject], None, foreign=step.arrived is not None)
            for step in taken
        ]
        return await self._leave(taken, here)

    def _arrival(self, step: Step) -> MetaWrite:
        last = self._m.namespace.last_revision(step.moved.subject)
        return self._m.rewrite(with_times(step.moved), last)

    def _parts(self, steps: Sequence[Step]) -> list[Sequence[Step]]:
        return [steps[start : start + self._part] for start in range(0, len(steps), self._part)]

    # -- new names --------------------------------------------------------------------------------

    async def _arrive(self, part: Sequence[Step]) -> list[ObjectInfo]:
        writes = [self._arrival(step) for step in part]
        try:
            return list(await self._publisher.send(writes))
        except WrongRevision:
            return [await self._arrive_alone(write) for write in writes]

    async def _arrive_alone(self, write: MetaWrite) -> ObjectInfo:
        """Publish *write* over whatever another client has put there."""
        contention = Contention(self._m.store)
        while True:
            try:
                return (await self._publisher.send([write]))[0]
            except WrongRevision as error:
                await contention.lost(error)
                there = await self._at(write.info.subject)
                write = replace(write, expected=there.revision if there is not None else 0)
                if there is not None and there.nuid != write.info.nuid:
                    self._m.purger.schedule(there)

    # -- old names --------------------------------------------------------------------------------

    async def _leave(self, steps: list[Step], here: list[Done]) -> list[Done]:
        """Tombstones, in the order of the arrivals."""
        done = {step.info.subject: at for step, at in zip(steps, here, strict=True)}
        taken_over = {step.moved.subject for step in steps}
        leaving = [step for step in steps if step.info.subject not in taken_over]
        for part in self._parts(leaving):
            writes = [departure(step.info) for step in part]
            try:
                graves = await self._publisher.send(writes)
            except WrongRevision:
                for step in part:
                    subject = step.info.subject
                    done[subject] = await self._leave_alone(step, done[subject])
            else:
                for step, grave in zip(part, graves, strict=True):
                    done[step.info.subject] = replace(done[step.info.subject], grave=grave)
        return [done[step.info.subject] for step in steps]

    async def _leave_alone(self, step: Step, done: Done) -> Done:
        """Take the old name away, and what another client did to it along."""
        info, contention = step.info, Contention(self._m.store)
        while True:
            try:
                (grave,) = await self._publisher.send([departure(info)])
                return replace(done, grave=grave)
            except WrongRevision as error:
                await contention.lost(error)
                now = await self._at(info.subject)
            if now is None or now.deleted:
                return Done(step.node, await self._withdraw(done.arrived), now, foreign=True)
            moved = with_times(_moved(step, now))
            write = self._m.rewrite(moved, done.arrived.revision)
            done = Done(step.node, await self._arrive_alone(write), None, foreign=True)
            info = now

    async def _withdraw(self, arrived: ObjectInfo) -> ObjectInfo:
        """Another client deleted the object under its old name, and its bytes with it: so it goes
        under the new one.  Unless something else has been put there since."""
        try:
            return (await self._publisher.send([departure(arrived)]))[0]
        except WrongRevision:
            return await self._at(arrived.subject) or tombstone(arrived)

    async def _at(self, subject: str) -> ObjectInfo | None:
        try:
            return await self._m.store.get_info_at(subject)
        except NotFoundError:
            return None


def departure(info: ObjectInfo) -> MetaWrite:
    """The tombstone that *info* leaves under its old name."""
    return MetaWrite(tombstone(info), info.revision, ttl=TOMBSTONE_TTL)


def _moved(step: Step, now: ObjectInfo) -> ObjectInfo:
    """*now*, which is what the step's meta has become, under the new name."""
    link = step.moved.link if now.link == step.info.link else now.link
    return replace(now, name=step.moved.name, subject=step.moved.subject, link=link)
