"""How far a long command is, on a terminal; nothing where nobody looks.

A command may have several stages, one after the other: the bar shows the one that was told of last.
Nothing is drawn before the first word of any, and no thread runs: a mount forks after it has asked
for its bar.  From then on a thread draws, so that one long step shows, too; what is over in a
moment leaves the screen alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

#: Is told how much is done of how much, of 0 where nobody knows.
Told = Callable[[int, int], None]


class Stages(Protocol):
    """The stages of one command."""

    def stage(self, what: str, *, in_bytes: bool = False) -> Told:
        """A stage named *what*, which counts bytes or something else."""

    def end(self) -> None:
        """Show nothing any more."""


class _Unseen:
    """Stages that nobody looks at."""

    def stage(self, what: str, *, in_bytes: bool = False) -> Told:
        return _unheard

    def end(self) -> None:
        pass


def _unheard(_done: int, _total: int) -> None:
    pass


@contextmanager
def bars() -> Iterator[Stages]:
    """Stages on standard error while the context lasts, with rate and remaining time."""
    found = _on_terminal() if _is_terminal() else _Unseen()
    try:
        yield found
    finally:
        found.end()


def _is_terminal() -> bool:
    # There is no standard error in a process that was started with it closed.
    return sys.stderr is not None and sys.stderr.isatty()


def _on_terminal() -> Stages:
    # Only here: a script, systemd and mount(8) have no use for what this brings in.
    from rich.console import Console  # noqa: PLC0415

    from natsfs.cli.bars import Bars  # noqa: PLC0415

    return Bars(Console(file=sys.stderr))


@contextmanager
def shown(what: str, *, in_bytes: bool = False) -> Iterator[Told]:
    """The only stage of a command."""
    with bars() as found:
        yield found.stage(what, in_bytes=in_bytes)
