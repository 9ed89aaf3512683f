"""What the kernel keeps: everything for as long as nothing changes, and nothing that is wrong."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Mounter
from .foreign import ForeignClient
from .mounting import Mount, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

#: Looks at known names and at names that are not there.
LOOKS = 10_000

#: Answers of a daemon that has nothing to answer: none, but it may write a line of its log.
NOISE = 5


def answers(mount: Mount) -> int:
    """How often the daemon has called write(2) and its kin so far, as for each answer it gives the
    kernel; what goes over sockets is not counted."""
    found = re.search(r"^syscw: (\d+)", Path(f"/proc/{mount.pid}/io").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def missing(path: Path) -> bool:
    try:
        path.lstat()
    except OSError as error:
        return error.errno == errno.ENOENT
    return False


def test_repeated_looks_cost_nothing(mounter: Mounter) -> None:
    """A1: names, attributes and negative entries are kept for as long as nothing changes."""
    one, two = mounter(), mounter()
    for number in range(20):
        (one.directory / f"d{number}").mkdir()
        (one.directory / f"d{number}/f").write_bytes(b"x")
        (one.directory / f"d{number}/l").symlink_to("f")
    wait_until((two.directory / "d19/l").is_symlink, "the last entry")
    for mount in (one, two):
        known = list(mount.directory.rglob("*"))
        assert len(known) == 60
        names_cost_nothing(mount, known)


def names_cost_nothing(mount: Mount, known: list[Path]) -> None:
    absent = [path.with_name("no such name") for path in known]

    def look(times: int) -> None:
        for number in range(times):
            known[number % len(known)].lstat()
            assert missing(absent[number % len(absent)])

    before = answers(mount)
    look(len(known))
    assert answers(mount) - before >= len(set(absent)), "the daemon's answers are not counted"
    # Attributes of what was just written here wait for the server's time of it.
    wait_until(lambda: costs(mount, lambda: look(len(known))) <= NOISE, "settled attributes")
    assert costs(mount, lambda: look(LOOKS)) <= NOISE


def test_change_costs_its_own_name_only(mounter: Mounter, py: ForeignClient) -> None:
    """A1: a foreign change of one file leaves what the kernel knows of all others."""
    mount = mounter()
    for number in range(50):
        (mount.directory / f"f{number}").write_bytes(b"x")
    files = sorted(mount.directory.iterdir())
    wait_until(lambda: costs(mount, lambda: look_at(files)) <= NOISE, "settled attributes")
    py.put("f7", b"other bytes")
    wait_until(lambda: (mount.directory / "f7").stat().st_size == 11, "the change")
    assert costs(mount, lambda: look_at(files)) <= NOISE
    py.delete("f7")
    wait_until(lambda: missing(mount.directory / "f7"), "the removal")
    assert costs(mount, lambda: look_at([file for file in files if file.name != "f7"])) <= NOISE


def look_at(files: list[Path]) -> None:
    for file in files:
        os.stat(file)


def costs(mount: Mount, call: Callable[[], object]) -> int:
    """How many answers of the daemon *call* needs.  It wakes itself up once a second, which is a
    write, too, and no answer."""
    before, began = answers(mount), time.monotonic()
    call()
    written = answers(mount) - before
    return max(0, written - int(time.monotonic() - began) - 1)
