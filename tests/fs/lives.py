"""Mounts of one bucket with one cache directory, one after the other: all but the last die."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from natsfs.config import ConflictPolicy
from natsfs.data.salvage import Salvaged
from natsfs.errors import RequestTimeout
from natsfs.store.memory import MemoryManager, MemoryStore
from natsfs.store.model import BucketConfig, MetaWrite, ObjectInfo
from tests.fs.world import DEADLINE, World, mounted

#: What a mount says when it finds that another one died, or cannot save.
died = pytest.mark.expects_log(
    "mount that died|is not saved yet|another version by now|is saved as|are zeros"
)

#: How a program opens a file that it may have to make.
CREATE = os.O_CREAT | os.O_RDWR

#: Bytes of several windows of the store.
LARGE = 3_000_000


def pattern(size: int, seed: int = 1) -> bytes:
    return (bytes((i * seed) % 251 for i in range(4096)) * (size // 4096 + 1))[:size]


class Host:
    """Mounts of one bucket, one after the other, with one cache directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manager = MemoryManager()
        self.writeback = False
        self.conflict = ConflictPolicy.LAST

    def refuse(self, *operations: str) -> None:
        """The server does not answer these from now on."""
        self.manager.fail = lambda operation, name: (
            RequestTimeout("no answer") if operation in operations else None
        )


@contextmanager
def answers_lost() -> Iterator[None]:
    """The server stores what it is told meanwhile, and nobody hears that it did."""
    store_metas = MemoryStore.store_metas

    async def lost(store: MemoryStore, writes: Sequence[MetaWrite]) -> tuple[ObjectInfo, ...]:
        await store_metas(store, writes)
        raise RequestTimeout("no answer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryStore, "store_metas", lost)
        yield


@contextmanager
def unheard(store: MemoryStore) -> Iterator[None]:
    """No watch tells what happens meanwhile, nor later."""
    watchers, store.stream._watchers = store.stream._watchers, set()
    yield
    store.stream._watchers = watchers


async def lives(host: Host, *lives: Callable[[World], object], before: bytes | None = None) -> None:
    """Each of *lives* is that of one mount; all but the last one end by a crash."""
    store = await host.manager.create(BucketConfig("bucket"))
    for number, life in enumerate(lives):
        last = number == len(lives) - 1
        host.manager.fail = lambda operation, name: None
        async with mounted(
            host.directory,
            manager=host.manager,
            store=store,
            conflict=host.conflict,
            writeback=host.writeback,
            dies=not last,
        ) as world:
            if number == 0 and before is not None:
                await world.write("f", before)
            await life(world)  # type: ignore[misc]


async def saved(world: World) -> None:
    """Wait until nothing waits any more."""
    await until(lambda: not world.fs.unsaved._commits.waiting)


async def until(done: Callable[[], bool]) -> None:
    """Wait until *done*."""
    with trio.fail_after(DEADLINE):
        while not done():  # noqa: ASYNC110  (nothing tells)
            await trio.sleep(0.001)


async def drop(salvaged: Salvaged) -> None:
    """Nobody wants it."""


async def collect(world: World) -> None:
    """What `natsfs gc` does: free what a commit without an answer has replaced."""
    wanted = {info.nuid for info in await world.foreign.store.list()}
    for nuid in await world.store.count_chunks():
        if nuid not in wanted:
            await world.store.purge_chunks(nuid)
