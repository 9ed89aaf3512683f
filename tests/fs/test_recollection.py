"""Trees that the last mount left on disk: taken up when they are true, and never otherwise."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from natsfs.data import snapshots
from natsfs.errors import RequestTimeout
from natsfs.filesystem import recollection
from natsfs.store.memory import MemoryManager, MemoryStore
from natsfs.store.memory_stream import Publish
from natsfs.store.model import BucketConfig, Restarted, Resumed, WatchEvent
from natsfs.store.wire import meta_subject
from tests.fs.test_removals import becomes
from tests.fs.world import World, mounted


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees of any size are kept."""
    monkeypatch.setattr(recollection, "LEAST_OBJECTS", 1)


class Remount:
    """A bucket that is mounted a second time, and how that began."""

    def __init__(self, directory: Path, manager: MemoryManager, store: MemoryStore) -> None:
        self.directory = directory
        self.manager = manager
        self.store = store

    @property
    def file(self) -> Path:
        """The snapshot."""
        (path,) = (self.directory / snapshots.LAYOUT).iterdir()
        return path

    @asynccontextmanager
    async def again(
        self, monkeypatch: pytest.MonkeyPatch, *begin: type[WatchEvent]
    ) -> AsyncIterator[World]:
        """The bucket mounted again; its watches began with *begin*."""
        seen: list[type[WatchEvent]] = []
        watch = self.store.watch

        @asynccontextmanager
        async def watching(after: int = 0) -> AsyncIterator[AsyncIterator[WatchEvent]]:
            seen.append(Resumed if after else Restarted)
            async with watch(after) as events:
                yield events

        monkeypatch.setattr(self.store, "watch", watching)
        async with mounted(self.directory, manager=self.manager, store=self.store) as world:
            assert seen == list(begin)
            yield world


async def leave(tmp_path: Path) -> Remount:
    """A bucket that was mounted, with what it had then."""
    async with mounted(tmp_path) as world:
        for name in ("a", "d/b", "d/c", "d/e/f", "gone"):
            await world.foreign.put(name, name.encode())
        await world.write("own", b"own")
        await world.mkdir("made")
        await world.foreign.delete("gone")
        await world.settle()
        return Remount(tmp_path, world.manager, world.store)


PATHS = ["a", "d/", "d/b", "d/c", "d/e/", "d/e/f", "made/", "own"]


async def test_nothing_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A1: a tree that is still true is taken up as it was."""
    left = await leave(tmp_path)
    async with left.again(monkeypatch, Resumed) as world:
        assert world.paths() == PATHS
        assert await world.read("d/b") == b"d/b"


async def test_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A1: what other clients did meanwhile is there, and nothing else is told again."""
    left = await leave(tmp_path)
    store = left.store
    async with mounted(left.directory / "other", store=store, manager=left.manager) as other:
        await other.write("a", b"new")
        await other.write("d/new", b"new")
        await other.rename("d/c", "moved")
        await other.unlink("d/b")
    async with left.again(monkeypatch, Resumed) as world:
        assert world.paths() == ["a", "d/", "d/e/", "d/e/f", "d/new", "made/", "moved", "own"]
        assert await world.read("a") == b"new"
        await world.write("d/b", b"again")


def purge(remount: Remount) -> None:
    remount.store.stream.purge(meta_subject("bucket", "d/b"))


def purge_and_put(remount: Remount) -> None:
    """Something new in a directory that is there already."""
    stream = remount.store.stream
    (old,) = stream.on(meta_subject("bucket", "d/c"))
    for name in ("d/x", "d/y"):
        data = old.data.replace(b"d/c", name.encode())
        stream.publish(Publish(meta_subject("bucket", name), data, rollup=True))
    purge(remount)


def purge_newest(remount: Remount) -> None:
    remount.store.stream.purge(meta_subject("bucket", "own"))


def clear(remount: Remount) -> None:
    remount.store.stream.clear()


def purge_and_crowd(remount: Remount) -> None:
    """As many messages as before: one went, and nats.js left one beside its successor."""
    stream = remount.store.stream
    (old,) = stream.on(meta_subject("bucket", "a"))
    stream.publish(Publish(old.subject, old.data))
    purge(remount)


