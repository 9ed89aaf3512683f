"""What the bucket says: foreign changes, watches that start again, metas that make no sense."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest
import trio
import trio.testing

from natsfs.errors import NotFoundError, RequestTimeout
from natsfs.filesystem import intake
from natsfs.store.memory import MemoryManager
from natsfs.store.memory_stream import Publish
from natsfs.store.model import BucketConfig
from natsfs.store.wire import chunk_subject, meta_subject
from natsfs.tree.nodes import EntryChange, NodeChange
from tests.fs.world import DEADLINE, World, in_pieces, mounted

CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


async def test_foreign_changes_are_seen(world: World) -> None:
    """A1: puts, metadata, renames and deletions of others are there as soon as they are told."""
    await world.foreign.put("d/f", b"one")
    await world.settle()
    assert await world.read("d/f") == b"one"
    await world.foreign.put("d/f", b"other")
    await world.settle()
    assert world.stat("d/f").size == 5
    assert await world.read("d/f") == b"other"
    await world.foreign.store.update_meta("d/f", metadata={"mode": "0100600"})
    await world.settle()
    assert world.stat("d/f").mode == 0o100600
    await world.foreign.store.rename("d/f", "g")
    await world.settle()
    assert world.paths() == ["d/", "g"]
    await world.foreign.delete("g")
    await world.settle()
    assert world.paths() == ["d/"]


async def test_kernel_is_told(world: World) -> None:
    """A1: what others change is notified; what this mount changes is not."""
    await world.write("f", b"one")
    await world.mkdir("d")
    await world.settle()
    assert world.notices.told == []
    await world.foreign.put("f", b"two")
    await world.foreign.put("d/g", b"g")
    await world.settle()
    assert NodeChange(world.leaf("f")) in world.notices.told
    assert EntryChange(world.directory("d"), b"g") in world.notices.told
    gone = world.leaf("f")
    world.notices.told.clear()
    await world.foreign.delete("f")
    await world.settle()
    assert world.notices.told == [EntryChange(world.root, b"f", gone)]


async def test_echoes_change_nothing(world: World) -> None:
    """A1, M3: the watch brings this mount's own commits back: they are confirmed, and ctime is
    the server's."""
    await world.write("f", b"one")
    node = world.leaf("f")
    await world.chmod("f", 0o600)
    assert world.fs.mounted.unconfirmed
    assert not world.fs.entries.settled(node)
    await world.settle()
    assert not world.fs.mounted.unconfirmed
    assert world.fs.entries.settled(node)
    assert world.leaf("f") is node
    assert world.stat("f").ctime_ns == (await world.foreign.store.get_info("f")).time_ns
    assert world.notices.told == []


async def test_foreign_change_during_a_commit(world: World) -> None:
    """A1: what others change while this mount commits the same name is not lost."""
    await world.write("f", b"one")
    world.manager.delay = 0.2
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.chmod, "f", 0o600)
        await trio.testing.wait_all_tasks_blocked()
        await world.foreign.put("f", b"foreign")
    world.manager.delay = 0.0
    await world.settle()
    assert world.stat("f").size == 7
    assert world.stat("f").mode == 0o100600
    assert await world.read("f") == b"foreign"


async def test_changes_wait_for_the_kernel(world: World) -> None:
    """A1: a change shows when the kernel has been told of those before it, and not earlier, so that
    who sees it never sees those stale; this mount's own changes do not wait."""
    world.notices.busy = busy = trio.Event()
    await world.foreign.put("first", b"1")
    await world.foreign.put("second", b"2")
    await world.settle()
    assert world.exists("first")
    assert not world.exists("second")
    await world.write("own", b"own")
    world.notices.busy = None
    busy.set()
    await world.settle()
    assert world.exists("second")


async def test_changes_wait_for_a_commit(world: World) -> None:
    """A1: a change that is put off because this mount commits the same name keeps later ones from
    showing for a moment, but not for as long as a long commit takes."""
    await world.write("f", b"one")
    async with world.fs.mounted.reservations.hold(lambda: frozenset({"f"})):
        await world.foreign.put("f", b"foreign")
        await world.foreign.put("later", b"2")
        await world.settle()
        assert not world.exists("later")
        await trio.sleep(intake.ECHO * 1.5)
        assert world.exists("later")
    await world.settle()
    assert world.stat("f").size == 7


async def test_restart_sweeps_what_vanished(world: World) -> None:
    """A5: what was purged while the watch was away is gone after it; everything else stays."""
    for name in ("keeps", "goes", "d/goes"):
        await world.foreign.put(name, b"data")
    await world.settle()
    world.store.stream.advises = False
    keeps = world.leaf("keeps")
    for name in ("goes", "d/goes"):
        info = await world.foreign.store.get_info(name)
        world.store.stream.purge(info.subject)
        world.store.stream.purge(chunk_subject("bucket", info.nuid))
    await world.settle()
    assert world.exists("goes")  # a purge is not shown by the watch
    world.notices.told.clear()
    world.store.stream.interrupt()
    await world.settle()
    assert world.paths() == ["d/", "keeps"]
    assert world.leaf("keeps") is keeps
    told = {change.name for change in world.notices.told if isinstance(change, EntryChange)}
    assert told == {b"goes"}


