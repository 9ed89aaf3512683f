"""Names of files that the bucket does not have yet, or has without the mount knowing it."""

from __future__ import annotations

import os

import pytest

from natsfs.errors import NatsfsError, RequestTimeout
from natsfs.filesystem.attributes import AttributeChanges
from natsfs.store.model import ObjectMeta
from tests.fs.lives import (
    CREATE,
    LARGE,
    Host,
    answers_lost,
    collect,
    died,
    drop,
    lives,
    pattern,
    saved,
    unheard,
)
from tests.fs.world import World


async def test_renamed_while_the_server_is_away(host: Host) -> None:
    """A2, W5: a file that is not stored yet takes the name of one that is without the server; of
    that it gets the name and the bytes to be replaced, and nothing else."""
    meta = ObjectMeta(description="old", metadata={"colour": "red"})

    async def only(world: World) -> None:
        old = await world.foreign.put("f", b"old", meta)
        await world.settle()
        world.fs.mounted.purger.hold(old.nuid)
        handle = world.open("g", CREATE)
        await world.fs.files.write(handle, 0, b"new")
        host.refuse("upload", "chunk", "commit")
        await world.rename("g", "f")
        assert await world.foreign.get("f") == b"old"
        assert world.paths() == ["f"]
        assert await world.read("f") == b"new"
        # What another client says of the old one meanwhile is nothing that the new one inherits.
        host.refuse()
        await world.foreign.store.update_meta("f", description="older", metadata={"a": "b"})
        await world.settle()
        world.fs.mounted.purger.release(old.nuid)
        await world.close(handle)
        info = world.leaf("f").info
        assert info is not None
        assert (info.description, info.metadata.get("colour"), info.metadata.get("a")) == (
            "",
            None,
            None,
        )
        assert await world.foreign.get("f") == b"new"
        assert await world.foreign.names() == ["f"]

    await lives(host, only)


async def test_a_rename_that_failed(host: Host) -> None:
    """A2: when the server cannot be told, everything is as it was."""

    async def only(world: World) -> None:
        await world.write("file", b"linked")
        await world.link("file", "link")
        handle = world.open("new", CREATE)
        await world.fs.files.write(handle, 0, b"new")
        host.refuse("commit")
        with pytest.raises(NatsfsError):
            await world.rename("new", "link")
        assert world.paths() == ["file", "link", "new"]
        assert await world.read("link") == b"linked"
        host.refuse()
        await world.close(handle)
        assert await world.foreign.get("new") == b"new"

    await lives(host, only)


@pytest.mark.parametrize("released", [False, True])
@pytest.mark.parametrize("directory", [False, True])
async def test_stored_before_it_is_renamed(host: Host, *, directory: bool, released: bool) -> None:
    """W8, A2: where the bucket has an old version of a file that waits, the new one is stored
    before the name changes: the old one is never seen under the new name."""
    host.writeback = True
    old, new, found = ("d", "e", "e/f") if directory else ("d/f", "d/g", "d/g")

    async def only(world: World) -> None:
        await world.mkdir("d")
        await world.write("d/f", b"old")
        await saved(world)
        host.refuse("upload", "chunk", "commit")
        handle = world.open("d/f", os.O_WRONLY)
        await world.fs.files.write(handle, 0, b"new")
        await world.fs.files.flush(handle)
        if released:
            await world.release(handle)
        with pytest.raises(NatsfsError):
            await world.rename(old, new)
        assert await world.read("d/f") == b"new"
        assert await world.foreign.names() == ["d/", "d/f"]
        seen: list[tuple[str, bytes]] = []
        begin = host.manager.begin

        async def look(operation: str, name: str) -> None:
            await begin(operation, name)
            names = await world.foreign.names()
            seen.extend([(n, await world.foreign.get(n)) for n in ("d/f", found) if n in names])

        host.refuse()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(host.manager, "begin", look)
            await world.rename(old, new)
        assert (found, b"old") not in seen
        assert ("d/f", b"new") in seen
        assert await world.foreign.get(found) == b"new"
        if not released:
            await world.release(handle)

    await lives(host, only)


