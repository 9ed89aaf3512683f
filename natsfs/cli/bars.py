"""The bars that `progress` shows on a terminal.

Apart from it, because rich takes a short command a tenth of its time to import.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from natsfs.cli.quantities import shown_size

#: Seconds between two looks at what a stage tells: a listing tells 100,000 times a second.
REFRESH = 0.1

#: Seconds of work that need no bar: what comes and goes faster is a flicker.
PATIENCE = 0.5


class _Amount(ProgressColumn):
    """How much is done of how much, and how fast: bytes, or what else is counted."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes: DownloadColumn | MofNCompleteColumn = DownloadColumn(binary_units=True)
        self._number = MofNCompleteColumn()

    def render(self, task: Task) -> Text:
        if task.total is None:
            return Text()
        amount = self._bytes if task.fields["in_bytes"] else self._number
        return Text.assemble(amount.render(task), " ", (_speed(task), "progress.data.speed"))


def _speed(task: Task) -> str:
    speed = task.finished_speed or task.speed
    if not speed:
        return "?"
    return f"{shown_size(int(speed))}/s" if task.fields["in_bytes"] else f"{speed:,.0f}/s"


class Bars:
    """The stages of one command."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            _Amount(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            expand=True,
        )
        self._looked = 0.0
        self._current: int | None = None
        self._drawing: threading.Timer | None = None

    def stage(self, what: str, *, in_bytes: bool = False) -> Callable[[int, int], None]:
        """A stage named *what*, which counts bytes or something else."""
        task = self._progress.add_task(
            what, total=None, start=False, visible=False, in_bytes=in_bytes
        )

        def tell(done: int, total: int) -> None:
            now = time.monotonic()
            if self._progress.disable or (now - self._looked < REFRESH and done < total):
                return
            self._looked = now
            self._progress.update(task, completed=done, total=total or None)
            if self._current != task:
                self._begin(task)

        return tell

    def end(self) -> None:
        """Take the bar away."""
        if self._drawing is not None:
            self._drawing.cancel()
            self._drawing.join()
        self._progress.stop()

    def _begin(self, task: int) -> None:
        for other in self._progress.task_ids:
            self._progress.update(other, visible=other == task)
        self._progress.start_task(self._progress.task_ids[task])
        self._current = task
        if self._drawing is None:
            self._drawing = threading.Timer(PATIENCE, self._progress.start)
            self._drawing.daemon = True
            self._drawing.start()
