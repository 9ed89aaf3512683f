"""What commands print: JSON, pairs, times, logs, and names that cannot harm a terminal."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from natsfs.cli.outcome import redacted


def print_json(value: Any) -> None:
    """Print *value* as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print one fact a line, the values in a column."""
    known = [(name, printable(value)) for name, value in pairs]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        click.echo(f"{name + ':':<{width + 1}} {value}")


def printable(text: str) -> str:
    """*text* with escapes for what a terminal would obey instead of show."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: str) -> None:
    """One line on standard error."""
    click.echo(f"natsfs: {text}", err=True)


def local_time(time_ns: int) -> str:
    """A time in nanoseconds since the epoch as people read it here."""
    return datetime.fromtimestamp(time_ns // 10**9).strftime("%Y-%m-%d %H:%M")


def rfc3339(time_ns: int) -> str:
    """A time in nanoseconds since the epoch for programs, in UTC."""
    seconds, nanoseconds = divmod(time_ns, 10**9)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


class _Redacting(logging.Formatter):
    """A formatter that drops credentials from URLs, whoever logs them."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def log_for_command(*, verbose: bool) -> None:
    """Let warnings, or with *verbose* everything, stand on standard error as natsfs's words."""
    _log_to(logging.StreamHandler(), "natsfs: %(message)s", verbose, logging.WARNING)


def log_for_mount(log_file: Path | None, *, verbose: bool) -> None:
    """Let a mount log with time and level, to *log_file* or standard error.

    Errors: `OSError` (*log_file* cannot be opened).
    """
    handler = logging.StreamHandler() if log_file is None else logging.FileHandler(log_file)
    words = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    _log_to(handler, words, verbose, logging.INFO)


def _log_to(handler: logging.Handler, words: str, verbose: bool, level: int) -> None:
    handler.setFormatter(_Redacting(words))
    logging.basicConfig(level=logging.DEBUG if verbose else level, handlers=[handler])