@died
@pytest.mark.parametrize("size", [1000, LARGE])
async def test_renamed_over_what_was_not_stored(host: Host, size: int) -> None:
    """W7, W8, A2: of two files that wait to be stored, one takes the name of the other."""
    host.writeback = True
    data = pattern(size)

    async def first(world: World) -> None:
        host.refuse("upload", "chunk", "commit")
        await world.write("f", b"closed")
        await world.write("g", data)
        await world.rename("g", "f")

    async def second(world: World) -> None:
        await saved(world)
        assert world.fs.recovery.left == []
        assert await world.foreign.names() == ["f"]
        assert await world.foreign.get("f") == data

    await lives(host, first, second, before=b"stored")


@died
@pytest.mark.parametrize("size", [1000, LARGE])
async def test_half_a_file_renamed_over_a_whole_one(host: Host, size: int) -> None:
    """W2, W7: a file that is still being written takes the name of one that waits to be stored:
    that one stays until the new one is whole, and who has it open reads it."""
    host.writeback = True
    data = pattern(size)

    async def first(world: World) -> None:
        host.refuse("upload", "chunk", "commit")
        await world.write("f", data)
        reader = world.open("f")
        handle = world.open("g", CREATE)
        await world.fs.files.write(handle, 0, b"half")
        await world.rename("g", "f")
        assert await world.read_from(reader) == data

    async def second(world: World) -> None:
        await saved(world)
        assert await world.foreign.names() == ["f"]
        assert await world.foreign.get("f") == data
        recovery = world.fs.recovery
        assert [(left.name, left.size) for left in recovery.left] == [("f", 4)]
        await recovery.settle(world.fs.mounted.journal.parent, drop)

    await lives(host, first, second, before=b"stored")


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_a_whole_file_takes_the_place_for_good(host: Host, size: int) -> None:
    """W5, W7: when the new file is stored the journal has nothing of the other one, whose readers
    go on."""
    host.writeback = True
    data = pattern(size)

    async def only(world: World) -> None:
        host.refuse("upload", "chunk", "commit")
        await world.write("f", data)
        reader = world.open("f")
        handle = world.open("g", CREATE)
        await world.fs.files.write(handle, 0, b"whole")
        await world.rename("g", "f")
        host.refuse()
        await world.fs.files.fsync(handle)
        assert await world.foreign.get("f") == b"whole"
        assert len(world.fs.mounted.journal) == 0
        assert await world.read_from(reader) == data
        await world.close(handle)
        await world.close(reader)

    await lives(host, only, before=b"stored")


@died
@pytest.mark.parametrize("size", [1000, LARGE])
async def test_died_while_it_was_closed_again(host: Host, size: int) -> None:
    """W7, W8: the newer content of a file was closed, and the mount died before the journal had let
    the older one go: the newer one is saved, and no conflict is made of the two."""
    host.writeback = True
    data = pattern(size)

    async def first(world: World) -> None:
        host.refuse("upload", "chunk", "commit")
        await world.write("f", data)
        handle = world.open("f", os.O_WRONLY | os.O_TRUNC)
        await world.fs.files.write(handle, 0, b"newer")
        world.fs.unsaved._journaling.closed(handle.file)
        assert [state.closed for state in world.fs.mounted.journal.left()] == [True, True]

    async def second(world: World) -> None:
        await saved(world)
        assert world.fs.recovery.left == []
        assert await world.foreign.names() == ["f"]
        assert await world.foreign.get("f") == b"newer"

    await lives(host, first, second, before=b"stored")


@pytest.mark.parametrize("goes_on", [False, pytest.param(True, marks=died)])
async def test_died_when_something_newer_was_stored(host: Host, *, goes_on: bool) -> None:
    """W7, A4: what was closed and could not be stored is past when a newer content of the file was,
    though nobody heard of it: it does not come back beside or behind that."""

    async def first(world: World) -> None:
        handle = world.open("f", os.O_WRONLY | os.O_APPEND)
        await world.fs.files.write(handle, 6, b" and more")
        host.refuse("upload", "chunk", "commit", "place")
        with pytest.raises(NatsfsError):
            await world.fs.files.flush(handle)
        await world.release(handle)
        host.refuse()
        handle = world.open("f", os.O_WRONLY | os.O_TRUNC)
        await world.fs.files.write(handle, 0, b"newer")
        with answers_lost(), pytest.raises(RequestTimeout):
            await world.fs.files.fsync(handle)
        if goes_on:
            await world.fs.files.write(handle, 5, b"half")

    async def second(world: World) -> None:
        await saved(world)
        assert await world.foreign.names() == ["f"]
        assert await world.foreign.get("f") == b"newer"
        assert [left.size for left in world.fs.recovery.left] == [9] * goes_on
        await world.fs.recovery.settle(world.fs.mounted.journal.parent, drop)
        await collect(world)

    await lives(host, first, second, before=b"stored")


