"""The check of a version that is read by several requests at a time."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import trio
import trio.testing

from natsfs.data.verify import Verifier
from natsfs.errors import DigestMismatch
from natsfs.store.model import ObjectInfo
from natsfs.store.wire import EMPTY_DIGEST

DATA = random.Random(3).randbytes(700_000)
BROKEN = ObjectInfo("f", "b", "s", nuid="n", size=len(DATA), digest=EMPTY_DIGEST)


async def test_the_read_of_the_last_byte_answers_for_all() -> None:
    """R3: a mismatch is the error of the read that has the last byte, whichever ends last: an error
    on any other may be one of read-ahead, of which no program hears."""
    outcome: list[DigestMismatch] = []

    async with trio.open_nursery() as nursery:
        verifier = Verifier(BROKEN, nursery)
        first, last = verifier.expect(0, 500_000), verifier.expect(500_000, len(DATA))

        async def end() -> None:
            with pytest.raises(DigestMismatch) as caught:
                await verifier.feed(last, DATA[500_000:])
            outcome.append(caught.value)

        nursery.start_soon(end)
        await trio.testing.wait_all_tasks_blocked()
        assert not outcome
        await verifier.feed(first, DATA[:500_000])
    assert outcome


async def test_a_read_that_fails_ends_the_check() -> None:
    """R3: the read of the last byte does not wait for one that has failed."""
    async with trio.open_nursery() as nursery:
        verifier = Verifier(BROKEN, nursery)
        first, last = verifier.expect(0, 500_000), verifier.expect(500_000, len(DATA))
        nursery.start_soon(verifier.feed, last, DATA[500_000:])
        await trio.testing.wait_all_tasks_blocked()
        verifier.abandon(first)


async def test_a_reader_ahead_of_the_hash_waits_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """R3: the check holds a reader up while too much waits for it, and not until nothing does."""
    turns = trio.Semaphore(0)

    async def in_turn(work: Callable[[], None]) -> None:
        await turns.acquire()
        work()

    monkeypatch.setattr("natsfs.data.verify.in_thread_or_here", in_turn)
    monkeypatch.setattr("natsfs.data.verify.INLINE", 0)
    monkeypatch.setattr("natsfs.data.verify.AT_ONCE", 100_000)
    monkeypatch.setattr("natsfs.data.verify.BACKLOG", 250_000)
    served: list[int] = []

    async with trio.open_nursery() as nursery:
        verifier = Verifier(BROKEN, nursery)

        async def read() -> None:
            for start in range(0, 400_000, 100_000):
                claim = verifier.expect(start, start + 100_000)
                await verifier.feed(claim, DATA[start : start + 100_000])
                served.append(start)
                await trio.testing.wait_all_tasks_blocked()  # what it started has begun

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert served == [0, 100_000]
        turns.release()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert served == [0, 100_000, 200_000]
        turns.release()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert served == [0, 100_000, 200_000, 300_000]
        turns.release()
        turns.release()
