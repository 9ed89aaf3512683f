"""How `natsfs top` looks: lines that fit on a screen of 80 columns, and make use of more."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from natsfs.cli.activity import OperationRate, Rates
from natsfs.cli.output import printable
from natsfs.cli.quantities import shown_duration, shown_size
from natsfs.control import Upload

#: Columns where no terminal says how many.
PLAIN = 80

#: Operations and uploads that are shown where there is no terminal whose height limits them.
ROWS = 12

#: Lines beside the two tables: four of the head, and the heads of the tables with blanks.
_AROUND = 11


def show(looks: Iterator[Rates], *, once: bool) -> None:
    """Show each of *looks* in place of the last, or only the first."""
    console = Console(width=None if sys.stdout.isatty() else PLAIN, highlight=False)
    if once:
        console.print(screen(next(looks), console.width, ROWS))
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        live.update(Text("looking …"), refresh=True)
        for rates in looks:
            rows = max(console.height - _AROUND, 4)
            live.update(screen(rates, console.width, rows), refresh=True)


def screen(rates: Rates, width: int, rows: int) -> RenderableType:
    """*rates* in *width* columns, and with up to *rows* lines of operations and uploads."""
    uploads = rates.uploads[: max(rows // 3, 1)]
    operations = rates.operations[: max(rows - len(uploads), 1)]
    parts: list[RenderableType] = [*_head(rates, width), _operations(operations, width)]
    if rates.uploads:
        parts.append(_uploads(uploads, len(rates.uploads), width))
    return Group(*parts)


def _head(rates: Rates, width: int) -> list[Text]:
    status, moved = rates.status, rates.bytes
    hits = "-" if rates.cached is None else f"{rates.cached:.0%}"
    errors, again = status.get("errors", 0), status.get("reconnects", 0)
    cache = status["cache"]
    lines = [
        (
            f"{status['directory']}  {status['source']}",
            f"{status['connection']}, up {shown_duration(max(1.0, status['uptime']))}",
        ),
        (
            f"{rates.requests:.0f} requests/s",
            f"errors {errors}, reconnects {again}, pending {shown_size(status['pending'])}",
        ),
        (
            # Without colons, four rates of 1023 MiB/s fit into 80 columns.
            f"programs read {_rate(moved['read'])}, write {_rate(moved['written'])}",
            f"server in {_rate(moved['fetched'])}, out {_rate(moved['stored'])}",
        ),
        (
            f"cache: {shown_size(cache['used'])} of {shown_size(cache['limit'])}"
            + (", paused" if cache["paused"] else ""),
            f"hits {hits}, {_rate(moved['cached'])}",
        ),
    ]
    return [_line(printable(left), right, width) for left, right in lines]


def _line(left: str, right: str, width: int) -> Text:
    """*left* and *right* at their ends of a line, *left* shortened as needed."""
    text = Text(left, no_wrap=True)
    text.truncate(max(width - len(right) - 2, 8), overflow="ellipsis", pad=True)
    return text.append(" " * max(width - text.cell_len - len(right), 1)).append(right)


def _operations(operations: Sequence[OperationRate], width: int) -> Table:
    table = _table(width)
    table.add_column("Operation", ratio=1)
    for title in ("Per s", "Mean", "p50", "p99", "Failed", "Total"):
        table.add_column(title, justify="right")
    for one in operations:
        table.add_row(
            one.name,
            f"{one.per_second:.0f}",
            _time(one.mean),
            *(_bound(bound, one) for bound in (one.p50, one.p99)),
            str(one.failures) if one.failures else "",
            str(one.total),
            style="" if one.per_second else "dim",
        )
    return table


def _uploads(uploads: Sequence[Upload], count: int, width: int) -> Table:
    table = _table(width)
    more = f" ({count})" if count > len(uploads) else ""
    table.add_column(f"On its way to the server{more}", ratio=1, no_wrap=True, overflow="ellipsis")
    for title in ("Size", "Stored", "State"):
        table.add_column(title, justify="left" if title == "State" else "right", no_wrap=True)
    for one in uploads:
        stored = "-" if one["stored"] is None else f"{one['stored'] / max(one['bytes'], 1):.0%}"
        name = f"{one['bucket']}/{one['name']}"
        table.add_row(Text(printable(name)), shown_size(one["bytes"]), stored, one["state"])
    return table


def _table(width: int) -> Table:
    return Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, width=width, padding=(0, 1))


def _rate(amount: float) -> str:
    return f"{shown_size(int(amount))}/s"


def _bound(seconds: float | None, one: OperationRate) -> str:
    if seconds is None:
        return "> 60 s" if one.per_second else "-"
    return f"≤{_time(seconds)}"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
