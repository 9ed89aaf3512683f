"""Metas on their way to other names: what renames and hard links are made of.

Each meta is published under its new name, and a tombstone under the old one unless another meta of
the same change arrives there.  All of it is one atomic batch where the bucket has batches and the
metas are few enough; `stepwise` does the rest.

Concurrency: callers hold the reservation of every name that their steps touch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from natsfs.filesystem.appearance import attributes_of
from natsfs.filesystem.attributes import with_times
from natsfs.filesystem.publisher import Publisher
from natsfs.filesystem.state import Mounted
from natsfs.filesystem.stepwise import Done, Step, Stepwise, departure
from natsfs.store.model import MetaWrite, ObjectInfo
from natsfs.tree.nodes import EntryChange, Leaf, NodeChange

__all__ = ["MAX_BATCH", "Done", "Relocation", "Step"]

#: Messages in one atomic batch (protocol.md 2.5).
MAX_BATCH = 1000


class Relocation:
    """Publishes steps, and tells the tree of them."""

    def __init__(self, mounted: Mounted, publisher: Publisher) -> None:
        self._m = mounted
        self._publisher = publisher

    async def publish(self, steps: Callable[[], list[Step]]) -> list[Done]:
        """Publish *steps*, which are asked for anew when a compare-and-set is lost.

        Errors: those of *steps* and of `ObjectStore.commit`.
        """
        taken = steps()
        if not taken:
            return []
        decided = [taken]

        def current() -> list[Step]:
            return decided.pop() if decided else steps()

        def build() -> list[MetaWrite]:
            taken[:] = current()
            return [*self._arrivals(taken), *map(departure, _leaving(taken))]

        count = len(taken) + len(_leaving(taken))
        resumed = any(step.arrived is not None for step in taken)
        if self._m.atomic and count <= MAX_BATCH and not resumed:
            return _paired(taken, await self._publisher.publish(build))
        part = MAX_BATCH if self._m.atomic else 1
        return await Stepwise(self._m, self._publisher, part).publish(current)

    def settle(self, done: list[Done]) -> None:
        """Take over into the tree what was acknowledged; the nodes have their new places."""
        for step in done:
            if step.grave is not None:
                self._m.namespace.bury(step.grave)
            if step.arrived.deleted:
                self._gone(step)
            else:
                self._arrived(step)

    def _arrived(self, step: Done) -> None:
        node = step.node
        # What nobody has looked at needs no decoding for that: of 1,000 files it took 40 ms.
        unknown = isinstance(node, Leaf) and node.attributes is None
        attributes = None if unknown else attributes_of(self._m, node)
        self._m.namespace.confirm(node, step.arrived)
        self._m.unconfirmed.add(step.arrived.subject)
        if step.foreign:
            node.attributes = None
            self._m.notifier.changed([NodeChange(node)])
        elif attributes is not None:
            node.attributes = replace(attributes, ctime_ns=step.arrived.time_ns)

    def _gone(self, step: Done) -> None:
        """Another client deleted the object while its name was changing."""
        node = step.node
        self._m.namespace.forget(node, step.arrived)
        if isinstance(node, Leaf) and node.parent is not None:
            change = EntryChange(node.parent, node.name, gone=node)
            self._m.notifier.changed([change, *self._m.namespace.detach(node)])

    def _arrivals(self, steps: Sequence[Step]) -> list[MetaWrite]:
        last, rewrite = self._m.namespace.last_revision, self._m.rewrite
        return [rewrite(with_times(step.moved), last(step.moved.subject)) for step in steps]


def _leaving(steps: Sequence[Step]) -> list[ObjectInfo]:
    """The metas whose names are left to nobody, in the order of the arrivals."""
    taken_over = {step.moved.subject for step in steps}
    return [step.info for step in steps if step.info.subject not in taken_over]


def _paired(steps: list[Step], stored: tuple[ObjectInfo, ...]) -> list[Done]:
    graves = {info.subject: info for info in stored[len(steps) :]}
    return [
        Done(step.node, arrived, graves.get(step.info.subject))
        for step, arrived in zip(steps, stored[: len(steps)], strict=True)
    ]
