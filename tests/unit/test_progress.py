"""How far long commands are: what is counted, and what a terminal shows of it."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from natsfs.cli import bars as drawing
from natsfs.cli.bars import Bars
from natsfs.progress import Counted
from natsfs.store.memory import MemoryManager
from natsfs.store.model import BucketConfig, CaughtUp, Malformed, Restarted, Resumed
from natsfs.upkeep.listing import list_bucket


def bars(monkeypatch: pytest.MonkeyPatch, *, terminal: bool = True) -> tuple[Bars, io.StringIO]:
    """Bars that show everything at once, and where."""
    monkeypatch.setattr(drawing, "REFRESH", 0.0)
    monkeypatch.setattr(drawing, "PATIENCE", 0.0)
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=terminal, width=80, color_system=None)
    return Bars(console), shown


def drawn(found: Bars) -> None:
    """Show what was told so far."""
    assert found._drawing is not None
    found._drawing.join()
    found._progress.refresh()


def test_rate_and_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """E: a bar says what is being done, how much of how much, how fast, and for how long yet."""
    found, shown = bars(monkeypatch)
    tell = found.stage("listing")
    found._progress.get_time = iter(range(1000)).__next__
    for done in (0, 1000, 2000, 3000):
        tell(done, 10_000)
    drawn(found)
    found.end()
    last = shown.getvalue()
    assert "listing" in last
    assert "3000/10000" in last
    assert "/s" in last
    assert "0:00:" in last
    assert all(
        len(line) <= 80 for line in last.replace("\r", "\n").split("\n") if "\x1b" not in line
    )


def test_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """E: one stage is shown at a time, bytes with their units."""
    found, shown = bars(monkeypatch)
    listing, checking = found.stage("listing"), found.stage("checking", in_bytes=True)
    listing(5, 5)
    drawn(found)
    assert "listing" in shown.getvalue()
    checking(2**20, 2**21)
    shown.seek(0)
    shown.truncate()
    drawn(found)
    found.end()
    assert "listing" not in shown.getvalue()
    assert "1.0/2.0 MiB" in shown.getvalue()


def test_one_long_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """E: a bar is there, without numbers, while nobody knows how much there is to do."""
    found, shown = bars(monkeypatch)
    tell = found.stage("counting")
    tell(0, 0)
    drawn(found)
    assert "counting" in shown.getvalue()
    assert not re.search(r"\d+/|\?", re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", shown.getvalue()))
    tell(5, 10)
    drawn(found)
    found.end()
    assert "5/10" in shown.getvalue()


def test_over_in_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """E: a command that takes no time leaves the screen alone."""
    found, shown = bars(monkeypatch)
    monkeypatch.setattr(drawing, "PATIENCE", 3600.0)
    found.stage("listing")(1, 2)
    found.end()
    assert shown.getvalue() == ""


def test_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """E: without a terminal, and before there is anything to tell, nothing is printed."""
    found, shown = bars(monkeypatch, terminal=False)
    found.stage("listing")(1, 2)
    found.end()
    silent, nothing = bars(monkeypatch)
    silent.stage("listing")
    silent.end()
    assert shown.getvalue() == nothing.getvalue() == ""


def test_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """E: what is told 100,000 times a second costs next to nothing; the end is always shown."""
    found, _ = bars(monkeypatch)
    monkeypatch.setattr(drawing, "REFRESH", 1e9)
    tell = found.stage("listing")
    found._looked = time.monotonic()
    tell(1, 2)
    assert found._current is None
    tell(2, 2)
    assert found._current is not None
    found.end()


def test_counted() -> None:
    """E: what comes after the bucket was caught up with counts no more, until it is told again."""
    told: list[tuple[int, int]] = []
    counted = Counted(lambda done, total: told.append((done, total)))
    event = Malformed("subject", 1, "reason")
    for one in (Restarted(1, 3), event, event, CaughtUp(2), event, Resumed(1), event):
        counted.feed(one)
    assert told == [(1, 3), (2, 3), (2, 2), (1, 2)]


async def test_a_listing_tells() -> None:
    """E: listing a bucket tells how far it is, and ends with all of it."""
    manager = MemoryManager()
    store = await manager.create(BucketConfig("b"))
    for number in range(3):
        await store.add_bucket_link(f"link {number}", "b")
    told: list[tuple[int, int]] = []
    await list_bucket(store, lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 4), (3, 3)]
