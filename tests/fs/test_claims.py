"""Exclusive creation: claims on names, of this mount and of others."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from natsfs.errors import ExistsError, NotFoundError
from natsfs.filesystem.attributes import CLAIM_KEY
from natsfs.handles import FileHandle
from natsfs.store.model import MetaWrite, ObjectInfo
from natsfs.store.wire import meta_subject
from tests.fs.world import World, mounted

EXCLUSIVE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


@asynccontextmanager
async def neighbour(world: World, directory: Path) -> AsyncIterator[World]:
    """A second mount of the same bucket."""
    async with mounted(directory / "neighbour", store=world.store, manager=world.manager) as other:
        yield other


async def create(world: World, name: str, flags: int = EXCLUSIVE) -> FileHandle:
    """open(2) with O_CREAT as the kernel sends it."""
    handle, _ = await world.fs.creation.create(world.root, name.encode(), 0o644, flags, 0, 0)
    world.number(handle)
    return handle


async def grave_of(world: World, name: str) -> ObjectInfo:
    """What other clients find on the subject of *name*."""
    return await world.foreign.store.get_info(name, show_deleted=True)


async def test_a_claim_is_seen_at_once(world: World, tmp_path: Path) -> None:
    """A3: while one mount has a new file open, another cannot create it exclusively."""
    async with neighbour(world, tmp_path) as other:
        handle = await create(world, "lock")
        with pytest.raises(ExistsError):
            await create(other, "lock")
        assert not other.exists("lock")
        await world.close(handle)
        await other.settle()
        assert other.exists("lock")
        with pytest.raises(ExistsError):
            await create(other, "lock")


async def test_a_claim_reads_as_deleted(world: World) -> None:
    """A3, W2: other clients see nothing of a claim, and then the whole file."""
    handle = await create(world, "new")
    assert (await grave_of(world, "new")).deleted
    with pytest.raises(NotFoundError):
        await world.foreign.get("new")
    await world.fs.files.write(handle, 0, b"all of it")
    await world.close(handle)
    assert await world.foreign.get("new") == b"all of it"


@pytest.mark.parametrize("how", ["unlink", "rename", "close and unlink"])
async def test_a_claim_is_withdrawn(world: World, tmp_path: Path, how: str) -> None:
    """A3: a lock file that is gone can be made by another mount at once."""
    async with neighbour(world, tmp_path) as other:
        handle = await create(world, "lock")
        if how == "close and unlink":
            await world.close(handle)
        if how == "rename":
            await world.rename("lock", "elsewhere")
        else:
            await world.unlink("lock")
        await other.settle()
        await other.close(await create(other, "lock"))
        if how != "close and unlink":
            await world.close(handle)
        await world.settle()
        assert world.exists("lock")


async def test_a_claim_ends(world: World) -> None:
    """A3: a claim whose owner died long ago is not honoured; one of just now is."""
    store, ages = world.foreign.store, {"old": 3600, "new": 0}
    for name, age in ages.items():
        subject = meta_subject(store.bucket, name)
        grave = ObjectInfo(
            name, store.bucket, subject, deleted=True, metadata={CLAIM_KEY: "somebody"}
        )
        stored = (await store.commit([MetaWrite(grave)]))[0]
        await world.settle()
        world.fs.claims.honour(
            ObjectInfo(
                name,
                store.bucket,
                subject,
                deleted=True,
                metadata=grave.metadata,
                revision=stored.revision,
                time_ns=time.time_ns() - age * 10**9,
            )
        )
    await world.close(await create(world, "old"))
    with pytest.raises(ExistsError):
        await create(world, "new")


async def test_a_name_that_exists(world: World) -> None:
    """A3: O_EXCL on what exists is EEXIST, O_CREAT alone opens it."""
    await world.write("f", b"content")
    with pytest.raises(ExistsError):
        await create(world, "f")
    handle = await create(world, "f", os.O_RDONLY | os.O_CREAT)
    assert await world.read_from(handle) == b"content"
    await world.close(handle)
