"""Which bytes of a file were written, and which are still those of the version below it.

Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Held:
    """The bytes [*start*, *stop*) were written."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Base:
    """The bytes [*start*, *stop*) are those of the base version."""

    start: int
    stop: int


class Coverage:
    """A file of *size* bytes that had *base_size* of them from its base version, less where one of
    the intervals *held* covers these; what lies beyond was written, or is zeros."""

    def __init__(
        self, base_size: int, size: int | None = None, held: Iterable[tuple[int, int]] = ()
    ) -> None:
        self.size = base_size if size is None else size
        self.base_size = base_size  # how far the base shows; truncating takes it away for good
        self._written = _Intervals()  # where the base is covered; beyond it all is held
        for start, stop in held:
            self._written.add(start, stop)

    @property
    def held(self) -> tuple[tuple[int, int], ...]:
        """Where the base is covered."""
        return self._written.all()

    def write(self, start: int, stop: int) -> None:
        """The bytes [*start*, *stop*) were written; a gap behind the old end is zeros."""
        if start < self.base_size:
            self._written.add(start, min(stop, self.base_size))
        self.size = max(self.size, stop)

    def cut(self, size: int) -> None:
        """Set the size.  What is cut off is forgotten: growing again brings zeros."""
        if size < self.base_size:
            self._written.cut(size)
        self.base_size = min(self.base_size, size)
        self.size = size

    def holds(self, start: int, stop: int) -> bool:
        """Whether all of [*start*, *stop*), which is not empty, is held within the size."""
        inside = stop <= self.size
        return inside and next(iter(self._held(start, stop)), None) == (start, stop)

    def pieces(self, start: int, stop: int) -> list[Held | Base]:
        """Who has the bytes [*start*, *stop*), cut at the size: pieces in order and without gaps.

        What lies beyond the base and was never written is held, as zeros.
        """
        stop = min(stop, self.size)
        found: list[Held | Base] = []
        position = start
        for held_from, held_to in self._held(start, stop):
            if position < held_from:
                found.append(Base(position, held_from))
            found.append(Held(held_from, held_to))
            position = held_to
        if position < stop:
            found.append(Base(position, stop))
        return found

    def _held(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The held parts of [*start*, *stop*): what was written, then all beyond the base."""
        tail = max(start, self.base_size)
        for held_from, held_to in self._written.within(start, min(stop, tail)):
            if held_to == self.base_size:
                tail = held_from
            else:
                yield held_from, held_to
        if tail < stop:
            yield tail, stop


class _Intervals:
    """A set of integers as sorted intervals that neither overlap nor touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []

    def add(self, start: int, stop: int) -> None:
        first = bisect_left(self._stops, start)
        last = bisect_right(self._starts, stop)
        if first < last:
            start = min(start, self._starts[first])
            stop = max(stop, self._stops[last - 1])
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def cut(self, stop: int) -> None:
        """Leave only what is below *stop*."""
        kept = list(self.within(0, stop))
        self._starts = [start for start, _ in kept]
        self._stops = [end for _, end in kept]

    def all(self) -> tuple[tuple[int, int], ...]:
        return tuple(zip(self._starts, self._stops, strict=True))

    def within(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The intervals in [*start*, *stop*), cut to it."""
        if start >= stop:
            return
        for index in range(bisect_right(self._stops, start), bisect_left(self._starts, stop)):
            yield max(start, self._starts[index]), min(stop, self._stops[index])
