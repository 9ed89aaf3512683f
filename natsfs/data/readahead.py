"""Which bytes to ask for before a program does: the only module that guesses.  Pure.

One `Readahead` watches one stream: reads of a handle that follow each other.  A handle has several,
for programs that read several parts of a file in turn; a read that no stream takes begins one.

A read that leaves out no whole block after the
one before it is *sequential* and doubles the window; a read that skips within what was asked for
already halves it, so that a strided reader ends without one.
Reading again or a little backwards changes nothing: the kernel delivers the requests of one reader
slightly out of order.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Bytes of the first window: twice what the kernel reads ahead by itself (128 KiB, design.md).
FIRST_WINDOW = 256 * 1024

#: Bytes of the largest window: four requests of 4 MiB cover 16 ms of round trip at 1 GB/s.  With
#: two of them the server was out of work again and again, and going to sleep and waking up cost it
#: a tenth more processor time (1.27 ms for a MiB instead of 1.15).
LARGEST_WINDOW = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Window:
    """The bytes [*start*, *stop*) to fetch in the background; none where they are equal."""

    start: int
    stop: int


class Readahead:
    """The window of one stream, for a version read in blocks of *block_size* bytes."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._window = 0
        self._position = 0  # the end of the furthest read of the present run
        self._asked = 0  # the end of what the run has read or asked for
        self._first = True

    @property
    def streaming(self) -> bool:
        """Whether a window is open."""
        return self._window > 0

    def takes(self, offset: int) -> bool:
        """Whether a read at *offset* goes on here, or repeats what was just read."""
        reach = max(self._window, self._block_size)
        return self._position - reach <= offset <= self._asked + self._block_size

    def next_window(self, offset: int, size: int, limit: int = LARGEST_WINDOW) -> Window:
        """What to fetch beyond the read of *size* bytes at *offset* that is being served.

        Windows of one run neither overlap nor leave gaps, and end at most *limit* bytes after the
        read; the caller lowers *limit* when memory is scarce and cuts at the end of the file.  The
        first read of a stream opens no window: one small read costs one block (R2).
        """
        stop = offset + size
        first, self._first = self._first, False
        if self._is_behind(offset, stop):
            return Window(stop, stop)
        if first or offset > self._asked + self._block_size:
            self._window, self._position, self._asked = 0, stop, stop
            return Window(stop, stop)
        skipped = offset - self._position > self._block_size
        self._position = stop
        self._asked = max(self._asked, stop)
        return self._narrow() if skipped else self._widen(size, limit)

    def _is_behind(self, offset: int, stop: int) -> bool:
        """Whether the read repeats what the run has just passed."""
        reach = max(self._window, self._block_size)
        return self._position - reach <= offset and stop <= self._position

    def _narrow(self) -> Window:
        self._window //= 2
        if self._window < FIRST_WINDOW:
            self._window = 0
        return Window(self._asked, self._asked)

    def _widen(self, size: int, limit: int) -> Window:
        start = self._asked
        # Asking again only when half is used up makes requests of half a window, not of one read.
        if 2 * (start - self._position) > self._window:
            return Window(start, start)
        self._window = min(max(2 * self._window, FIRST_WINDOW, size), LARGEST_WINDOW, limit)
        self._asked = max(start, self._position + self._window)
        return Window(start, self._asked)
