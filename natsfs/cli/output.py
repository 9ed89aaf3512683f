"""What commands print: JSON, pairs, times, and names that cannot harm a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import click

_UNUSUAL = re.compile(r"[^\n -~]")


def print_json(value: Any) -> None:
    """Print *value* as JSON."""
    click.echo(_harmless(json.dumps(value, indent=2, ensure_ascii=False)))


def print_json_line(value: Any) -> None:
    """Print *value* as JSON in one line."""
    click.echo(_harmless(json.dumps(value, ensure_ascii=False)))


def _harmless(text: str) -> str:
    """JSON in which what a terminal would obey is escaped: C1 controls and the like may stand in
    JSON as they are."""
    return _UNUSUAL.sub(lambda found: _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return character if character.isprintable() else json.dumps(character)[1:-1]


def print_pairs(pairs: Iterable[tuple[str, str]], indent: int = 0) -> None:
    """Print one fact a line, the values in a column."""
    known = [(name, printable(value)) for name, value in pairs]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        click.echo(f"{'':{indent}}{name + ':':<{width + 1}} {value}".rstrip())


def printable(text: str) -> str:
    """*text* with escapes for what a terminal would obey instead of show."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: str) -> None:
    """One line on standard error."""
    click.echo(f"natsfs: {printable(text)}", err=True)


def local_time(time_ns: int) -> str:
    """A time in nanoseconds since the epoch as people read it here."""
    return datetime.fromtimestamp(time_ns // 10**9).strftime("%Y-%m-%d %H:%M")


def rfc3339(time_ns: int) -> str:
    """A time in nanoseconds since the epoch for programs, in UTC."""
    seconds, nanoseconds = divmod(time_ns, 10**9)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"
