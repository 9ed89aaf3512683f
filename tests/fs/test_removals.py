"""What no watch shows: purges, expiry, settings, and the census that finds what nobody told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from natsfs.errors import ReadOnlyError
from natsfs.filesystem import removals
from natsfs.store.memory import MemoryManager
from natsfs.store.memory_stream import Publish
from natsfs.store.model import BucketConfig
from natsfs.store.wire import chunk_subject, meta_subject
from tests.fs.world import DEADLINE, World, mounted


async def becomes(condition: Callable[[], bool]) -> None:
    with trio.fail_after(DEADLINE):
        while True:
            if condition():
                return
            await trio.sleep(0.005)


def drop_chunks(world: World, nuid: str) -> None:
    world.store.stream.purge(chunk_subject("bucket", nuid))


async def test_purge_of_a_name(world: World) -> None:
    """A6: the purge of a meta takes its name away, and the kernel is told."""
    info = await world.foreign.put("d/f", b"data")
    await world.foreign.put("kept", b"data")
    await world.settle()
    world.store.stream.purge(info.subject)
    drop_chunks(world, info.nuid)
    await world.settle()
    assert world.paths() == ["d/", "kept"]


async def test_purge_of_everything(world: World) -> None:
    """A6: after a purge without a filter nothing is left, tombstones included."""
    for name in ("a", "d/b", "removed"):
        await world.foreign.put(name, b"data")
    await world.foreign.delete("removed")
    await world.settle()
    world.store.stream.clear()
    await world.settle()
    assert [path for path in world.paths() if not path.endswith("/")] == []
    await world.write("a", b"again")
    assert await world.foreign.get("a") == b"again"


async def test_deletion_uncovers_an_older_meta(world: World) -> None:
    """A6: the newest meta on a subject is deleted: the one below it is the object's again."""
    info = await world.foreign.put("f", b"data")
    first = world.store.stream.last(info.subject)
    assert first is not None
    changed = json.loads(first.data) | {"metadata": {"mode": "0100600"}}
    (newer,) = world.store.stream.publish(Publish(info.subject, json.dumps(changed).encode()))
    await world.settle()
    assert world.stat("f").mode == 0o100600
    world.store.stream.remove(newer.sequence)
    await world.settle()
    assert world.stat("f").mode == 0o100644
    world.store.stream.remove(info.revision)
    drop_chunks(world, info.nuid)
    await world.settle()
    assert world.paths() == []


async def test_purge_of_a_file_being_written(world: World) -> None:
    """A6, W1: what is purged while it is being written is stored again by its close."""
    info = await world.foreign.put("f", b"old")
    await world.settle()
    async with world.opened("f", 1) as handle:
        await world.fs.files.write(handle, 0, b"new")
        world.store.stream.purge(info.subject)
        drop_chunks(world, info.nuid)
        await world.settle()
    assert await world.foreign.get("f") == b"new"


@pytest.mark.parametrize("told", [True, False])
async def test_census(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: bool) -> None:
    """A6: what nobody tells of is found by counting; who was told finds nothing to compare."""
    monkeypatch.setattr(removals, "CENSUS", 0.05)
    monkeypatch.setattr(removals, "CENSUS_AGAIN", 0.01)
    async with mounted(tmp_path) as world:
        for name in ("goes", "kept", "removed"):
            await world.foreign.put(name, b"data")
        await world.foreign.delete("removed")
        await world.settle()
        world.store.stream.advises = told
        info = await world.foreign.store.get_info("goes")
        world.store.stream.purge(info.subject)
        drop_chunks(world, info.nuid)
        await becomes(lambda: world.paths() == ["kept"])
        watches: list[str] = []
        world.manager.fail = lambda operation, name: watches.append(operation)
        await becomes(lambda: watches.count("status") > 3)
        assert "watch" not in watches
        world.manager.fail = lambda operation, name: None


async def test_expiry_by_the_bucket(tmp_path: Path) -> None:
    """A6: objects, directories and tombstones of a bucket with a TTL go when it passes."""
    async with mounted(tmp_path, BucketConfig("bucket", ttl=0.5)) as world:
        await world.foreign.put("d/f", b"data")
        await world.write("own", b"data")
        await world.mkdir("empty")
        await world.unlink("own")
        await world.settle()
        await becomes(lambda: world.paths() == ["d/"])
        # The tombstone is the youngest of them.
        await becomes(lambda: not world.fs.mounted.namespace.graves)


async def test_expiry_of_one_message(world: World) -> None:
    """A6: a meta with a life of its own goes with it; its tombstone is forgotten."""
    info = await world.foreign.put("f", b"data")
    message = world.store.stream.last(info.subject)
    assert message is not None
    brief = message.data.replace(b'"f"', b'"g"')
    subject = meta_subject("bucket", "g")
    world.store.stream.publish(Publish(subject, brief, rollup=True, ttl=1))
    await world.settle()
    assert world.paths() == ["f", "g"]
    await becomes(lambda: world.paths() == ["f"])


@pytest.mark.parametrize("hours", [-1, 1])
async def test_clocks_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """A6: how long an object has to live is decided by the server's clock."""
    manager = MemoryManager()
    monkeypatch.setattr(manager, "now", lambda: time.time_ns() + hours * 3600 * 10**9)
    config = BucketConfig("bucket", ttl=1000)
    async with mounted(tmp_path, config, manager=manager) as world:
        await world.foreign.put("f", b"data")
        await world.settle()
        await world.chmod("f", 0o600)
        assert 990 < (await world.foreign.store.get_info("f")).ttl <= 1000
        assert world.paths() == ["f"]


async def test_rewritten_metas_keep_their_lease(tmp_path: Path) -> None:
    """A6: chmod, rename, link and touch leave an object the life that its bytes have."""
    async with mounted(tmp_path, BucketConfig("bucket", ttl=100)) as world:
        for name in ("f", "d/g"):
            await world.foreign.put(name, b"data")
        await world.settle()
        await world.chmod("f", 0o600)
        await world.rename("d", "e")
        await world.link("f", "h")
        await world.write("new", b"data")
        for name in ("f", "e/g"):
            assert 98 <= (await world.foreign.store.get_info(name)).ttl <= 100
        assert not (await world.foreign.store.get_info("new")).ttl


@pytest.mark.expects_log("bucket bucket can only be read")
async def test_seal_is_told(world: World) -> None:
    """A6: a seal is followed before anything is written."""
    world.store.stream.seal()
    await world.settle()
    with pytest.raises(ReadOnlyError):
        await world.mkdir("d")


async def test_batches_are_told(tmp_path: Path) -> None:
    """A2, A6: batches that the bucket gets are used from then on."""
    manager = MemoryManager()
    manager.allow_atomic = False
    async with mounted(tmp_path, manager=manager) as world:
        assert not world.fs.mounted.atomic
        manager.allow_atomic = True
        world.store.stream.interrupt()
        await world.settle()
        assert world.fs.mounted.atomic
