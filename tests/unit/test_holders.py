"""Who has a file open: what cannot be found out counts as nobody."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from natsfs.mount import holders
from natsfs.mount.holders import Holders


async def test_no_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """W1: where /proc cannot be read, as without a descriptor to spare, a close stores."""

    def refuse(directory: Path) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(holders, "mounts_on", refuse)
    assert not await Holders(tmp_path).somebody_writes(1)


async def test_proc_takes_too_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """W1, A5: a close does not wait for ever to learn whether it is the last."""
    answer = threading.Event()
    monkeypatch.setattr(holders, "PATIENCE", 0.05)
    monkeypatch.setattr(holders, "mounts_on", lambda directory: answer.wait(30))
    try:
        assert not await Holders(tmp_path).somebody_writes(1)
    finally:
        answer.set()
