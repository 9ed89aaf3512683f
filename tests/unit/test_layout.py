"""Where the bytes of a version are: proved, learned, cut into runs."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsfs.store.layout import Indexed, Place, Stretches, Uniform, learn, prove, runs
from natsfs.store.model import ObjectInfo

CHUNK = 100


def info(size: int, chunks: int, max_chunk_size: int = CHUNK) -> ObjectInfo:
    return ObjectInfo(
        "a", "b", "s", nuid="n", size=size, chunks=chunks, max_chunk_size=max_chunk_size
    )


def test_full_chunks_in_a_row_are_proved() -> None:
    """R2: three chunks of which the last is short are at consecutive sequences."""
    layout = prove(info(250, 3), first=7, last=9, last_length=50)
    assert layout == Uniform(7, CHUNK, 250)
    assert layout.places(0, 250) == [Place(7, 0, 100), Place(8, 100, 100), Place(9, 200, 50)]


@pytest.mark.parametrize(
    ("first", "last", "last_length"),
    [
        pytest.param(7, 10, 50, id="a foreign message in between"),
        pytest.param(7, 8, 50, id="a chunk is missing"),
        pytest.param(7, 9, 60, id="another last length"),
        pytest.param(7, 9, 0, id="an empty last chunk"),
        pytest.param(7, 9, 250, id="a last chunk as large as the object"),
        pytest.param(7, 9, 150, id="a last chunk larger than the others"),
    ],
)
def test_anything_else_is_not_proved(first: int, last: int, last_length: int) -> None:
    """R5: a layout that the ends do not prove has to be learned."""
    assert prove(info(250, 3), first, last, last_length) is None


def test_single_chunk() -> None:
    """One chunk is proved by its length alone."""
    assert prove(info(30, 1), 4, 4, 30) == Uniform(4, 30, 30)
    assert prove(info(30, 1), 4, 4, 29) is None
    assert prove(info(30, 1), 4, 5, 30) is None


@pytest.mark.parametrize("max_chunk_size", [0, 99, 101])
def test_chunk_size_is_never_guessed(max_chunk_size: int) -> None:
    """R5: a size that would fit is not assumed where the meta has none or another; of two chunks
    the first's length follows."""
    assert prove(info(250, 3, max_chunk_size), 7, 9, 50) is None
    assert prove(info(150, 2, max_chunk_size), 7, 8, 50) == Uniform(7, 100, 150)


def test_extra_empty_chunk_of_dotnet() -> None:
    """R5: the empty message that .NET appends and does not count is no reason to learn."""
    layout = prove(info(200, 2), first=7, last=9, last_length=0)
    assert layout == Uniform(7, CHUNK, 200)
    assert layout.places(0, 200)[-1] == Place(8, 100, 100)


def test_range_is_cut_at_the_size() -> None:
    """R2: a range beyond the end has no chunk, and one over the end stops there."""
    layout = Uniform(7, CHUNK, 250)
    assert layout.places(250, 300) == []
    assert layout.places(249, 10**12) == [Place(9, 200, 50)]
    assert layout.places(99, 101) == [Place(7, 0, 100), Place(8, 100, 100)]


def test_learned_with_holes() -> None:
    """R5: interleaved, short and empty chunks are found by their sequences."""
    layout = learn(info(111, 3), [(3, 100), (5, 0), (9, 10), (10, 1)])
    assert isinstance(layout, Indexed)
    assert layout.places(99, 111) == [Place(3, 0, 100), Place(9, 100, 10), Place(10, 110, 1)]


def test_learned_uniform_collapses() -> None:
    """What turns out to be uniform needs no index."""
    assert learn(info(250, 3), [(7, 100), (8, 100), (9, 50)]) == Uniform(7, CHUNK, 250)


def test_coincidence_does_not_collapse() -> None:
    """R5: short chunks in the middle whose sum fits a uniform layout are not taken for one."""
    layout = learn(info(250, 3), [(7, 150), (8, 50), (9, 50)])
    assert layout is not None
    assert layout.places(0, 250) == [Place(7, 0, 150), Place(8, 150, 50), Place(9, 200, 50)]


@pytest.mark.parametrize("chunks", [[], [(1, 100)], [(1, 100), (2, 200)]])
def test_wrong_sum_is_no_layout(chunks: list[tuple[int, int]]) -> None:
    """Chunks that are not as many bytes as the meta says are no layout of it."""
    assert learn(info(250, len(chunks)), chunks) is None


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=30), st.integers(0, 900), st.integers(0, 900)
)
def test_places_cover_any_range(lengths: list[int], start: int, stop: int) -> None:
    """R2, R5: whatever the chunks, the places are just those that the range touches."""
    size = sum(lengths)
    chunks = [(3 * number, length) for number, length in enumerate(lengths, 1)]
    layout = learn(info(size, len(lengths)), chunks)
    expected = [
        Place(sequence, end - length, length)
        for (sequence, length), end in zip(chunks, accumulate(lengths), strict=True)
        if length and max(start, end - length) < min(stop, end)
    ]
    if layout is None:
        assert size == 0 or len(lengths) == 0
    else:
        assert layout.places(start, stop) == expected


@given(
    size=st.integers(1, 5000),
    chunk=st.integers(1, 700),
    start=st.integers(0, 5000),
    stop=st.integers(0, 5000),
)
def test_proved_and_learned_agree(size: int, chunk: int, start: int, stop: int) -> None:
    """A uniform layout gives the same places as an index of it."""
    count = -(-size // chunk)
    last = size - (count - 1) * chunk
    proved = prove(info(size, count, chunk), 11, 10 + count, last)
    indexed = Indexed([(11 + k, chunk if k < count - 1 else last) for k in range(count)])
    assert proved is not None
    assert proved.places(start, stop) == indexed.places(start, stop)


def test_runs_end_at_gaps_and_at_the_bound() -> None:
    """A run is consecutive and within the bound, but never empty."""
    places = [Place(s, 10 * s, 10) for s in (1, 2, 3, 5, 6)]
    found = [[place.sequence for place in run] for run in runs(places, 20)]
    assert found == [[1, 2], [3], [5, 6]]
    assert [len(run) for run in runs(places, 1)] == [1, 1, 1, 1, 1]
    assert list(runs([], 20)) == []


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2))))
def test_stretches(steps: list[tuple[int, int]]) -> None:
    """W4: chunks come out of stretches as they went in."""
    chunks: list[tuple[int, int]] = []
    for step, length in steps:
        chunks.append((step + (chunks[-1][0] if chunks else 0), length))
    stretches = Stretches(chunks)
    assert list(stretches) == chunks
    assert (len(stretches), stretches.size) == (len(chunks), sum(length for _, length in chunks))
    assert (stretches.last, stretches.last_length) == (chunks[-1] if chunks else (0, 0))
    assert stretches.first == (chunks[0][0] if chunks else 0)
    for count in range(len(chunks) + 2):
        alike = [length for _, length in chunks[:count]] == [1] * count
        assert stretches.begins_with(count, 1) == alike


def test_a_long_stretch_takes_no_memory() -> None:
    """W4: a million chunks that nothing lies between are one stretch."""
    stretches = Stretches((sequence, 131072) for sequence in range(5, 1_000_005))
    stretches.add(1_000_005, 17)
    assert len(stretches._firsts) == 2
    layout = learn(info(131072 * 10**6 + 17, 10**6 + 1, 131072), stretches)
    assert layout == Uniform(5, 131072, 131072 * 10**6 + 17)
