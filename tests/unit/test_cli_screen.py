"""What `natsfs top` shows on a narrow screen."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from natsfs.cli.activity import OperationRate, Rates
from natsfs.cli.screen import screen
from natsfs.control import Upload

#: Bytes a second that take as many columns as any.
FAST = 1023 * 2**20


def busy() -> Rates:
    """A mount with long names, and large numbers."""
    status: Any = {
        "directory": "/mnt/" + "directory" * 20,
        "source": "nats://server:4222/" + "bucket" * 20,
        "connection": "disconnected",
        "uptime": 99 * 86400 + 23 * 3600,
        "errors": 99_999,
        "reconnects": 999,
        "pending": 1023 * 2**30,
        "cache": {"used": 1023 * 2**30, "limit": 1023 * 2**30, "paused": "no space"},
    }
    slow = OperationRate("copy_file_range", 99_999, 59.9, 0.25, None, 99_999, 99_999_999)
    upload = Upload(bucket="b" * 60, name="n" * 60, bytes=FAST, stored=FAST // 2, state="waiting")
    bytes_ = dict.fromkeys(("read", "written", "fetched", "stored", "cached"), float(FAST))
    return Rates(1.0, status, [slow] * 30, bytes_, 0.999, [upload] * 30)


def test_numbers_are_whole() -> None:
    """E: on 80 columns names are shortened, and numbers are not."""
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(screen(busy(), 80, 13))
    lines = captured.get().splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert [line for line in lines if "…" in line] == [lines[0], *lines[-4:]]
    assert "programs read 1023 MiB/s, write 1023 MiB/s  server in 1023 MiB/s" in lines[2]
    assert lines[0].endswith("disconnected, up 99d23h")
