"""Ctrl-C and its like: what has been started is always known to those who end it.

Python raises `KeyboardInterrupt` between any two instructions, so also between the start of a
process and the moment at which somebody remembers it.  `unbroken` puts that off.

Concurrency: signals arrive in the main thread, which alone uses this.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_depth = 0
_pending = False


def end_in_order() -> None:
    """Let SIGINT, SIGTERM and SIGHUP raise `KeyboardInterrupt` when nothing is `unbroken`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


@contextmanager
def unbroken() -> Iterator[None]:
    """Run the block to its end; an interrupt that comes meanwhile is raised after it."""
    global _depth, _pending
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
    if _pending and not _depth:
        _pending = False
        raise KeyboardInterrupt


def _interrupt(_: int, __: FrameType | None) -> None:
    global _pending
    if not _depth:
        raise KeyboardInterrupt
    _pending = True
