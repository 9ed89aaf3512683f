"""What a mount holds of versions in memory: stretches of blocks, there or on their way.

What is fetched together stays together, in the buffer that it was received into, so that a reader
gets its bytes as a view and not as a copy.  A stretch is thrown away as a whole.

Concurrency: synchronous, but for `Flight.landed`.
"""

from __future__ import annotations

from collections import OrderedDict

import trio

from natsfs.data.version import Version
from natsfs.store.model import ObjectInfo
from natsfs.store.primitives import Data

#: Bytes that a stretch takes beside its data: objects that hold one another.
OVERHEAD = 1024


class Stretch:
    """The *blocks* of a version, whose bytes *data* has."""

    __slots__ = ("blocks", "data", "held", "start", "stop")

    def __init__(self, held: Held, blocks: range, data: Data) -> None:
        self.held = held
        self.blocks = blocks
        whole = memoryview(data)
        if memoryview(whole.obj).nbytes > 2 * whole.nbytes:
            # A part of a huge chunk, or a small object in a buffer for larger ones.
            whole = memoryview(bytes(whole))
        self.data = whole.toreadonly()
        self.start = held.version.start(blocks.start)
        self.stop = self.start + len(data)

    @property
    def cost(self) -> int:
        """Bytes of memory that it takes; its buffer may be twice as large."""
        return len(self.data) + OVERHEAD

    def cut(self, start: int, stop: int) -> memoryview:
        """What it has of the bytes [*start*, *stop*) of the version."""
        return self.data[max(start - self.start, 0) : stop - self.start]


class Flight:
    """The *blocks* of a version on their way; *ahead* if nobody needed them when that began."""

    __slots__ = ("_landed", "_outcome", "ahead", "blocks", "held")

    def __init__(self, held: Held, blocks: range, *, ahead: bool) -> None:
        self.held = held
        self.blocks = blocks
        self.ahead = ahead
        self._landed = trio.Event()
        self._outcome: Stretch | Exception | None = None

    def land(self, outcome: Stretch | Exception) -> None:
        """Tell all who wait.  Only the first outcome counts."""
        if self._outcome is None:
            self._outcome = outcome
            self._landed.set()

    async def landed(self) -> Stretch | Exception:
        """Wait for what becomes of it."""
        await self._landed.wait()
        assert self._outcome is not None
        return self._outcome


Slot = Stretch | Flight


class Held:
    """What is held of one version: *at* has the stretch or the flight that each block is part of.
    All handles of a version share it.  *refused* are the blocks that last could not be brought,
    with the reason and the time of trio's clock."""

    __slots__ = ("__weakref__", "at", "info", "refused", "version")

    def __init__(self, info: ObjectInfo, version: Version) -> None:
        self.info = info
        self.version = version
        self.at: dict[int, Slot] = {}
        self.refused: tuple[range, Exception, float] | None = None

    def put(self, slot: Slot) -> None:
        """*slot* has its blocks from now on."""
        self.at.update(dict.fromkeys(slot.blocks, slot))

    def remove(self, slot: Slot) -> None:
        """Forget *slot*, except where another one has its blocks."""
        for index in slot.blocks:
            if self.at.get(index) is slot:
                del self.at[index]


class Memory:
    """The stretches used last, *limit* bytes of them.

    Of those that a sequential reader has passed only `PASSED` bytes are kept: the kernel has their
    pages, and buffers that are soon used again are still in the processor's cache.
    """

    #: Bytes: the kernel sends requests of one reader slightly out of order.
    PASSED = 4 * 1024 * 1024

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._stretches: OrderedDict[Stretch, None] = OrderedDict()
        self._passed: OrderedDict[Stretch, None] = OrderedDict()
        self._passed_size = 0

    def use(self, stretch: Stretch) -> None:
        """*stretch* is read, or just came."""
        if stretch in self._stretches:
            self._stretches.move_to_end(stretch)
        elif stretch not in self._passed:
            stretch.held.put(stretch)
            self._stretches[stretch] = None
            self.size += stretch.cost
            while self.size > self.limit:
                self._drop(next(iter(self._passed or self._stretches)))

    def passed(self, stretch: Stretch) -> None:
        """A sequential reader has read *stretch* to its end."""
        if self._stretches.pop(stretch, self) is None:
            self._passed[stretch] = None
            self._passed_size += stretch.cost
            while self._passed_size > self.PASSED:
                self._drop(next(iter(self._passed)))

    def forget(self, held: Held) -> None:
        """Drop everything of a version."""
        for slot in set(held.at.values()):
            if isinstance(slot, Stretch):
                self._drop(slot)

    def _drop(self, stretch: Stretch) -> None:
        stretch.held.remove(stretch)
        self.size -= stretch.cost
        if self._passed.pop(stretch, self) is None:
            self._passed_size -= stretch.cost
        else:
            del self._stretches[stretch]
