"""Buffers that are lent again: never while anybody can see them."""

from __future__ import annotations

from typing import cast

import pytest

from natsfs.store import buffers
from natsfs.store.buffers import KEPT_BYTES, LARGE_STEP, Arena, Shelf, clear_shelves, joined


def claim(arena: Arena, data: bytes) -> memoryview:
    view = arena.claim(len(data))
    assert view is not None
    view[:] = data
    return view


def test_buffers_are_lent_again_when_free() -> None:
    """A buffer that anybody can still see is never given to another message."""
    shelf = Shelf()
    first = shelf.take(1000)
    number, kept = id(first), claim(first, b"kept")[1:2]
    del first
    assert id(shelf.take(1000)) != number
    assert bytes(kept) == b"e"
    del kept
    again = {id(shelf.take(1000)) for _ in range(4)}
    assert number in again
    assert all(shelf.take(1000).filled == 0 for _ in range(4))


def test_the_shelf_is_bounded() -> None:
    """Buffers beyond the limit are forgotten, and stay with those who have them."""
    shelf = Shelf()
    size = KEPT_BYTES // 4
    lent = [shelf.take(size) for _ in range(8)]
    assert len({id(buffer) for buffer in lent}) == 8
    oldest = id(lent[0])
    del lent
    assert oldest not in {id(shelf.take(size)) for _ in range(3)}


def test_an_arena_fills_up() -> None:
    """Payloads lie one after the other, and what does not fit is refused."""
    arena = Shelf().take(LARGE_STEP + 1)
    assert len(arena) == 2 * LARGE_STEP
    assert claim(arena, b"one").obj is arena
    claim(arena, b"two")
    assert arena[:6] == b"onetwo"
    assert arena.claim(len(arena)) is None
    assert arena.filled == 6


def test_no_memory() -> None:
    """E: a buffer that cannot be had is want of memory, which callers know how to fail with."""
    with pytest.raises(MemoryError):
        Arena(1 << 60)


def test_joined() -> None:
    """Parts are one piece only if they are everything in their arena, in the order of arrival as
    far as lengths can tell."""
    arena = Shelf().take(100)
    parts = [claim(arena, b"one"), claim(arena, b"three")]
    whole = joined(parts)
    assert whole is not None
    assert bytes(whole) == b"onethree"
    assert joined(parts[:1]) is None
    assert joined([parts[0], b"three"]) is None
    assert joined([parts[0], memoryview(b"three")]) is None
    assert joined([b"one"]) is None
    assert joined([]) is None


def test_a_shelf_gives_way_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """E: what nobody uses is given up before anybody is refused a buffer; what is in use stays."""
    shelf = Shelf()
    kept = claim(shelf.take(1000), b"kept")
    room = [False, True]

    class Scarce(Arena):
        def __new__(cls, size: int) -> Scarce:
            if not room.pop(0):
                raise MemoryError
            return cast(Scarce, super().__new__(cls, size))

    monkeypatch.setattr(buffers, "Arena", Scarce)
    shelf.take(1000)
    assert not room
    assert shelf._size == buffers.SMALL_STEP
    clear_shelves()
    assert shelf._size == 0
    assert bytes(kept) == b"kept"
