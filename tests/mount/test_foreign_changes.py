"""A mount and another client of its bucket: about what that changes the mount is never wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from .coherence import Drive, Lookout
from .live_client import KINDS, LiveClient
from .mounting import Mount
from .random_changes import RandomChanges

pytestmark = [pytest.mark.mount, pytest.mark.timeout(180)]

#: Milliseconds that half of the changes may take to show, as issue 4 puts it.
MEDIAN = 20.0

CHANGES = 300


def test_no_stale_answer_to_foreign_changes(
    mount: Mount,
    nats_url: str,
    bucket: str,
    tmp_path: Path,
    environment: dict[str, str],
    record_property: Callable[[str, object], None],
) -> None:
    """A1: puts, deletes and metadata of nats-py; at no barrier is the mount stale in anything."""
    # What is replaced is purged at once, from under a mapping of it, too.
    mount.expect_trouble("was purged")
    reference = tmp_path / "reference"
    reference.mkdir()
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    record_property("seed", seed)
    changes = RandomChanges(reference, chance, KINDS)
    with LiveClient(nats_url, bucket) as maker, Lookout(mount.directory, environment) as lookout:
        latencies = Drive(changes, maker, lookout, chance).run(lambda done: done < CHANGES)
    record_property("visible after ms", latencies)
    print("visible after ms", latencies)
    assert latencies["p50"] < MEDIAN
