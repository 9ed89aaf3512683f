"""Reservations: who has to wait for whom."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from natsfs.filesystem.reservations import Key, Reservations, Subtree


def keys(*wanted: str) -> frozenset[Key]:
    """Names, and subtrees where they end in a slash and a star."""
    return frozenset(Subtree(text[:-1]) if text.endswith("/*") else text for text in wanted)


@pytest.mark.parametrize(
    ("one", "other", "conflict"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("a", "a/", False),
        ("a/b", "a/*", True),
        ("a/", "a/*", True),
        ("a", "a/*", False),
        ("ab/c", "a/*", False),
        ("a/*", "a/b/*", True),
        ("a/b/*", "a/*", True),
        ("a/*", "b/*", False),
        ("a/*", "ab/*", False),
    ],
)
async def test_exclusion(one: str, other: str, conflict: bool) -> None:
    """W1: two changes of one name come one after the other, those of different ones need not."""
    reservations = Reservations()
    for first, second in ((one, other), (other, one)):
        running: list[str] = []

        async def hold(name: str, done: trio.Event, log: list[str] = running) -> None:
            async with reservations.hold(lambda: keys(name)):
                log.append(name)
                await done.wait()

        done = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hold, first, done)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(hold, second, done)
            await trio.testing.wait_all_tasks_blocked()
            assert len(running) == (1 if conflict else 2)
            done.set()
        assert len(running) == 2


async def test_keys_are_asked_again() -> None:
    """A2: what a change reserves is decided anew after each wait."""
    reservations = Reservations()
    name = "old"
    entered = trio.Event()

    async def change() -> None:
        async with reservations.hold(lambda: keys(name)):
            assert reservations.covers("new")
            entered.set()

    async with trio.open_nursery() as nursery, reservations.hold(lambda: keys("old")):
        nursery.start_soon(change)
        await trio.testing.wait_all_tasks_blocked()
        name = "new"
        async with reservations.hold(lambda: keys("other")):
            pass
        await trio.testing.wait_all_tasks_blocked()
        assert entered.is_set()


async def test_release_on_error() -> None:
    """W7: a change that fails, or is cancelled, gives its names back."""
    reservations = Reservations()
    with pytest.raises(KeyError):
        async with reservations.hold(lambda: keys("a", "b/*")):
            raise KeyError
    with trio.move_on_after(0):
        async with reservations.hold(lambda: keys("a", "b/*")):
            await trio.sleep_forever()
    assert not reservations.covers("a")
    assert not reservations.covers("b/c")


async def test_cancelled_while_waiting() -> None:
    """W7: who stops waiting has reserved nothing."""
    reservations = Reservations()
    async with reservations.hold(lambda: keys("a")):
        with trio.move_on_after(0):
            async with reservations.hold(lambda: keys("a", "b")):
                raise AssertionError("both hold it")
        assert not reservations.covers("b")


async def test_release_is_told() -> None:
    """A1: whoever put something off hears of each release, when the names are free."""
    reservations = Reservations()
    seen: list[bool] = []
    reservations.on_release = lambda: seen.append(reservations.covers("a"))
    async with reservations.hold(lambda: keys("a")):
        async with reservations.hold(lambda: keys("b")):
            pass
        assert seen == [True]
    assert seen == [True, False]


async def test_nothing_to_reserve() -> None:
    """W5: a file without a name reserves nothing and waits for nobody."""
    reservations = Reservations()
    async with reservations.hold(lambda: keys("a")), reservations.hold(frozenset):
        assert reservations.covers("a")


async def test_markers_are_covered_by_what_is_below() -> None:
    """N1: what the watch tells of a directory's marker is put off while an entry is on its way."""
    reservations = Reservations()
    async with reservations.hold(lambda: keys("d/e/f")):
        assert reservations.covers("d/")
        assert reservations.covers("d/e/")
        assert not reservations.covers("d/e")
        assert not reservations.covers("x/")
        assert not reservations.covers("d/e/f/")
