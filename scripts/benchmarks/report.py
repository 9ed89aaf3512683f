"""Rows as a table for people and as JSON for machines."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import natsfs
from natsfs.server import find_binary

from .figures import SUBJECT, Figure, Row, Samples, Spread

_COLUMNS = ("workload", "contestant", "median", "spread", "natsfs / it", "target", "reached")
_RIGHT = _COLUMNS[2:5]


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the table and what has to be known about its contestants."""
    table = Table(box=box.SIMPLE_HEAD, title="natsfs beside its yardsticks, medians of all rounds")
    for column in _COLUMNS:
        table.add_column(column, justify="right" if column in _RIGHT else "left", no_wrap=True)
    for row in rows:
        for samples in row.samples:
            label = f"{row.workload}: {row.figure.name}" if samples is row.samples[0] else ""
            table.add_row(label, *map(escape, _cells(row, samples)))
        table.add_section()
    console.print(table)
    console.print(escape(_where()), soft_wrap=True)
    for line in _remarks(rows):
        console.print(escape(line), soft_wrap=True)


def save(path: Path, rows: Sequence[Row], options: Mapping[str, object]) -> None:
    """Write everything measured, and where, to *path*."""
    document = {"machine": machine(), "options": dict(options), "rows": [_plain(r) for r in rows]}
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


def machine() -> dict[str, object]:
    """What the figures depend on besides natsfs."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "natsfs": natsfs.__version__,
        "commit": _said(["git", "-C", str(Path(natsfs.__file__).parent), "rev-parse", "HEAD"]),
        "nats-server": _said([str(find_binary()), "--version"]),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg(),
        "argv": sys.argv[1:],
    }


def _where() -> str:
    """What the figures depend on besides natsfs, in one line."""
    found = machine()
    busy = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    return (
        f"{found['date']}, commit {str(found['commit'])[:10]}, {found['nats-server']}, Linux "
        f"{found['kernel']}, {found['cpus']} processors, load {busy}"
    )


def _said(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except OSError as error:
        return f"unknown: {error}"
    return done.stdout.strip() or f"unknown: {done.stderr.strip()}"


def _cells(row: Row, samples: Samples) -> Iterable[str]:
    ratio, target = row.ratio(samples), row.figure.target(samples.contestant)
    reached = row.reached(samples)
    yield samples.contestant
    if samples.values:
        spread = Spread.of(samples.values)
        yield f"{_number(spread.median)} {row.figure.unit}"
        yield f"{_number(spread.low)}..{_number(spread.high)}"
    else:
        yield from ("missing", "")
    yield _number(ratio.median) if ratio else ""
    yield str(target) if target else ""
    yield {True: "yes", False: "NO", None: "?" if target else ""}[reached]


def _number(value: float) -> str:
    """Three digits that count, and never an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def _remarks(rows: Sequence[Row]) -> list[str]:
    """Each note and each problem once, in the order of the table."""
    found: dict[str, None] = {}
    for row in rows:
        for samples in row.samples:
            if samples.note:
                found[f"{samples.contestant}: {samples.note}"] = None
            if samples.problem:
                found[f"{row.workload}, {samples.contestant} missing: {samples.problem}"] = None
    return list(found)


def _plain(row: Row) -> dict[str, Any]:
    return {
        "workload": row.workload,
        "figure": row.figure.name,
        "unit": row.figure.unit,
        "contestants": [_plain_samples(row, samples) for samples in row.samples],
        "targets": [
            _plain_target(row, row.figure, samples)
            for samples in row.samples
            if row.figure.target(samples.contestant)
        ],
    }


def _plain_samples(row: Row, samples: Samples) -> dict[str, Any]:
    ratio = row.ratio(samples)
    return {
        "name": samples.contestant,
        "values": samples.values,
        "median": Spread.of(samples.values).median if samples.values else None,
        "natsfs_ratio": ratio.median if ratio else None,
        "note": samples.note,
        "problem": samples.problem,
    }


def _plain_target(row: Row, figure: Figure, samples: Samples) -> dict[str, Any]:
    target = figure.target(samples.contestant)
    assert target is not None
    return {
        "yardstick": None if samples.contestant == SUBJECT else samples.contestant,
        "bound": str(target),
        "reached": row.reached(samples),
    }