async def test_restart_keeps_what_is_not_committed(world: World) -> None:
    """A5, W7: a sweep takes nothing that this mount is about to commit, or just did."""
    handle = world.open("new", CREATE)
    await world.fs.files.write(handle, 0, b"data")
    world.store.stream.interrupt()
    await world.write("just", b"now")
    await world.settle()
    assert world.paths() == ["just", "new"]
    await world.close(handle)
    assert await world.foreign.get("new") == b"data"


async def test_restart_during_a_commit(world: World) -> None:
    """A5, W1: a purged file that is being committed at that moment is committed again."""
    await world.write("f", b"old")
    info = await world.foreign.store.get_info("f")
    handle = world.open("f", CREATE)
    await world.fs.files.write(handle, 0, b"new")
    world.manager.delay = 0.01
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.fs.files.flush, handle)
        await trio.testing.wait_all_tasks_blocked()
        world.store.stream.purge(info.subject)
        world.store.stream.purge(chunk_subject("bucket", info.nuid))
        world.store.stream.interrupt()
    world.manager.delay = 0.0
    await world.close(handle)
    assert await world.foreign.get("f") == b"new"


async def test_sweep_during_a_change_that_fails(world: World) -> None:
    """A5: what a sweep leaves alone because it is being changed goes when that failed."""
    await world.foreign.put("f", b"old")
    await world.settle()
    info = await world.foreign.store.get_info("f")
    world.manager.delay = 0.01
    world.manager.fail = lambda operation, name: (
        RequestTimeout("no answer") if operation == "commit" else None
    )

    async def chmod() -> None:
        with pytest.raises(RequestTimeout):
            await world.chmod("f", 0o600)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(chmod)
        await trio.testing.wait_all_tasks_blocked()
        world.store.stream.purge(info.subject)
        world.store.stream.purge(chunk_subject("bucket", info.nuid))
        world.store.stream.interrupt()
    world.manager.delay = 0.0
    world.manager.fail = lambda operation, name: None
    await world.settle()
    assert world.paths() == []


