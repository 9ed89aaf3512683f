"""Programs that get signals while they wait for the mount, as those of shells, make and Go do."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from natsfs.control import Client

from .mounting import Mount, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

#: Requests that are interrupted.  One in 200 stopped the daemon before it looked again.
REQUESTS = 800

#: Seconds within which a signal comes: about as long as the request takes here.
MOMENT = 0.002

#: Seconds in which a mount that has nothing to do answers; half of what would rescue it.
AT_ONCE = 0.5


@pytest.fixture
def alarms() -> Iterator[None]:
    """SIGALRM interrupts system calls and does nothing else."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def control_socket(environment: dict[str, str]) -> Path:
    return next(Path(environment["XDG_RUNTIME_DIR"]).rglob("*.sock"))


@pytest.mark.usefixtures("alarms")
def test_interrupted_requests_stop_nothing(mount: Mount, environment: dict[str, str]) -> None:
    """A1: the daemon goes on, without a further request, when one was interrupted: it follows the
    bucket, finishes uploads and answers on its control socket."""
    directory = mount.directory / "d"
    chance = random.Random(5)
    slowest = 0.0
    with Client(control_socket(environment)) as client:
        for number in range(REQUESTS):
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(MOMENT / 10, MOMENT))
            if number % 2:
                os.rmdir(directory)
            else:
                os.mkdir(directory)
            signal.setitimer(signal.ITIMER_REAL, 0)
            time.sleep(MOMENT)  # nothing to wait for: the daemon is to come to rest
            asked = time.monotonic()
            client.ask("status")
            slowest = max(slowest, time.monotonic() - asked)
    assert slowest < AT_ONCE
    wait_until(lambda: not directory.exists(), "the last rmdir")