@died
@pytest.mark.parametrize("size", [1000, LARGE])
@pytest.mark.parametrize("how", ["changed", "begun anew", "chmod"])
async def test_changed_after_a_lost_answer(host: Host, size: int, how: str) -> None:
    """W7, A4: a version was stored and the answer lost; what was written after it is not taken for
    stored, nor the version for another client's."""
    data = pattern(size)

    async def first(world: World) -> None:
        handle = world.open("f", CREATE)
        for start in range(0, size, 100_000):
            await world.fs.files.write(handle, start, data[start : start + 100_000])
        with answers_lost(), pytest.raises(RequestTimeout):
            await world.fs.files.flush(handle)
        host.refuse("upload", "chunk", "commit", "place")
        if how == "changed":
            await world.fs.files.write(handle, 0, b"changed")
        elif how == "begun anew":
            await world.truncate("f", 0)
            await world.fs.files.write(handle, 0, b"changed")
        else:
            await world.chmod("f", 0o600)
        with pytest.raises(NatsfsError):
            await world.fs.files.flush(handle)

    async def second(world: World) -> None:
        await saved(world)
        assert world.fs.recovery.left == []
        assert await world.foreign.names() == ["f"]
        expected = {"changed": b"changed" + data[7:], "begun anew": b"changed", "chmod": data}
        assert await world.foreign.get("f") == expected[how]
        assert world.stat("f").mode == (0o100600 if how == "chmod" else 0o100644)

    await lives(host, first, second)


@pytest.mark.parametrize("size", [1000, LARGE])
@pytest.mark.parametrize("how", ["unlink", "rename", "directory", "exchange"])
async def test_a_name_lost_after_a_lost_answer(host: Host, size: int, how: str) -> None:
    """W5, A2: a version was stored and the answer lost; a name that its file loses goes in the
    bucket, too, and not at all while nobody can say what is there."""
    data = pattern(size)

    async def change(world: World) -> None:
        if how == "unlink":
            await world.unlink("d/f")
        elif how == "rename":
            await world.rename("d/f", "d/g")
        elif how == "directory":
            await world.rename("d", "e")
        else:
            await world.rename("d/f", "other", 2)

    async def only(world: World) -> None:
        await world.mkdir("d")
        await world.write("other", b"other")
        handle = world.open("d/f", CREATE)
        for start in range(0, size, 100_000):
            await world.fs.files.write(handle, start, data[start : start + 100_000])
        # As if the connection were lost: the watch does not tell either.
        with unheard(world.store), answers_lost(), pytest.raises(RequestTimeout):
            await world.fs.files.flush(handle)
        host.refuse("get_info_at")
        with pytest.raises(NatsfsError):
            await change(world)
        assert world.exists("d/f")
        host.refuse()
        await change(world)
        names = {
            "unlink": ["d/", "other"],
            "rename": ["d/", "d/g", "other"],
            "directory": ["e/", "e/f", "other"],
            "exchange": ["d/", "d/f", "other"],
        }
        assert await world.foreign.names() == names[how]
        await world.close(handle)
        assert await world.foreign.names() == names[how]

    await lives(host, only)


async def test_a_name_taken_over_after_a_lost_answer(host: Host) -> None:
    """W5, A2: a version was stored and the answer lost; the file that takes the name, and loses it
    again, leaves nothing there."""

    async def only(world: World) -> None:
        first = world.open("f", CREATE)
        await world.fs.files.write(first, 0, b"first")
        with unheard(world.store), answers_lost(), pytest.raises(RequestTimeout):
            await world.fs.files.flush(first)
        second = world.open("g", CREATE)
        await world.fs.files.write(second, 0, b"second")
        await world.rename("g", "f")
        await world.rename("f", "h")
        await world.close(second)
        await world.close(first)
        assert await world.foreign.names() == ["h"]
        assert await world.foreign.get("h") == b"second"

    await lives(host, only)


