"""How long the end of a mount waits, over filesystems that take their time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
import trio.testing

from natsfs.filesystem import Served, UnsavedFile
from natsfs.mount.ending import GRACE, SHORT_GRACE, Ending

TIMEOUT = 60.0

#: Seconds between two looks of the end, and some for the last of them.
SLACK = 2.5

SILENT = "no answer from the server"
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


def ended(*filesystems: Slow) -> float:
    """After how many seconds the end of a mount of these is over."""
    served = SimpleNamespace(running=lambda: dict(enumerate(filesystems)))

    async def main() -> float:
        begin = trio.current_time()
        await Ending(cast(Served, served), TIMEOUT).run()
        return trio.current_time() - begin

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def hangs(filesystem: Slow) -> None:
    await trio.sleep_forever()


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
    assert ended(Slow(hangs)) < SHORT_GRACE + SLACK


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
    ending = Ending(cast(Served, served), TIMEOUT)
    await ending.hurry()
    with trio.fail_after(1):
        await ending.run()