@pytest.mark.expects_log("an object cannot be shown: meta on .*")
async def test_malformed_metas(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """E: a meta that cannot be understood is reported once and hides nothing else; a good one on
    its subject heals it."""
    await world.foreign.put("good", b"data")
    subject = meta_subject("bucket", "bad")
    world.store.stream.publish(Publish(subject, b"not JSON", rollup=True))
    await world.settle()
    assert world.paths() == ["good"]
    assert list(world.fs.mounted.malformed) == [subject]
    world.store.stream.interrupt()
    await world.settle()
    assert list(world.fs.mounted.malformed) == [subject]
    assert len([r for r in caplog.records if "cannot be shown" in r.message]) == 1
    await world.foreign.store.upload("bad", in_pieces(b""))
    await world.settle()
    assert world.fs.mounted.malformed == {}
    assert world.paths() == ["bad", "good"]


@pytest.mark.expects_log("an object cannot be shown: meta on .*")
async def test_malformed_meta_over_a_file_being_written(world: World) -> None:
    """E, W1: a file that is being written survives a meta that cannot be understood."""
    await world.write("f", b"one")
    info = await world.foreign.store.get_info("f")
    handle = world.open("f", CREATE)
    await world.fs.files.write(handle, 0, b"two")
    world.store.stream.publish(Publish(info.subject, b"not JSON", rollup=True))
    world.store.stream.purge(chunk_subject("bucket", info.nuid))
    await world.settle()
    assert world.exists("f")
    with pytest.raises(Exception, match="meta"):
        await world.fs.files.flush(handle)
    world.store.stream.purge(info.subject)
    await world.close(handle)
    assert await world.foreign.get("f") == b"two"


@pytest.mark.expects_log("bucket bucket is gone")
@pytest.mark.expects_log("the watch of bucket bucket failed: no answer")
async def test_watch_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A5: a watch that fails is made again; meanwhile nothing is promised to the kernel."""
    monkeypatch.setattr(intake, "WATCH_RETRY", 0.0)
    async with mounted(tmp_path) as world:
        await world.write("f", b"f")
        await world.settle()
        refused = 0

        def refuse(operation: str, name: str) -> Exception | None:
            nonlocal refused
            refused += operation == "watch"
            return RequestTimeout("no answer") if operation == "watch" and refused < 3 else None

        world.manager.fail = refuse
        for watcher in list(world.store.stream._watchers):
            watcher.close()
        world.store.stream._watchers.clear()
        with trio.fail_after(DEADLINE):
            while refused < 3 or not world.fs.entries.live:
                await trio.lowlevel.checkpoint()
        await world.foreign.put("g", b"g")
        await world.settle()
        assert world.paths() == ["f", "g"]


@pytest.mark.expects_log("bucket bucket is gone")
async def test_bucket_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A6: a bucket that is deleted and made anew is followed: what was there is gone, names that
    were removed long ago can be put again."""
    monkeypatch.setattr(intake, "WATCH_RETRY", 0.0)
    manager = MemoryManager()
    async with mounted(tmp_path, manager=manager) as world:
        for name in ("was", "removed"):
            await world.write(name, b"old")
        await world.unlink("removed")
        await world.settle()
        await manager.delete("bucket")
        with trio.fail_after(DEADLINE):
            while world.exists("was"):
                await trio.lowlevel.checkpoint()
        assert not world.fs.entries.live
        other = await manager.create(BucketConfig("bucket"))
        world.store.stream = other.stream
        world.foreign.store.stream = other.stream
        await world.foreign.put("removed", b"new")
        with trio.fail_after(DEADLINE):
            while not world.exists("removed"):
                await trio.lowlevel.checkpoint()
        assert await world.read("removed") == b"new"
        assert world.paths() == ["removed"]


async def test_first_watch_fails(tmp_path: Path) -> None:
    """A5: a mount whose first watch fails does not come up."""
    manager = MemoryManager()
    manager.fail = lambda operation, name: (
        RequestTimeout("no answer") if operation == "watch" else None
    )
    with pytest.raises(ExceptionGroup) as caught:
        async with mounted(tmp_path, manager=manager):
            raise AssertionError("it came up")
    assert caught.group_contains(RequestTimeout)


async def test_hard_links_of_others(world: World) -> None:
    """A1, K7: a name that leads to a file which another client removed leads nowhere."""
    await world.write("f", b"data")
    await world.link("f", "g")
    await world.settle()
    await world.foreign.delete("f")
    await world.settle()
    assert world.paths() == ["g"]
    with pytest.raises(NotFoundError):
        world.entry("f")
    assert world.readlink("g") == b"f"


async def test_told_again(world: World) -> None:
    """A5: after a gap everything is told again, and what nobody has looked at stays small."""
    for name in ("a", "b", "c"):
        await world.foreign.put(name, name.encode())
    await world.settle()
    assert len(list(world.root.children.records())) == 3
    world.store.stream.interrupt()
    await world.settle()
    assert len(list(world.root.children.records())) == 3
    assert await world.read("b") == b"b"
    assert len(list(world.root.children.records())) == 2


async def test_lost_by_the_server(world: World) -> None:
    """A6: a commit of this mount that the server acknowledged and then lost is not shown, nor is a
    removal."""
    await world.foreign.put("removed", b"removed")
    await world.write("kept", b"kept")
    await world.settle()
    stream = world.store.stream
    before, last = copy.deepcopy(stream._subjects), stream.last_sequence
    # What the watch would tell is lost, too.
    watchers, stream._watchers = stream._watchers, set()
    await world.write("own", b"own")
    await world.chmod("kept", 0o600)
    await world.unlink("removed")
    stream._subjects, stream.last_sequence, stream._watchers = before, last, watchers
    stream.interrupt()
    with trio.fail_after(DEADLINE):
        while world.exists("own") or not world.exists("removed"):
            await trio.lowlevel.checkpoint()
    await world.settle()
    assert world.paths() == ["kept", "removed"]
    assert world.stat("kept").mode == 0o100644
    await world.write("own", b"again")
    await world.settle()
    await world.unlink("removed")


SET_BACK = pytest.mark.expects_log("has come back in an earlier state")


@pytest.mark.parametrize(
    "since",
    [
        pytest.param([], marks=SET_BACK),
        # The same revisions on the same subject, as it were.
        pytest.param(["changed", "x", "y", "z"], marks=SET_BACK),
        ["x", "y", "z", "changed"],
    ],
)
async def test_set_back(world: World, since: list[str]) -> None:
    """A6: of a bucket that comes back in an earlier state nothing is shown that it lost, although
    revisions are given again; who has a file open keeps it."""
    await world.write("changed", b"changed")
    await world.foreign.put("removed", b"removed")
    await world.settle()
    stream = world.store.stream
    before, last = copy.deepcopy(stream._subjects), stream.last_sequence
    await world.write("changed", b"other")
    await world.foreign.put("new", b"new")
    await world.foreign.delete("removed")
    await world.settle()
    async with world.opened("changed", os.O_RDWR) as handle:
        await world.fs.files.write(handle, 0, b"dirty")
        stream._subjects, stream.last_sequence = before, last
        for name in since:
            await world.foreign.put(name, b"since")
        stream.interrupt()
        await world.settle()
        assert world.exists("removed")
        assert not world.exists("new")
        assert await world.read_from(handle) == b"dirty"
    assert await world.foreign.get("changed") == b"dirty"
    assert await world.read("removed") == b"removed"
