"""The memory that is kept for the reading of requests."""

from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from natsfs.errors import OutOfMemory
from natsfs.operations import reserve as module
from natsfs.operations.reserve import BLOCKS, LEAST_BLOCKS, Reserve


class Heap:
    """An allocator that has *room* blocks."""

    def __init__(self, room: int) -> None:
        self.room = room

    def malloc(self, size: int) -> int | None:
        self.room -= 1
        if self.room < 0:
            self.room = 0
            return None
        return 1

    def free(self, block: int) -> None:
        self.room += 1


@pytest.fixture
def heap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heap]:
    """Room for the whole reserve, in a process with a limit that it does not reach."""
    heap = Heap(BLOCKS)
    monkeypatch.setattr(module, "malloc", heap.malloc)
    monkeypatch.setattr(module, "free", heap.free)
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 46, hard))
    yield heap
    resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def test_the_reserve_is_there_for_reading(heap: Heap) -> None:
    """E: it is held between requests, and free while one is read."""
    reserve = Reserve(lambda: None)
    assert reserve.take()
    assert heap.room == 0
    reserve.give()
    assert heap.room == BLOCKS
    reserve.demand()
    assert heap.room == 0


@pytest.mark.expects_log("memory is short")
def test_what_keeps_memory_is_refused(heap: Heap) -> None:
    """E: with less than all of it a read or a write is refused, and the next request still read;
    with less than one needs, none is."""
    relieved: list[int] = []
    reserve = Reserve(lambda: relieved.append(heap.room))
    heap.room = LEAST_BLOCKS
    with pytest.raises(OutOfMemory):
        reserve.demand()
    assert reserve.enough
    assert relieved == [0]
    reserve.give()
    heap.room = LEAST_BLOCKS - 1
    assert not reserve.take()
    assert not reserve.enough
    assert len(relieved) == 1, "not for every request"
    heap.room = BLOCKS
    reserve.demand()


def test_what_can_be_spared_is_given_up_first(heap: Heap) -> None:
    """E: nothing is refused while there is memory that nobody needs."""

    def relieve() -> None:
        heap.room += BLOCKS

    heap.room = 0
    Reserve(relieve).demand()


def test_nothing_is_let_go_of_without_a_limit(heap: Heap) -> None:
    """E: where allocations do not fail, requests do not pay for it."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    if any(
        resource.getrlimit(kind)[0] != resource.RLIM_INFINITY
        for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    ):
        pytest.skip("this process has a limit of its own")
    reserve = Reserve(lambda: None)
    reserve.take()
    reserve.give()
    assert heap.room == 0
