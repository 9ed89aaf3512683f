"""How long the end of a mount waits, over filesystems that take their time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from natsfs.config import ServerConfig
from natsfs.filesystem import Served, UnsavedFile
from natsfs.mount.ending import GRACE, HANGS, SHORT_GRACE, SLOW_GRACE, Ending
from natsfs.store.session import Session

TIMEOUT = 60.0

#: Seconds between two looks of the end, and some for the last of them.
SLACK = 1.5

SILENT = "no answer from the server"
BUSY = "the server answers, and nothing gets done"
HELPLESS = "has not taken anything"


@dataclasses.dataclass
class Slow:
    """A filesystem that is finished by *work*; *unsaved* files have still to be saved."""

    work: Callable[[Slow], Coroutine[Any, Any, None]]
    unsaved: int = 0
    reached: int = 0
    mounted: Any = dataclasses.field(
        default_factory=lambda: SimpleNamespace(journal=SimpleNamespace(close=lambda: 0))
    )

    async def finish(self) -> None:
        await self.work(self)

    def progress(self) -> int:
        return self.reached

    def unsaved_files(self) -> list[UnsavedFile]:
        return [UnsavedFile("f", 1, None, "waiting")] * self.unsaved

    def pending_bytes(self) -> int:
        return self.unsaved


class Speaking:
    """A session whose server answers pings for so many seconds."""

    config = ServerConfig(timeout=TIMEOUT)

    def __init__(self, seconds: float) -> None:
        self.begin = trio.current_time()
        self._end = self.begin + seconds

    @property
    def silence(self) -> float:
        return max(0.0, trio.current_time() - self._end)


def ended(*filesystems: Slow, speaks_until: float = 0.0) -> float:
    """After how many seconds the end of a mount of these is over, if the server answers pings for
    as long as *speaks_until*."""
    served = SimpleNamespace(running=lambda: dict(enumerate(filesystems)))

    async def main() -> float:
        session = Speaking(speaks_until)
        await Ending(cast(Served, served), cast(Session, session)).run()
        return trio.current_time() - session.begin

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def hangs(filesystem: Slow) -> None:
    await trio.sleep_forever()


async def takes_time(filesystem: Slow) -> None:
    await trio.sleep(SLOW_GRACE - 1)


async def gets_on(filesystem: Slow) -> None:
    for _ in range(100):
        await trio.sleep(SHORT_GRACE - 1)
        filesystem.reached += 1


async def saves_and_hangs(filesystem: Slow) -> None:
    await trio.sleep(TIMEOUT)
    filesystem.unsaved = 0
    filesystem.reached += 1
    await trio.sleep_forever()


@pytest.mark.expects_log(SILENT)
def test_nothing_unsaved() -> None:
    """A5: when all is saved, a mount does not wait for a server that does not answer."""
    assert ended(Slow(hangs)) < max(SHORT_GRACE, HANGS) + SLACK


def test_slow() -> None:
    """A5: a server that answers pings is there, and gets the time to choose a leader."""
    slow = Slow(takes_time)
    assert ended(slow, speaks_until=SLOW_GRACE) >= SLOW_GRACE - 1


@pytest.mark.expects_log(BUSY)
def test_too_slow() -> None:
    """A5: that time is not endless."""
    assert SLOW_GRACE <= ended(Slow(hangs), speaks_until=100) < SLOW_GRACE + SLACK


@pytest.mark.expects_log(SILENT)
def test_slow_and_gone() -> None:
    """A5: once it does not even answer pings, there is nothing to wait for."""
    assert ended(Slow(hangs), speaks_until=SHORT_GRACE) < SHORT_GRACE + HANGS + SLACK


def test_getting_on() -> None:
    """W6: as long as the server answers, old versions are freed and times stored, however many."""
    slow = Slow(gets_on)
    assert ended(slow) > 100
    assert slow.reached == 100


@pytest.mark.expects_log(HELPLESS)
def test_something_unsaved() -> None:
    """W7: while one bucket has something to save, all wait, a time-out and more."""
    duration = ended(Slow(hangs), Slow(hangs, unsaved=1))
    assert TIMEOUT + GRACE <= duration < TIMEOUT + GRACE + SLACK


@pytest.mark.expects_log(SILENT)
def test_saved_in_time() -> None:
    """W7, A5: once it is saved, nothing else is waited for."""
    duration = ended(Slow(saves_and_hangs, unsaved=1))
    assert TIMEOUT <= duration < TIMEOUT + SHORT_GRACE + SLACK


async def test_hurry() -> None:
    """W7: whoever is in a hurry waits for nothing."""
    served = SimpleNamespace(running=dict)
    ending = Ending(cast(Served, served), cast(Session, Speaking(0)))
    await ending.hurry()
    with trio.fail_after(1):
        await ending.run()
