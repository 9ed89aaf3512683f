"""The read-ahead policy: what it asks for, and when it asks for nothing."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from natsfs.data.readahead import FIRST_WINDOW, LARGEST_WINDOW, Readahead, Window

BLOCK = 128 * 1024
reads = st.lists(
    st.tuples(st.integers(0, 64 * 1024**2), st.integers(1, 1024**2)), min_size=1, max_size=60
)


def sequential(policy: Readahead, start: int, size: int, times: int) -> list[Window]:
    """The windows that a program gets which reads *size* bytes after the other from *start*."""
    windows = [policy.next_window(start + size * turn, size) for turn in range(times)]
    return [window for window in windows if window.stop > window.start]


def test_first_read_asks_for_nothing() -> None:
    """R2: one read costs the blocks that it touches."""
    window = Readahead(BLOCK).next_window(0, 4096)
    assert window.start == window.stop


@given(st.integers(0, 10**12), st.integers(4096, 1024**2))
def test_sequential_windows_double(start: int, size: int) -> None:
    """R2: a sequential reader gets windows that grow to the largest one, without gap or overlap."""
    policy = Readahead(BLOCK)
    windows = sequential(policy, start, size, 40 * 1024**2 // size)
    assert windows[0].start == start + 2 * size
    assert windows[0].stop == windows[0].start + max(FIRST_WINDOW, size)
    assert all(left.stop == right.start for left, right in pairwise(windows))
    reached = [window.stop for window in windows]
    assert max(stop - start for stop in reached) > 40 * 1024**2
    assert windows[-1].stop - windows[-1].start >= LARGEST_WINDOW // 2


@given(reads)
def test_windows_are_bounded(chaos: list[tuple[int, int]]) -> None:
    """R2: whatever the order of reads, a window lies behind the read and within its bound."""
    policy = Readahead(BLOCK)
    for offset, size in chaos:
        window = policy.next_window(offset, size)
        assert offset + size <= window.start <= window.stop
        assert window.stop <= window.start + LARGEST_WINDOW
        if window.start < window.stop:
            assert window.stop <= offset + size + LARGEST_WINDOW


@given(st.permutations(range(0, 200, 4)))
def test_scattered_reads_ask_for_nothing(order: list[int]) -> None:
    """R2: random access reads nothing ahead, after a sequential run neither."""
    policy = Readahead(BLOCK)
    sequential(policy, 0, BLOCK, 100)
    far = 1024**3
    for place in order:
        window = policy.next_window(far + place * LARGEST_WINDOW, 4096)
        assert window.start == window.stop


def test_backward_reads_ask_for_nothing() -> None:
    """R2: reading from the end to the start reads nothing ahead."""
    policy = Readahead(BLOCK)
    for place in range(400, 0, -1):
        window = policy.next_window(place * BLOCK, BLOCK)
        assert window.start == window.stop


def test_strided_reads_stop_the_window() -> None:
    """R2: a reader that begins to skip blocks soon costs only the blocks that it touches."""
    policy = Readahead(BLOCK)
    windows = sequential(policy, 0, BLOCK, 200)
    place, asked = 200 * BLOCK, windows[-1].stop
    for turn in range(100):
        window = policy.next_window(place + turn * 4 * BLOCK, 4096)
        asked += window.stop - window.start
    assert asked - windows[-1].stop <= LARGEST_WINDOW


def test_mostly_skipping_reader_loses_the_window() -> None:
    """R2: a reader that skips more often than not ends without a window, though it stays near."""
    policy = Readahead(BLOCK)
    sequential(policy, 0, BLOCK, 200)
    place = 200 * BLOCK
    for turn in range(40):
        policy.next_window(place, 4096)
        place += BLOCK if turn % 3 == 0 else 3 * BLOCK
        if not policy.streaming:
            break
    assert place < 200 * BLOCK + LARGEST_WINDOW
    assert not policy.streaming


def test_reordered_reads_stay_sequential() -> None:
    """R2: requests that the kernel delivers in pairs swapped are still one sequential reader."""
    policy = Readahead(BLOCK)
    order = [turn + (1 if turn % 2 == 0 else -1) for turn in range(400)]
    stops = [policy.next_window(turn * BLOCK, BLOCK).stop for turn in [0, 1, 2, *order[4:]]]
    assert max(stops) > order[-1] * BLOCK + LARGEST_WINDOW // 2


def test_limit_bounds_the_window() -> None:
    """R2: where memory is scarce the caller's limit holds."""
    policy = Readahead(BLOCK)
    for turn in range(100):
        window = policy.next_window(turn * BLOCK, BLOCK, limit=512 * 1024)
        assert window.stop <= (turn + 1) * BLOCK + max(
            512 * 1024, window.start - (turn + 1) * BLOCK
        )
