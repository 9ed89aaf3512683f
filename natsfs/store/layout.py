"""Where the bytes of one version are: byte offset to stream sequence.

Pure.  All chunks of a version share one subject and carry no index, so a layout is either *proved*
from the first and last chunk (protocol.md 3.1) or *learned* from the sequence and length of every
chunk.  Whoever fetches a chunk compares its length with `Place.length`: that catches the one thing
that a proof has to believe, the meta's chunk size.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from natsfs.store.model import ObjectInfo


@dataclass(frozen=True, slots=True)
class Place:
    """One chunk: the sequence of its message, the offset of its first byte, its length."""

    sequence: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Uniform:
    """Chunk k is message *first* + k, and all but the last are *chunk_size* bytes long."""

    first: int
    chunk_size: int
    size: int

    def places(self, start: int, stop: int) -> list[Place]:
        """The chunks that hold the bytes [*start*, *stop*), cut at the size."""
        stop = min(stop, self.size)
        if start >= stop:
            return []
        chunk = self.chunk_size
        return [
            Place(self.first + k, k * chunk, min(chunk, self.size - k * chunk))
            for k in range(start // chunk, (stop - 1) // chunk + 1)
        ]


class Indexed:
    """Chunks of any length on any sequences, in order.  16 bytes of memory for each."""

    def __init__(self, chunks: Iterable[tuple[int, int]]) -> None:
        self._sequences = array("Q")
        self._ends = array("Q")
        end = 0
        for sequence, length in chunks:
            # An empty chunk holds no byte, so nobody ever needs it.
            if length:
                end += length
                self._sequences.append(sequence)
                self._ends.append(end)
        self.size = end

    def places(self, start: int, stop: int) -> list[Place]:
        """The chunks that hold the bytes [*start*, *stop*), cut at the size."""
        stop = min(stop, self.size)
        found: list[Place] = []
        index = bisect_right(self._ends, start)
        while start < stop:
            end = self._ends[index]
            begin = self._ends[index - 1] if index else 0
            found.append(Place(self._sequences[index], begin, end - begin))
            start, index = end, index + 1
        return found


Layout = Uniform | Indexed


def prove(info: ObjectInfo, first: int, last: int, last_length: int) -> Uniform | None:
    """The uniform layout of *info* if its chunks from *first* to *last*, the latter of
    *last_length* bytes, can have no other; None when they can or do.

    No chunk size is ever guessed: with one that only fits the sum, a chunk of just that length
    after shorter and longer ones would be taken for bytes that it does not hold.
    """
    size, chunks = info.size, info.chunks
    # .NET appends an empty message to a multiple of the chunk size, and does not count it.
    if last_length == 0 and last - first == chunks and info.max_chunk_size * chunks == size:
        return Uniform(first, info.max_chunk_size, size) if size else None
    if last - first + 1 != chunks or not 0 < last_length <= size:
        return None
    if chunks == 1:
        return Uniform(first, size, size) if last_length == size else None
    # The length of the first of two chunks follows from the other's.
    full = info.max_chunk_size if chunks > 2 else size - last_length
    if full < last_length or full * (chunks - 1) + last_length != size:
        return None
    return Uniform(first, full, size)


class Stretches:
    """(sequence, length) of the chunks of a version, in order.

    Chunks on consecutive sequences and of one length are one stretch, of 24 bytes: what nobody
    disturbs takes no memory, however large it is.
    """

    def __init__(self, chunks: Iterable[tuple[int, int]] = ()) -> None:
        self.size = 0
        self._chunks = 0
        self._firsts = array("Q")
        self._counts = array("Q")
        self._lengths = array("Q")
        for sequence, length in chunks:
            self.add(sequence, length)

    def __len__(self) -> int:
        return self._chunks

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for first, count, length in zip(self._firsts, self._counts, self._lengths, strict=True):
            for sequence in range(first, first + count):
                yield sequence, length

    def add(self, sequence: int, length: int) -> None:
        """Put one chunk last."""
        self.size += length
        self._chunks += 1
        if self._chunks > 1 and length == self._lengths[-1] and sequence == self.last + 1:
            self._counts[-1] += 1
        else:
            self._firsts.append(sequence)
            self._counts.append(1)
            self._lengths.append(length)

    @property
    def first(self) -> int:
        """The sequence of the first chunk; 0 if there is none."""
        return self._firsts[0] if self._firsts else 0

    @property
    def last(self) -> int:
        """The sequence of the last chunk; 0 if there is none."""
        return self._firsts[-1] + self._counts[-1] - 1 if self._firsts else 0

    @property
    def last_length(self) -> int:
        """How long that is."""
        return self._lengths[-1] if self._lengths else 0

    def begins_with(self, count: int, length: int) -> bool:
        """Whether the first *count* chunks are *length* bytes long, each of them."""
        for stretch, found in zip(self._counts, self._lengths, strict=True):
            if count <= 0:
                break
            if found != length:
                return False
            count -= stretch
        return count <= 0


def learn(info: ObjectInfo, chunks: Iterable[tuple[int, int]]) -> Layout | None:
    """The layout of *chunks*, (sequence, length) of every message of the version in order; None
    when they are not as many bytes as *info* says."""
    stretches = chunks if isinstance(chunks, Stretches) else Stretches(chunks)
    if stretches.size != info.size or not stretches:
        return None
    uniform = prove(info, stretches.first, stretches.last, stretches.last_length)
    if uniform and stretches.begins_with(info.chunks - 1, uniform.chunk_size):
        return uniform
    return Indexed(stretches)


def runs(places: Sequence[Place], most_bytes: int) -> Iterator[Sequence[Place]]:
    """*places* cut into stretches on consecutive sequences of at most *most_bytes* each, but of at
    least one chunk: what one unfiltered batch can fetch."""
    begin, total = 0, 0
    for index, place in enumerate(places):
        gap = index > begin and place.sequence != places[index - 1].sequence + 1
        if gap or (index > begin and total + place.length > most_bytes):
            yield places[begin:index]
            begin, total = index, 0
        total += place.length
    if places:
        yield places[begin:]
