"""Renames of directories that end in the middle because the mount is killed."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

from .conftest import Mounter
from .foreign import py_client
from .mounting import natsfs_command, run, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(240)]


def fill(directory: Path, count: int) -> dict[str, bytes]:
    bodies = {f"{number % 7}/{number}": str(number).encode() for number in range(count)}
    for number in range(7):
        (directory / str(number)).mkdir(parents=True)
    for name, body in bodies.items():
        (directory / name).write_bytes(body)
    return bodies


def bodies_in(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(("atomic", "count", "seen"), [(False, 400, 10), (True, 620, 1)])
def test_killed_in_the_middle(
    mounter: Mounter,
    nats_url: str,
    environment: dict[str, str],
    atomic: bool,
    count: int,
    seen: int,
) -> None:
    """A2: a mount killed while it renames a directory leaves each entry under one name at least;
    the same rename, run again, finishes it."""
    bucket = f"r-{uuid.uuid4().hex[:8]}"
    if atomic:
        made = natsfs_command("bucket", "create", f"{nats_url}/{bucket}")
        run(made, env=environment).check()
    else:
        py_client(nats_url, environment).of(bucket).create()
    one, two = (mounter(source=f"{nats_url}/{bucket}") for _ in range(2))
    bodies = fill(one.directory / "d", count)
    wait_until(lambda: len(bodies_in(two.directory / "d")) == count, "the other mount", 60)

    def rename() -> None:
        with suppress(OSError):
            (one.directory / "d").rename(one.directory / "e")

    renaming = threading.Thread(target=rename)
    renaming.start()
    wait_until(lambda: _count(two.directory / "e") >= seen, "the first arrivals", 60)
    os.kill(one.pid, signal.SIGKILL)
    one.kill()
    renaming.join(30)
    three = mounter(source=f"{nats_url}/{bucket}").directory
    left, arrived = bodies_in(three / "d"), bodies_in(three / "e")
    assert {**left, **arrived} == bodies
    if not atomic:
        assert left
    if (three / "d").exists():
        (three / "d").rename(three / "e")
    assert bodies_in(three / "e") == bodies
    assert not (three / "d").exists()
    wait_until(lambda: not (two.directory / "d").exists(), "the other mount again", 60)
    assert bodies_in(two.directory / "e") == bodies


def _count(directory: Path) -> int:
    try:
        return sum(len(os.listdir(below)) for below in directory.iterdir())
    except OSError:
        return 0
