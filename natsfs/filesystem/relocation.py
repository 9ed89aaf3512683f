"""Metas on their way to other names: the step that renames and hard links are made of.

Each meta is published under its new name, and a tombstone under the old one unless another meta of
the same change arrives there.  All of it is one atomic batch where the bucket has batches and the
metas are few enough; otherwise every arrival is published before the first tombstone, so that an
interruption leaves both names and never neither (A2).

Concurrency: callers hold the reservation of every name that their steps touch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from natsfs.filesystem.appearance import attributes_of
from natsfs.filesystem.attributes import with_times
from natsfs.filesystem.publisher import TOMBSTONE_TTL, Publisher
from natsfs.filesystem.state import Mounted
from natsfs.store.base import tombstone
from natsfs.store.model import MetaWrite, ObjectInfo
from natsfs.tree.nodes import Directory, Leaf

#: Messages in one atomic batch (protocol.md 2.5).
MAX_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Step:
    """One meta on its way: *node*, whose meta is *info*, becomes *moved*, which has its subject."""

    node: Leaf | Directory
    info: ObjectInfo
    moved: ObjectInfo


@dataclass(frozen=True, slots=True)
class Done:
    """A step as the server acknowledged it; *grave* is the tombstone under the old name."""

    node: Leaf | Directory
    arrived: ObjectInfo
    grave: ObjectInfo | None


class Relocation:
    """Publishes steps, and tells the tree of them."""

    def __init__(self, mounted: Mounted, publisher: Publisher) -> None:
        self._m = mounted
        self._publisher = publisher

    async def publish(self, steps: Callable[[], list[Step]]) -> list[Done]:
        """Publish *steps*, which are asked for anew when a compare-and-set is lost.

        Errors: those of *steps* and of `ObjectStore.commit`.
        """
        taken: list[Step] = []

        def build() -> list[MetaWrite]:
            taken[:] = steps()
            return [*self._arrivals(taken), *_departures(taken)]

        count = len(build())
        if not count:
            return []
        if count <= MAX_BATCH:
            return _paired(taken, await self._publisher.publish(build))
        stored: list[ObjectInfo] = []
        for writes_of in (self._arrivals, _departures):
            for part in _parts(taken):
                stored += await self._publisher.publish(functools.partial(writes_of, part))
        return _paired(taken, tuple(stored))

    def settle(self, done: list[Done]) -> None:
        """Take over into the tree what was acknowledged; the nodes have their new places."""
        for step in done:
            attributes = attributes_of(self._m, step.node)
            self._m.namespace.confirm(step.node, step.arrived)
            self._m.unconfirmed.add(step.arrived.subject)
            if step.grave is not None:
                self._m.namespace.bury(step.grave)
            step.node.attributes = replace(attributes, ctime_ns=step.arrived.time_ns)

    def _arrivals(self, steps: Sequence[Step]) -> list[MetaWrite]:
        last = self._m.namespace.last_revision
        rewrite = self._m.rewrite
        return [rewrite(with_times(step.moved), last(step.moved.subject)) for step in steps]


def _departures(steps: Sequence[Step]) -> list[MetaWrite]:
    """Tombstones, in the order of the arrivals."""
    taken_over = {step.moved.subject for step in steps}
    return [
        MetaWrite(tombstone(step.info), step.info.revision, ttl=TOMBSTONE_TTL)
        for step in steps
        if step.info.subject not in taken_over
    ]


def _paired(steps: list[Step], stored: tuple[ObjectInfo, ...]) -> list[Done]:
    graves = {info.subject: info for info in stored[len(steps) :]}
    return [
        Done(step.node, arrived, graves.get(step.info.subject))
        for step, arrived in zip(steps, stored[: len(steps)], strict=True)
    ]


def _parts(steps: list[Step]) -> list[list[Step]]:
    return [steps[start : start + MAX_BATCH] for start in range(0, len(steps), MAX_BATCH)]
