"""Asking the local disk before it is used: `natsfs.data.disk`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
import trio.testing

from natsfs.data.disk import REST, Disk, Watched


class Slow(Disk):
    """A disk that takes *delay* seconds to answer, and counts how often it is asked."""

    hangs = False

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.asked = 0

    async def probe(self) -> None:
        self.asked += 1
        await trio.sleep(self.delay)


def in_time(main: Callable[[], Awaitable[None]]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_only_a_disk_that_rested_is_asked() -> None:
    """W7: who uses the disk without a pause does not pay for asking it."""

    async def main() -> None:
        disk = Slow()
        watched = Watched(disk)
        for _ in range(10):
            await watched.ready()
            await trio.sleep(REST / 2)
        assert disk.asked == 1
        await trio.sleep(REST)
        await watched.ready()
        assert disk.asked == 2

    in_time(main)


def test_all_wait_for_one_answer() -> None:
    """W7: while the disk is being asked nobody uses it, and nobody asks again."""

    async def main() -> None:
        disk = Slow(delay=2.0)
        watched = Watched(disk)
        done: list[float] = []

        async def use() -> None:
            await watched.ready()
            done.append(trio.current_time())

        async with trio.open_nursery() as nursery:
            begin = trio.current_time()
            for _ in range(5):
                nursery.start_soon(use)
        assert [time - begin for time in done] == [2.0] * 5
        assert disk.asked == 1

    in_time(main)


def test_a_look_is_no_use() -> None:
    """W7: that somebody looks after the disk does not let others use it unasked."""

    async def main() -> None:
        disk = Slow()
        watched = Watched(disk)
        await watched.ready()
        await trio.sleep(2 * REST)
        await watched.look()
        await watched.ready()
        assert disk.asked == 3

    in_time(main)
