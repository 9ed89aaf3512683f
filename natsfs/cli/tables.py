"""Tables for people, by rich.

A module of its own, because `natsfs mount` prints none and rich takes 25 ms to load.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import click
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from natsfs.cli.output import printable

#: Columns where no terminal sets a limit: rich would cut tables at 80 in a pipe.
WIDE = 10_000

#: Columns that rich leaves between two of a table.
GAP = 3


def fits(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a table is as wide as the terminal at most; where there is none, any is."""
    width = sum(
        max(cell_len(printable(cell)) for cell in (*cells, title.rstrip(">"))) + GAP
        for title, *cells in zip(columns, *rows, strict=True)
    )
    return not sys.stdout.isatty() or width - GAP <= Console().width


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; columns whose title ends in `>` are right-aligned."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in columns:
        right = title.endswith(">")
        table.add_column(title.rstrip(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    terminal = sys.stdout.isatty()
    console = Console(width=None if terminal else WIDE, highlight=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())