@pytest.mark.parametrize("change", [purge, purge_and_put, purge_newest, clear, purge_and_crowd])
async def test_what_is_gone_is_not_shown(
    tmp_path: Path, change: Callable[[Remount], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A6: what was purged while nobody looked is not shown; such a bucket is loaded anew."""
    left = await leave(tmp_path)
    change(left)
    async with left.again(monkeypatch, Resumed, Restarted) as world:
        listed = {info.name for info in await left.store.list()}
        files = {path for path in world.paths() if not path.endswith("/")}
        assert files == {name for name in listed if not name.endswith("/")}
        left.store.stream.clear()
        await world.settle()


@pytest.mark.expects_log("an object cannot be shown")
async def test_malformed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A meta that cannot be understood is reported as ever."""
    left = await leave(tmp_path)
    left.store.stream.publish(Publish(meta_subject("bucket", "a"), b"{", rollup=True))
    async with left.again(monkeypatch, Resumed, Restarted) as world:
        assert world.paths() == PATHS[1:]
        left.store.stream.clear()
        await world.settle()


async def test_tombstones_expire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A6: a tombstone that has gone is no reason to load everything."""
    left = await leave(tmp_path)
    left.store.stream.purge(meta_subject("bucket", "gone"))
    async with left.again(monkeypatch, Resumed) as world:
        assert world.paths() == PATHS
        await world.write("gone", b"here")


async def test_another_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A6: a bucket restored from a backup, which went another way since, is loaded anew though it
    has as many metas as before."""
    left = await leave(tmp_path)
    stream = left.store.stream
    subject = meta_subject("bucket", "own")
    (message,) = stream.on(subject)
    (other,) = stream.on(meta_subject("bucket", "d/b"))
    stream._subjects[subject] = {message.sequence: type(message)(
        subject, message.sequence, message.time_ns + 1, other.data.replace(b"d/b", b"own")
    )}  # fmt: skip
    stream.purge(meta_subject("bucket", "made/"))
    stream._subjects[meta_subject("bucket", "x")] = {message.sequence - 1: type(message)(
        meta_subject("bucket", "x"), message.sequence - 1, 1, other.data.replace(b"d/b", b"x")
    )}  # fmt: skip
    async with left.again(monkeypatch, Resumed, Restarted) as world:
        assert "x" in world.paths()
        stream.clear()
        await world.settle()


async def test_bucket_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A6: a bucket of the same name is another one."""
    left = await leave(tmp_path)
    await left.manager.delete("bucket")
    left.store = await left.manager.create(BucketConfig("bucket"))
    async with left.again(monkeypatch, Restarted) as world:
        assert world.paths() == []


@pytest.mark.parametrize("cut", [0, 10, 40, -1])
@pytest.mark.expects_log("is damaged and not used")
async def test_damaged(tmp_path: Path, cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is cut short is as good as none, and is replaced."""
    left = await leave(tmp_path)
    left.file.write_bytes(left.file.read_bytes()[:cut])
    async with left.again(monkeypatch, Restarted) as world:
        assert world.paths() == PATHS


@pytest.mark.expects_log("is damaged and not used")
async def test_flipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte that is another one shows in the checksum."""
    left = await leave(tmp_path)
    data = bytearray(left.file.read_bytes())
    data[len(data) // 2] ^= 1
    left.file.write_bytes(data)
    async with left.again(monkeypatch, Restarted) as world:
        assert world.paths() == PATHS


async def test_only_for_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of a private bucket are nobody else's business, and nobody else can make them up."""
    left = await leave(tmp_path)
    assert left.file.stat().st_mode & 0o777 == 0o600
    assert left.file.parent.stat().st_mode & 0o777 == 0o700
    left.file.parent.chmod(0o777)
    async with left.again(monkeypatch, Restarted) as world:
        assert world.paths() == PATHS


async def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk keeps the snapshot that was there, and nothing half-written."""
    left = await leave(tmp_path)
    monkeypatch.setattr(snapshots, "MIN_FREE", 2.0)
    before = left.file.read_bytes()
    async with left.again(monkeypatch, Resumed) as world:
        await world.write("more", b"more")
    assert left.file.read_bytes() == before


async def test_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be made keeps nothing from being mounted."""
    async with mounted(tmp_path) as world:
        monkeypatch.setattr(snapshots, "LAYOUT", "file/below")
        (tmp_path / "file").write_bytes(b"")
        world.fs.mounted.tree_directory = tmp_path / "file"
        await world.foreign.put("a", b"a")
        await world.settle()
    assert not (tmp_path / snapshots.LAYOUT).exists()


async def test_killed_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process left half-written is no snapshot, and goes one day."""
    left = await leave(tmp_path)
    snapshot = left.file.parent
    leftover = snapshot / ".new-x"
    leftover.write_bytes(b"natsfs tree 1\n")
    os.utime(leftover, (1, 1))
    async with mounted(left.directory, manager=left.manager, store=left.store) as world:
        assert world.paths() == PATHS
        await world.write("more", b"more")
        await world.settle()
    assert not leftover.exists()
    assert len(list(snapshot.iterdir())) == 1


async def test_the_server_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be proved is loaded."""
    left = await leave(tmp_path)

    async def refuse(revision: int = 1) -> None:
        raise RequestTimeout("no answer")

    monkeypatch.setattr(left.store, "survey", refuse)
    async with left.again(monkeypatch, Resumed, Restarted) as world:
        assert world.paths() == PATHS


async def test_written_while_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount that is killed leaves what it knew some minutes before."""
    monkeypatch.setattr(recollection, "INTERVAL", 0.01)
    async with mounted(tmp_path) as world:
        await world.foreign.put("a", b"a")
        await becomes(lambda: bool(list(tmp_path.glob(f"{snapshots.LAYOUT}/[!.]*"))))
