"""What a mount that died had not saved: W7 and W8 without a kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from natsfs.config import ConflictPolicy
from natsfs.data.journal import Entry
from natsfs.errors import NatsfsError, NoSpaceError, RequestTimeout
from natsfs.filesystem import UnsavedFile, unsaved
from natsfs.filesystem.attributes import AttributeChanges
from natsfs.filesystem.journaling import Journaling
from natsfs.handles import OpenFile
from natsfs.tree.nodes import Leaf
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
    until,
)
from tests.fs.world import DEADLINE, World


async def write_in_vain(
    world: World, host: Host, path: str, data: bytes, at: int = 0, flags: int = CREATE
) -> None:
    """Write *data* and close, which fails."""
    handle = world.open(path, flags)
    for start in range(0, len(data), 100_000):
        await world.fs.files.write(handle, at + start, data[start : start + 100_000])
    host.refuse("upload", "chunk", "commit")
    with pytest.raises(NatsfsError):
        await world.fs.files.flush(handle)
    await world.fs.files.release(handle)


CASES = {
    "new and small": (None, b"precious", 0, b"precious"),
    "new and large": (None, pattern(LARGE), 0, pattern(LARGE)),
    "over the middle": (b"0123456789", b"abc", 4, b"0123abc789"),
    "behind the end": (b"0123", b"abc", 6, b"0123\0\0abc"),
    "over much": (pattern(LARGE), b"x" * 700_000, 1000, None),
}


@died
@pytest.mark.parametrize("case", CASES)
async def test_closed_in_vain(host: Host, case: str) -> None:
    """W7: what could not be stored when it was closed survives the mount and is stored by the next
    one, attributes and all."""
    before, data, at, after = CASES[case]
    if after is None:
        assert before is not None
        after = before[:at] + data + before[at + len(data) :]

    async def first(world: World) -> None:
        await write_in_vain(world, host, "f", data, at)
        await world.fs.changes.setattr(world.leaf("f"), AttributeChanges(mode=0o600), None)

    async def second(world: World) -> None:
        assert await world.read("f") == after
        await saved(world)
        assert await world.foreign.get("f") == after
        assert world.stat("f").mode == 0o100600
        assert world.fs.recovery.left == []

    await lives(host, first, second, before=before)


@died
@pytest.mark.parametrize("size", [1000, LARGE])
async def test_still_being_written(host: Host, size: int) -> None:
    """W7, W2: what a program was still writing replaces nothing, and is offered."""
    data = pattern(size)

    async def first(world: World) -> None:
        handle = world.open("f", os.O_RDWR | os.O_TRUNC)
        for start in range(0, size, 50_000):
            await world.fs.files.write(handle, start, data[start : start + 50_000])
            await trio.lowlevel.checkpoint()

    async def second(world: World) -> None:
        assert await world.read("f") == b"old"
        (left,) = world.fs.recovery.left
        assert (left.name, left.size) == ("f", size)

    async def third(world: World) -> None:
        recovery, parent = world.fs.recovery, world.fs.mounted.journal.parent
        await recovery.settle(parent, recovery.store_beside)
        await saved(world)
        assert recovery.left == []
        (name,) = [name for name in await world.foreign.names() if name != "f"]
        assert name.startswith("f.recovered-this_host-")
        assert await world.foreign.get(name) == data
        assert await world.foreign.get("f") == b"old"

    await lives(host, first, second, third, before=b"old")


@died
async def test_saved_into_a_directory(host: Host, tmp_path: Path) -> None:
    """W7: what is left can be written into files, from where nothing else is touched."""

    async def first(world: World) -> None:
        handle = world.open("f", os.O_RDWR)
        await world.fs.files.write(handle, 2, b"XY")

    async def second(world: World) -> None:
        recovery, parent = world.fs.recovery, world.fs.mounted.journal.parent
        await recovery.settle(parent, lambda one: recovery.save(one, tmp_path / "out"))
        assert (tmp_path / "out" / "f").read_bytes() == b"01XY456"
        assert await world.foreign.get("f") == b"0123456"

    await lives(host, first, second, before=b"0123456")


@died
async def test_a_newer_version_stays(host: Host) -> None:
    """W7, A4: what another client stored since keeps its name; ours is stored beside it."""

    async def first(world: World) -> None:
        await write_in_vain(world, host, "f", b"OURS", 0)
        await world.foreign.put("f", b"theirs")

    async def second(world: World) -> None:
        await saved(world)
        assert await world.foreign.get("f") == b"theirs"
        (name,) = [name for name in await world.foreign.names() if name != "f"]
        assert name.startswith("f.conflict-this_host-")
        assert await world.foreign.get(name) == b"OURS"

    await lives(host, first, second, before=b"old!")


@died
async def test_appended_goes_behind(host: Host) -> None:
    """W7, A4: what was appended goes behind what another client stored since."""

    async def first(world: World) -> None:
        await write_in_vain(world, host, "f", b"ours\n", 4, os.O_WRONLY | os.O_APPEND)
        await world.foreign.put("f", b"old\ntheirs\n")

    async def second(world: World) -> None:
        await saved(world)
        assert await world.foreign.get("f") == b"old\ntheirs\nours\n"
        assert await world.foreign.names() == ["f"]

    await lives(host, first, second, before=b"old\n")


@pytest.mark.parametrize("size", [5, LARGE])
async def test_appended_once(host: Host, size: int) -> None:
    """W1, A4: what was appended and stored, though the server's answer was lost, is not taken for
    another client's version, behind which it would go once more."""
    ours = pattern(size)

    async def life(world: World) -> None:
        handle = world.open("f", os.O_WRONLY | os.O_APPEND)
        await world.fs.files.write(handle, 4, ours)
        with answers_lost(), pytest.raises(RequestTimeout):
            await world.fs.files.flush(handle)
        await world.fs.files.write(handle, 4 + size, b"more")
        await world.close(handle)
        assert await world.foreign.get("f") == b"old\n" + ours + b"more"
        await collect(world)

    with trio.fail_after(DEADLINE):
        await lives(host, life, before=b"old\n")


