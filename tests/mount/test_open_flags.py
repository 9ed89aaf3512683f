"""Every combination of open flags on every kind of entry, as recorded from ext4."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .open_flags import CHANGED_IN_LINUX, KINDS, TABLE, combinations, observe

pytestmark = pytest.mark.mount


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    """The table was recorded with it."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.parametrize("kind", KINDS)
def test_open_flags(directory: Path, tmp_path: Path, kind: str) -> None:
    """W3: open, write and read with every combination of flags do what the table says."""
    recorded = json.loads(TABLE.read_text())[kind]
    control = tmp_path / "control"
    control.mkdir()
    differing = {}
    for flags in combinations():
        expected = recorded[flags]
        if set(flags.split("|")) >= CHANGED_IN_LINUX:
            expected = observe(control, kind, flags)
        found = observe(directory, kind, flags)
        if found != expected:
            differing[flags] = f"{found}, and not {expected}"
    assert not differing
