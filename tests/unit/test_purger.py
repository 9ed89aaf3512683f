"""The purger: not before its time, not under a reader, and not never."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from natsfs.errors import RequestTimeout
from natsfs.filesystem.purger import AT_ONCE, RETRY, Purger
from natsfs.store.memory import MemoryManager, MemoryStore
from natsfs.store.model import BucketConfig, Link, ObjectInfo

DELAY = 10.0


class Recorder(MemoryStore):
    """A store that remembers when it freed which version."""

    def __init__(self, manager: MemoryManager, store: MemoryStore) -> None:
        super().__init__(manager, store.stream)
        self.freed: list[tuple[float, str]] = []
        self.asked = 0
        self.error: Exception | None = None
        self.gate = trio.Event()
        self.gate.set()

    async def purge_chunks(self, nuid: str) -> int:
        self.asked += 1
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.freed.append((trio.current_time(), nuid))
        return await super().purge_chunks(nuid)


def version(nuid: str, **changes: object) -> ObjectInfo:
    """A version with chunks."""
    arguments: dict[str, object] = {"nuid": nuid, "chunks": 1, "size": 1, **changes}
    return ObjectInfo("name", "b", "subject", **arguments)  # type: ignore[arg-type]


def on_mock_clock(test: Callable[[Recorder, Purger], Awaitable[None]]) -> None:
    """Run *test* with a purger at work, on a clock that jumps when there is nothing to do."""

    async def main() -> None:
        manager = MemoryManager()
        store = Recorder(manager, await manager.create(BucketConfig("b")))
        purger = Purger(store, DELAY)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(purger.run)
            await test(store, purger)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_delay() -> None:
    """W6: a version is freed when the delay has passed, each at its own time."""

    async def test(store: Recorder, purger: Purger) -> None:
        start = trio.current_time()
        purger.schedule(version("one"))
        await trio.sleep(4)
        purger.schedule(version("two"))
        assert len(purger) == 2
        await trio.sleep(60)
        assert store.freed == [(start + DELAY, "one"), (start + 4 + DELAY, "two")]
        assert len(purger) == 0

    on_mock_clock(test)


def test_readers() -> None:
    """W6: a version that handles read stays until the last one is done, and not longer."""

    async def test(store: Recorder, purger: Purger) -> None:
        start = trio.current_time()
        for _ in range(2):
            purger.hold("read")
        purger.schedule(version("read"))
        await trio.sleep(100)
        purger.release("read")
        await trio.sleep(100)
        assert store.freed == []
        assert len(purger) == 1
        purger.release("read")
        await trio.sleep(1)
        assert store.freed == [(start + 200, "read")]

    on_mock_clock(test)


def test_reader_that_is_done_early() -> None:
    """W6: readers of other hosts have the delay also when ours are done."""

    async def test(store: Recorder, purger: Purger) -> None:
        start = trio.current_time()
        purger.hold("read")
        purger.schedule(version("read"))
        purger.release("read")
        await trio.sleep(100)
        assert store.freed == [(start + DELAY, "read")]

    on_mock_clock(test)


def test_drain() -> None:
    """W6: when space is short all is freed at once, but what is read."""

    async def test(store: Recorder, purger: Purger) -> None:
        purger.hold("read")
        for nuid in ("one", "read", "two"):
            purger.schedule(version(nuid))
        assert await purger.drain() == 2
        assert {nuid for _, nuid in store.freed} == {"one", "two"}
        assert await purger.drain() == 0
        purger.release("read")
        assert await purger.drain() == 1

    on_mock_clock(test)


def test_many_at_once() -> None:
    """W6: of many versions several are freed at once, and not all: others want the server, too."""

    async def test(store: Recorder, purger: Purger) -> None:
        store.gate = trio.Event()
        for number in range(3 * AT_ONCE):
            purger.schedule(version(f"{number}"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(purger.drain)
            await trio.testing.wait_all_tasks_blocked()
            assert store.asked == AT_ONCE
            store.gate.set()
        assert {nuid for _, nuid in store.freed} == {f"{number}" for number in range(3 * AT_ONCE)}

    on_mock_clock(test)


def test_drain_waits_for_what_is_being_freed() -> None:
    """W6: what is just being freed counts as freed by the drain, which waits for it."""

    async def test(store: Recorder, purger: Purger) -> None:
        store.gate = trio.Event()
        purger.schedule(version("one"))
        await trio.sleep(DELAY + 1)
        assert len(purger) == 0
        drained: list[int] = []

        async def drain() -> None:
            drained.append(await purger.drain())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            await trio.testing.wait_all_tasks_blocked()
            assert drained == []
            store.gate.set()
        assert drained == [1]

    on_mock_clock(test)


@pytest.mark.parametrize(
    "info",
    [
        version(""),
        version("n", chunks=0),
        version("n", deleted=True),
        version("n", link=Link("b", "x")),
    ],
)
def test_nothing_to_free(info: ObjectInfo) -> None:
    """W6: what has no chunks of its own is not purged."""

    async def test(store: Recorder, purger: Purger) -> None:
        purger.schedule(info)
        assert len(purger) == 0
        assert await purger.drain() == 0

    on_mock_clock(test)


@pytest.mark.expects_log("chunks of version one could not be freed")
def test_failure() -> None:
    """W6: a version that cannot be freed is logged, and the others are."""

    async def test(store: Recorder, purger: Purger) -> None:
        store.error = RequestTimeout("no answer")
        purger.schedule(version("one"))
        await trio.sleep(DELAY + 1)
        store.error = None
        purger.schedule(version("two"))
        await trio.sleep(DELAY + 1)
        assert [nuid for _, nuid in store.freed] == ["two"]

    on_mock_clock(test)


@pytest.mark.expects_log("chunks of version .* could not be freed")
def test_what_the_server_did_not_answer_to_is_freed_later() -> None:
    """A5, W6: chunks that could not be freed while the server was away are freed when it is back,
    and draining meanwhile does not go on for ever."""

    async def test(store: Recorder, purger: Purger) -> None:
        store.error = RequestTimeout("away")
        for number in range(AT_ONCE + 5):
            purger.schedule(version(f"v{number}"))
        await trio.sleep(DELAY + 1)
        assert await purger.drain() == 0
        assert len(purger) == AT_ONCE + 5
        store.error = None
        await trio.sleep(RETRY + 1)
        assert {nuid for _, nuid in store.freed} == {f"v{number}" for number in range(AT_ONCE + 5)}
        assert not len(purger)

    on_mock_clock(test)