@pytest.mark.expects_log("files of a mount that died are saved now")
async def test_attributes_and_name_come_before_the_upload(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W8, A2: with writeback what rsync does to a file after closing it is stored with its bytes,
    in one step; and it is not forgotten if the mount dies before that."""
    host.writeback = True
    monkeypatch.setattr("natsfs.filesystem.unsaved.LINGER", 60.0)
    asked: list[str] = []

    async def as_rsync(world: World, name: str, data: bytes) -> None:
        await world.write(f".{name}.x", data)
        leaf = world.leaf(f".{name}.x")
        await world.fs.changes.setattr(leaf, AttributeChanges(mtime_ns=10**9), None)
        await world.chmod(f".{name}.x", 0o600)
        await world.rename(f".{name}.x", name)

    async def first(world: World) -> None:
        await world.foreign.put("f", b"old")
        await world.settle()
        host.manager.fail = lambda operation, name: asked.append(operation)
        await as_rsync(world, "f", b"new")
        assert asked == []
        handle = world.open("f", os.O_RDONLY)
        await world.fs.files.fsync(handle)
        await world.close(handle)
        assert asked == ["upload", "place"]
        assert await world.foreign.get("f") == b"new"
        await as_rsync(world, "g", b"later")

    async def second(world: World) -> None:
        await saved(world)
        for name, data in (("f", b"new"), ("g", b"later")):
            info = world.leaf(name).info
            assert info is not None
            assert info.metadata["mode"] == "0100600"
            assert info.metadata["mtime"] == "1970-01-01T00:00:01.000000000Z"
            assert await world.foreign.get(name) == data
        assert await world.foreign.names() == ["f", "g"]

    await lives(host, first, second)


@pytest.mark.expects_log("is not saved yet|cannot be saved|is not stored: a rename|mount that died")
@pytest.mark.parametrize("size", [1000, LARGE])
@pytest.mark.parametrize("how", ["changed", "appended"])
@pytest.mark.parametrize("dies", [False, True])
async def test_replaced_by_a_rename_without_an_answer(
    host: Host, size: int, how: str, *, dies: bool
) -> None:
    """A2, A4, W7: a file takes the name of one that waits to be stored, and the answer is lost.
    What waited does not replace it, nor go behind it: no other name has the bytes of that file."""
    host.writeback = True
    data = pattern(size)

    async def first(world: World) -> None:
        await world.write("g", data)
        await saved(world)
        host.refuse("upload", "chunk", "place")
        flags = os.O_WRONLY | (os.O_APPEND if how == "appended" else 0)
        async with world.opened("f", flags) as handle:
            await world.fs.files.write(handle, 6 if how == "appended" else 0, b"waits")
        with unheard(world.store), answers_lost(), pytest.raises(RequestTimeout):
            await world.rename("g", "f")
        if not dies:
            host.refuse()
            world.store.stream.interrupt()
            await saved(world)
            assert world.paths() == ["f"]
            assert await world.read("f") == data

    async def second(world: World) -> None:
        await saved(world)
        assert await world.foreign.names() == ["f"]
        assert await world.foreign.get("f") == data
        recovery = world.fs.recovery
        assert [left.name for left in recovery.left] == ["f"]
        assert "rename" in recovery.left[0].trouble
        await recovery.settle(world.fs.mounted.journal.parent, drop)
        await collect(world)

    await lives(host, first, second, before=b"stored")


async def test_begun_anew_after_a_rename_without_an_answer(host: Host) -> None:
    """A2, A4: a rename was not answered; what a program then writes from the start is newest."""

    async def only(world: World) -> None:
        await world.write("g", b"other")
        handle = world.open("f", os.O_RDWR)
        await world.fs.files.write(handle, 0, b"waits")
        with unheard(world.store), answers_lost(), pytest.raises(RequestTimeout):
            await world.rename("g", "f")
        world.store.stream.interrupt()
        await world.settle()
        await world.fs.files.truncate(handle.file.leaf, 0, handle)
        await world.fs.files.write(handle, 0, b"newest")
        await world.close(handle)
        assert await world.foreign.names() == ["f"]
        assert await world.foreign.get("f") == b"newest"
        await collect(world)

    await lives(host, only, before=b"stored")
