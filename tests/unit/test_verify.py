"""The check of a version that is read by several requests at a time."""

from __future__ import annotations

import random

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
