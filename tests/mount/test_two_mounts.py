"""Two mounts of one bucket: about what one of them changes the other one is never wrong."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .coherence import Drive, Lookout, MountMaker
from .conftest import Mounter
from .mounting import wait_until
from .random_changes import RandomChanges

pytestmark = [pytest.mark.mount, pytest.mark.timeout(240)]

#: Milliseconds that half of the changes may take to show, as issue 4 puts it.
MEDIAN = 20.0

#: Changes of the everyday run.
CHANGES = 1000

#: Versions of a file that is replaced while it is read, and how many read it.
VERSIONS = 150
READERS = 3

#: Seconds of the nightly run.
LONG = 3600.0


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """The local directory that says what is right."""
    directory = tmp_path / "reference"
    directory.mkdir()
    return directory


def run_changes(
    mounter: Mounter,
    nats_url: str,
    reference: Path,
    environment: dict[str, str],
    record: Callable[[str, object], None],
    more: Callable[[int], bool],
    **mounting: float,
) -> None:
    chance = random.Random()
    seed = chance.randrange(1 << 32)
    record("seed", seed)
    print("seed", seed)
    chance = random.Random(seed)
    source = f"{nats_url}/c-{uuid.uuid4().hex[:12]}"
    one = mounter("--create", source=source, **mounting)
    two = mounter(source=source, **mounting)
    changes = RandomChanges(reference, chance)
    with Lookout(two.directory, environment) as lookout:
        latencies = Drive(changes, MountMaker(one.directory, chance), lookout, chance).run(more)
    record("visible after ms", latencies)
    print("visible after ms", latencies)
    assert latencies["p50"] < MEDIAN


def test_no_stale_answer(
    mounter: Mounter,
    nats_url: str,
    reference: Path,
    environment: dict[str, str],
    record_property: Callable[[str, object], None],
) -> None:
    """A1: 1,000 random changes of one mount; at no barrier is the other one stale in anything."""
    run_changes(
        mounter, nats_url, reference, environment, record_property, lambda done: done < CHANGES
    )


def version(number: int) -> bytes:
    """A file that says how long it has to be."""
    head = number.to_bytes(4, "big")
    return head + bytes([number % 256]) * (number * 977 % 200_000)


def read_while(path: Path, goes_on: Callable[[], bool]) -> int:
    """Read the file at *path* again and again; how many different versions there were, each of
    them whole and none older than the one before."""
    last, seen = -1, 0
    while goes_on():
        body = path.read_bytes()
        number = int.from_bytes(body[:4], "big")
        assert body == version(number), f"version {number} with {len(body)} bytes"
        assert number >= last, f"version {number} after {last}"
        seen += number != last
        last = number
    return seen


def test_readers_get_whole_versions(mounter: Mounter) -> None:
    """R1: a file that one mount replaces is read on another one, by several programs, in whole
    versions: never new bytes with an old size, never old pages under a new handle; and never an
    older version after a newer one."""
    one, two = mounter().directory, mounter().directory
    (one / "f").write_bytes(version(0))
    wait_until((two / "f").exists, "the file")
    writing = threading.Event()
    writing.set()
    with ThreadPoolExecutor(READERS) as pool:
        readers = [pool.submit(read_while, two / "f", writing.is_set) for _ in range(READERS)]
        try:
            for number in range(1, VERSIONS):
                (one / "f").write_bytes(version(number))
        finally:
            writing.clear()
        assert all(reader.result() > 1 for reader in readers)


@pytest.mark.nightly
@pytest.mark.timeout(LONG + 300)
def test_no_stale_answer_for_an_hour(
    mounter: Mounter,
    nats_url: str,
    reference: Path,
    environment: dict[str, str],
    record_property: Callable[[str, object], None],
) -> None:
    """A1: the same for an hour."""
    ends = time.monotonic() + LONG
    run_changes(
        mounter,
        nats_url,
        reference,
        environment,
        record_property,
        lambda done: time.monotonic() < ends,
        life=LONG + 240,
    )