@died
@pytest.mark.parametrize("size", [5, LARGE])
async def test_died_while_it_was_put_behind(
    host: Host, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """W7, A4: what was closed and put behind another client's version is saved by the next mount
    although this one died before the server had it, and the content it had before is needed no
    more."""
    ours = pattern(size)

    async def first(world: World) -> None:
        await write_in_vain(world, host, "f", ours, 4, os.O_WRONLY | os.O_APPEND)
        reached = trio.Event()

        async def never(*_: object) -> None:
            reached.set()
            await trio.sleep_forever()

        rebased = Journaling.rebased

        async def dying(journaling: Journaling, file: OpenFile) -> bool:
            safe = await rebased(journaling, file)
            monkeypatch.setattr(world.fs.unsaved._commits, "_store", never)
            return safe

        monkeypatch.setattr(Journaling, "rebased", dying)
        await world.foreign.put("f", b"old\ntheirs\n")
        world.fs.unsaved.take(world.leaf("f").file)  # now, not after the pause between attempts
        with trio.fail_after(DEADLINE):
            await reached.wait()
        assert [state.closed for state in world.fs.mounted.journal.left()] == [True]

    async def second(world: World) -> None:
        monkeypatch.undo()
        await saved(world)
        assert world.fs.recovery.left == []
        assert await world.foreign.get("f") == b"old\ntheirs\n" + ours
        assert await world.foreign.names() == ["f"]

    await lives(host, first, second, before=b"old\n")


@pytest.mark.parametrize("size", [1000, LARGE])
async def test_stored_already(host: Host, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """W7, A4: a file that had become a version before the mount died is not stored again, not even
    over what another client made of it."""
    data = pattern(size)

    async def first(world: World) -> None:
        handle = world.open("f", CREATE)
        await world.fs.files.write(handle, 0, data)
        host.refuse("upload", "chunk", "commit")
        with pytest.raises(NatsfsError):
            await world.fs.files.flush(handle)
        host.refuse()
        monkeypatch.setattr(Entry, "end", lambda entry: None)
        await world.fs.files.flush(handle)

    async def second(world: World) -> None:
        assert world.fs.pending_bytes() == 0
        assert await world.foreign.names() == ["f"]
        assert world.leaf("f").info is not None

    async def undone(world: World) -> None:
        monkeypatch.undo()
        await second(world)

    await lives(host, first, undone)


@died
async def test_unlinked_and_renamed(host: Host) -> None:
    """W7, W5: a file is recovered under the name that it had last, and not at all without one."""

    async def first(world: World) -> None:
        await world.mkdir("d")
        for name in ("d/gone", "d/moved"):
            handle = world.open(name, CREATE)
            await world.fs.files.write(handle, 0, name.encode())
            await world.fs.unsaved._journaling.kept(handle.file, closed=True)
        await world.unlink("d/gone")
        await world.rename("d/moved", "d/new")
        await world.rename("d", "e")

    async def second(world: World) -> None:
        await saved(world)
        assert await world.foreign.names() == ["e/", "e/new"]
        assert await world.foreign.get("e/new") == b"d/moved"

    await lives(host, first, second)


@died
async def test_died_twice(host: Host) -> None:
    """W7: what a mount took over is in its own journal before it leaves the old one."""

    async def first(world: World) -> None:
        await write_in_vain(world, host, "f", pattern(LARGE))

    async def second(world: World) -> None:
        host.refuse("upload", "chunk", "commit")
        assert await world.read("f") == pattern(LARGE)

    async def third(world: World) -> None:
        await saved(world)
        assert await world.foreign.get("f") == pattern(LARGE)
        assert await world.foreign.names() == ["f"]

    await lives(host, first, second, third)


# -- written after the last close -----------------------------------------------------------------


@died
@pytest.mark.parametrize("size", [1000, LARGE])
@pytest.mark.parametrize("writeback", [False, True])
async def test_release_waits_for_nobody(
    host: Host, monkeypatch: pytest.MonkeyPatch, size: int, *, writeback: bool
) -> None:
    """W7: what a mapping writes after the last close is in the journal when its handle is released,
    which waits for no server, and is stored when there is one; the version below stays until then.
    """
    host.writeback = writeback
    data = pattern(size)

    async def only(world: World) -> None:
        await saved(world)
        reached = trio.Event()

        async def commit(file: OpenFile, leaf: Leaf) -> None:
            reached.set()
            await trio.sleep_forever()

        handle = world.open("f", os.O_RDWR)
        await world.fs.files.flush(handle)
        await world.fs.files.write(handle, 0, data)
        monkeypatch.setattr(world.fs.unsaved._commits, "_commit", commit)
        with trio.fail_after(DEADLINE):
            await world.release(handle)
        assert world.fs.unsaved_files() == [UnsavedFile("f", size, None, "waiting")]
        assert [state.closed for state in world.fs.mounted.journal.left()] == [True]
        assert await world.read("f") == data
        await reached.wait()
        assert await world.foreign.get("f") == b"old"

    async def after_that(world: World) -> None:
        await saved(world)
        assert await world.foreign.get("f") == data

    await lives(host, only, after_that, before=b"old")


async def test_released_while_others_write(host: Host) -> None:
    """W2, W7: what a released handle left is saved with the close of whoever still writes, and not
    before."""

    async def only(world: World) -> None:
        mapped, writer = world.open("f", os.O_RDWR), world.open("f", os.O_WRONLY)
        await world.fs.files.write(mapped, 0, b"OLD")
        await world.fs.files.write(writer, 3, b"ha")
        await world.release(mapped)
        await world.settle()
        assert await world.foreign.get("f") == b"old"
        await world.fs.files.write(writer, 5, b"lf")
        await world.close(writer)
        assert await world.foreign.get("f") == b"OLDhalf"

    await lives(host, only, before=b"old")


async def test_released_in_order(host: Host) -> None:
    """W8: what was released is stored behind what was closed before."""
    host.writeback = True

    async def only(world: World) -> None:
        handle = world.open("f", os.O_RDWR)
        await world.fs.files.write(handle, 0, b"new")
        await world.write("a", b"a")
        await world.release(handle)
        await world.write("b", b"b")
        await saved(world)
        metas = [world.leaf(name).info for name in ("a", "f", "b")]
        revisions = [info.revision for info in metas if info is not None]
        assert len(revisions) == 3
        assert revisions == sorted(revisions)
        assert await world.foreign.get("f") == b"new"

    await lives(host, only, before=b"old")


async def test_released_without_a_name(host: Host) -> None:
    """W5: nothing is saved of a file that was unlinked before it was released."""

    async def only(world: World) -> None:
        handle = world.open("f", os.O_RDWR)
        await world.fs.files.write(handle, 0, b"new")
        await world.unlink("f")
        await world.release(handle)
        assert world.fs.unsaved_files() == []
        await world.settle()
        assert await world.foreign.names() == []

    await lives(host, only, before=b"old")


async def test_too_much_was_released(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """W4: what waits is bounded: when it is too much a release commits, as a close does."""
    monkeypatch.setattr(unsaved, "MOST_FILES", 0)

    async def only(world: World) -> None:
        handle = world.open("f", os.O_RDWR)
        await world.fs.files.write(handle, 0, b"new")
        await world.release(handle)
        assert await world.foreign.get("f") == b"new"

    await lives(host, only, before=b"old")


@died
async def test_an_fsync_besides(host: Host) -> None:
    """W1: without writeback an fsync is about its own file, whatever else cannot be stored."""

    async def only(world: World) -> None:
        host.manager.fail = lambda operation, name: (
            NoSpaceError("full") if operation == "upload" and name == "f" else None
        )
        handle = world.open("f", os.O_RDWR)
        await world.fs.files.write(handle, 0, b"new")
        await world.release(handle)
        async with world.opened("g", CREATE) as other:
            await world.fs.files.write(other, 0, b"g")
            await world.fs.files.fsync(other)
        assert await world.foreign.get("g") == b"g"
        await world.settle()
        assert await world.foreign.get("f") == b"old"
        host.refuse()

    await lives(host, only, before=b"old")


@pytest.mark.expects_log("'f' is not saved yet")
async def test_released_behind_what_does_not_fit(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W7: without writeback a file for which the bucket has no room keeps no other one from being
    saved, neither at once nor later."""
    monkeypatch.setattr(unsaved, "RETRY", 0.01)

    async def only(world: World) -> None:
        host.manager.fail = lambda operation, name: (
            NoSpaceError("full") if operation == "upload" and name == "f" else None
        )
        for name in ("f", "g", "h"):
            async with world.opened(name, CREATE):
                pass
            handle = world.open(name, os.O_RDWR)
            await world.fs.files.write(handle, 0, b"new")
            await world.release(handle)
        await until(lambda: [one.name for one in world.fs.unsaved_files()] == ["f"])
        assert await world.foreign.get("g") == await world.foreign.get("h") == b"new"
        host.refuse()
        await saved(world)

    await lives(host, only, before=b"old")


@pytest.mark.expects_log("not stored: another client stored version|stays in the journal")
@died
async def test_giving_way_when_nobody_listens(host: Host) -> None:
    """A4, W7: what is written after the last close and gives way is told in the log, and waits in
    the journal for its user."""
    host.conflict = ConflictPolicy.FAIL

    async def first(world: World) -> None:
        handle = world.open("f", os.O_RDWR)
        await world.foreign.put("f", b"theirs")
        await world.fs.files.write(handle, 0, b"ours")
        await world.release(handle)
        await saved(world)
        assert await world.read("f") == b"theirs"
        assert world.fs.pending_bytes() == 0

    async def second(world: World) -> None:
        recovery = world.fs.recovery
        assert [(left.name, left.size) for left in recovery.left] == [("f", 4)]
        await recovery.settle(world.fs.mounted.journal.parent, drop)

    await lives(host, first, second, before=b"old")


# -- write-back -----------------------------------------------------------------------------------


@died
async def test_writeback(host: Host) -> None:
    """W8: close returns without the server, and what was closed is stored in that order."""
    host.writeback = True
    names = [f"{number}" for number in range(5)]

    async def first(world: World) -> None:
        host.refuse("upload", "chunk", "commit")
        for name in names:
            await world.write(name, name.encode())
            assert await world.read(name) == name.encode()
        assert await world.foreign.names() == []
        assert world.fs.pending_bytes() == 5

    async def second(world: World) -> None:
        await saved(world)
        found = {info.name: info.revision for info in await world.store.list()}
        assert sorted(found, key=lambda name: found[name]) == names

    await lives(host, first, second)


async def test_writeback_and_fsync(host: Host) -> None:
    """W8, W1: fsync returns when the server has the file, and all that were closed before."""
    host.writeback = True

    async def only(world: World) -> None:
        await world.write("first", b"1")
        async with world.opened("second", CREATE) as handle:
            await world.fs.files.write(handle, 0, b"2")
            await world.fs.files.fsync(handle)
            assert await world.foreign.names() == ["first", "second"]

    await lives(host, only)


@died
async def test_writeback_bound(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """W8: when too much waits, close waits for the server again."""
    monkeypatch.setattr(unsaved, "MOST_FILES", 3)
    host.writeback = True

    async def only(world: World) -> None:
        host.refuse("upload", "chunk", "commit")
        for number in range(3):
            await world.write(f"{number}", b"x")
        with pytest.raises(NatsfsError):
            await world.write("3", b"x")
        host.refuse()
        await saved(world)

    await lives(host, only)


async def test_writeback_reopened(host: Host) -> None:
    """W8, W2: a file that is being written again is not stored half."""
    host.writeback = True

    async def only(world: World) -> None:
        host.refuse("upload", "chunk", "commit")
        await world.write("f", b"whole")
        handle = world.open("f", os.O_WRONLY | os.O_TRUNC)
        host.refuse()
        await world.fs.files.write(handle, 0, b"ha")
        await world.write("g", b"x")
        await until(lambda: world.leaf("g").info is not None)
        assert "f" not in await world.foreign.names()
        await world.fs.files.write(handle, 2, b"lf")
        await world.close(handle)
        await saved(world)
        assert await world.foreign.get("f") == b"half"

    await lives(host, only)


@pytest.mark.parametrize("writeback", [False, True])
async def test_reopened_while_it_waits_for_its_name(host: Host, *, writeback: bool) -> None:
    """W2, W7: what was closed is about to be stored, when a program begins to write the file anew:
    half of that is not stored in its place."""
    host.writeback = writeback

    async def only(world: World) -> None:
        await saved(world)
        if not writeback:
            host.refuse("upload")
            with pytest.raises(NatsfsError):
                await world.write("f", b"closed")
            host.refuse()
        async with world.fs.mounted.reservations.hold(lambda: frozenset({"f"})):
            if writeback:
                await world.write("f", b"closed")
            else:
                world.fs.unsaved.take(world.leaf("f").file)
            await until(world.leaf("f").file.lock.locked)
            handle = world.open("f", os.O_WRONLY | os.O_TRUNC)
            await world.fs.files.write(handle, 0, b"half")
        await until(lambda: not world.leaf("f").file.lock.locked())
        assert await world.foreign.get("f") in (b"stored", b"closed")
        await world.fs.files.write(handle, 4, b" and the rest")
        await world.close(handle)
        await saved(world)
        assert await world.foreign.get("f") == b"half and the rest"

    await lives(host, only, before=b"stored")


@died
@pytest.mark.parametrize("size", [1000, LARGE])
async def test_rewritten_before_it_was_stored(host: Host, size: int) -> None:
    """W8: what a close promised to store is stored although a program was writing the file anew
    when the mount died; that is offered."""
    host.writeback = True
    data = pattern(size)

    async def first(world: World) -> None:
        host.refuse("upload", "chunk", "commit")
        await world.write("f", data)
        await world.rename("f", "g")
        handle = world.open("g", os.O_WRONLY | os.O_TRUNC)
        await world.fs.files.write(handle, 0, b"new")

    async def second(world: World) -> None:
        await saved(world)
        assert await world.foreign.get("g") == data
        assert await world.foreign.names() == ["g"]
        recovery = world.fs.recovery
        assert [(left.name, left.size) for left in recovery.left] == [("g", 3)]
        await recovery.settle(world.fs.mounted.journal.parent, drop)

    await lives(host, first, second)


async def test_rewritten_and_stored(host: Host) -> None:
    """W8: when the newer content is stored, or safe, the older one goes, chunks and all."""
    host.writeback = True

    async def only(world: World) -> None:
        async with world.opened("f", CREATE) as handle:
            await world.fs.files.write(handle, 0, pattern(LARGE))
        async with world.opened("f", os.O_WRONLY | os.O_TRUNC) as handle:
            await world.fs.files.write(handle, 0, b"new")
        async with world.opened("f", os.O_RDWR) as handle:
            await world.fs.files.write(handle, 0, b"N")
        await saved(world)
        assert await world.foreign.get("f") == b"New"

    await lives(host, only)


@died
async def test_overwritten_after_a_failed_close(host: Host) -> None:
    """W7, W2: a file that could not be stored and is being written again is not finished, also when
    only bytes change that were written before."""

    async def first(world: World) -> None:
        await write_in_vain(world, host, "f", b"abc", 4)
        handle = world.open("f", os.O_RDWR)
        await world.fs.files.write(handle, 4, b"X")

    async def second(world: World) -> None:
        recovery = world.fs.recovery
        assert await world.foreign.get("f") == b"0123456789"
        assert [left.name for left in recovery.left] == ["f"]
        await recovery.settle(world.fs.mounted.journal.parent, drop)

    await lives(host, first, second, before=b"0123456789")


@died
async def test_written_while_it_is_stored(host: Host) -> None:
    """W7: what is written after a version was stored is offered, and the version is not taken for
    it."""

    async def first(world: World) -> None:
        handle = world.open("f", CREATE)
        await world.fs.files.write(handle, 0, b"first")
        await world.fs.files.fsync(handle)
        await world.fs.files.write(handle, 0, b"again")

    async def second(world: World) -> None:
        recovery = world.fs.recovery
        assert await world.foreign.get("f") == b"first"
        assert [(left.name, left.size) for left in recovery.left] == [("f", 5)]
        await recovery.settle(world.fs.mounted.journal.parent, drop)

    await lives(host, first, second)


async def test_cut_while_it_is_stored(host: Host) -> None:
    """W8, W2: a program that cuts and rewrites a file while its last version is on its way does not
    make that a part of it."""
    host.writeback = True
    data, changed = pattern(LARGE), pattern(LARGE, 3)

    async def only(world: World) -> None:
        await world.write("f", data)
        await saved(world)
        async with world.opened("f", os.O_RDWR) as handle:
            for start in range(0, LARGE, 100_000):
                await world.fs.files.write(handle, start, changed[start : start + 100_000])
        await until(world.leaf("f").file.lock.locked)
        handle = world.open("f", os.O_WRONLY | os.O_TRUNC)
        await world.fs.files.write(handle, 0, b"new")
        await until(lambda: not world.leaf("f").file.lock.locked())
        assert await world.foreign.get("f") == changed
        await world.close(handle)
        await saved(world)
        assert await world.foreign.get("f") == b"new"

    await lives(host, only)


@pytest.mark.parametrize("size", [1000, 700_000, LARGE])
@pytest.mark.parametrize("before", [None, b"", b"old"])
@pytest.mark.parametrize("after", [b"", b"new"])
async def test_emptied_while_it_is_stored(
    host: Host, size: int, before: bytes | None, after: bytes
) -> None:
    """W8, W3: a file that is emptied while what was closed before is on its way stays empty when
    that has arrived."""
    host.writeback = True
    data = pattern(size)

    async def only(world: World) -> None:
        await saved(world)
        begin, arrives = host.manager.begin, trio.Event()

        async def slow(operation: str, name: str) -> None:
            await begin(operation, name)
            if operation in ("upload", "place", "commit", "publish"):
                await arrives.wait()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(host.manager, "begin", slow)
            async with world.opened("f", CREATE) as handle:
                for start in range(0, size, 100_000):
                    await world.fs.files.write(handle, start, data[start : start + 100_000])
            await until(world.leaf("f").file.lock.locked)
            handle = world.open("f", os.O_WRONLY | os.O_TRUNC)
            arrives.set()
            await until(lambda: not world.leaf("f").file.lock.locked())
        assert world.stat("f").size == 0
        if after:
            await world.fs.files.write(handle, 0, after)
        await world.close(handle)
        await saved(world)
        assert await world.read("f") == after
        assert await world.foreign.get("f") == after

    await lives(host, only, before=before)


@pytest.mark.expects_log("the journal cannot be written")
async def test_no_journal(host: Host) -> None:
    """W7, W8: where there can be no journal files are written out of order as before, and close
    waits for the server, because the disk does not have what it would promise."""
    host.writeback = True

    async def only(world: World) -> None:
        parent = world.fs.mounted.journal.parent
        await saved(world)
        if parent.exists():
            parent.rename(parent.with_name("away"))
        parent.parent.mkdir(parents=True, exist_ok=True)
        parent.write_text("in the way")
        async with world.opened("f", os.O_RDWR) as handle:
            await world.fs.files.write(handle, 2, b"X")
        assert await world.foreign.get("f") == b"01X3"
        parent.unlink()

    await lives(host, only, before=b"0123")


@pytest.mark.expects_log("'a' is not saved yet")
async def test_fsync_behind_what_cannot_be_stored(host: Host) -> None:
    """W8, A5: fsync fails with the first file that the server does not take, instead of waiting for
    each that was closed before; nothing overtakes that."""
    host.writeback = True
    tried: list[str] = []

    def fail(operation: str, name: str) -> NatsfsError | None:
        if operation != "upload":
            return None
        tried.append(name)
        return RequestTimeout("no answer")

    async def only(world: World) -> None:
        host.manager.fail = fail
        for name in ("a", "b", "c"):
            await world.write(name, b"x")
        await until(lambda: bool(tried))
        await until(lambda: not world.leaf("a").file.lock.locked())
        async with world.opened("d", CREATE) as handle:
            await world.fs.files.write(handle, 0, b"d")
            tried.clear()
            with pytest.raises(RequestTimeout):
                await world.fs.files.fsync(handle)
            assert set(tried) == {"a"}
            host.refuse()
        await saved(world)
        found = {info.name: info.revision for info in await world.store.list()}
        assert sorted(found, key=lambda name: found[name]) == ["a", "b", "c", "d"]

    await lives(host, only)
