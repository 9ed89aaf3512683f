"""Single entries: attributes, directories, removal, and a bucket that is full."""

from __future__ import annotations

import stat
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from natsfs.errors import (
    ExistsError,
    InvalidArgument,
    IsADirectory,
    NameTooLongError,
    NatsfsError,
    NoSpaceError,
    NotADirectory,
    NotEmptyError,
    NotFoundError,
    ReadOnlyError,
)
from natsfs.filesystem.attributes import AttributeChanges
from natsfs.store.model import BucketConfig, ObjectMeta
from natsfs.tree.nodes import Leaf
from tests.fs.world import World, in_pieces, mounted

# -- attributes -----------------------------------------------------------------------------------


async def test_attributes_are_stored(world: World) -> None:
    """M1, M3: what setattr changes is in the metadata; ctime is the server's time of it."""
    await world.write("f", b"data")
    changes = AttributeChanges(
        mode=0o4711, uid=7, gid=8, mtime_ns=-1_000_000_001, atime_ns=2**33 * 10**9 + 5
    )
    await world.fs.changes.setattr(world.leaf("f"), changes, None)
    found = world.stat("f")
    assert (found.mode, found.uid, found.gid) == (0o104711, 7, 8)
    assert (found.mtime_ns, found.atime_ns) == (changes.mtime_ns, changes.atime_ns)
    info = await world.foreign.store.get_info("f")
    assert info.metadata["mode"] == "0104711"
    assert info.metadata["mtime"] == "1969-12-31T23:59:58.999999999Z"
    await world.settle()
    assert world.stat("f").ctime_ns == info.time_ns
    assert world.stat("f").size == 4


@pytest.mark.parametrize("heard", [False, True])
async def test_foreign_metadata_survives(world: World, heard: bool) -> None:
    """M5, M6: a chmod keeps keys and JSON fields that others wrote, heard of or not."""
    meta = ObjectMeta(
        description="theirs",
        headers={"x": ("1", "2")},
        metadata={"color": "red", "mode": "0100600"},
        extra={"future": {"a": [1, 2]}},
    )
    await world.foreign.store.put("f", in_pieces(b"data"), meta)
    await world.settle()
    await world.foreign.store.update_meta("f", metadata={"color": "blue", "uid": "5"})
    if heard:
        await world.settle()
    await world.chmod("f", 0o640)
    info = await world.foreign.store.get_info("f")
    times = {key: info.metadata[key] for key in ("mtime", "atime", "btime")}
    assert info.metadata == {"color": "blue", "uid": "5", "mode": "0100640", **times}
    assert info.description == "theirs"
    assert dict(info.headers) == {"x": ("1", "2")}
    assert info.extra["future"] == {"a": [1, 2]}
    assert world.stat("f").uid == 5


async def test_foreign_metadata_survives_a_new_version(world: World) -> None:
    """M6: the same for what a program writes."""
    meta = ObjectMeta(metadata={"color": "red"}, extra={"future": 1}, description="theirs")
    await world.foreign.store.put("f", in_pieces(b"data"), meta)
    await world.settle()
    await world.write("f", b"new")
    info = await world.foreign.store.get_info("f")
    assert info.metadata["color"] == "red"
    assert info.extra["future"] == 1
    assert info.description == "theirs"


async def test_metadata_changes_do_not_bring_back_a_version(world: World) -> None:
    """M5: a chmod that races with a foreign put changes the new version, not the bytes."""
    await world.write("f", b"old")
    await world.foreign.put("f", b"new")
    await world.chmod("f", 0o600)
    assert await world.foreign.get("f") == b"new"
    assert await world.read("f") == b"new"
    assert world.stat("f").mode == 0o100600


async def test_chmod_of_what_another_client_deleted(world: World) -> None:
    """M5: a chmod does not bring back what another client deleted, heard of or not."""
    await world.write("f", b"old")
    await world.foreign.delete("f")
    with pytest.raises(NotFoundError):
        await world.chmod("f", 0o600)
    assert not world.exists("f")


async def test_write_during_a_chmod(world: World) -> None:
    """W3: a file that is written while its attributes are on their way keeps its new size."""
    await world.write("f", b"1")
    world.manager.delay = 0.01
    handle = world.open("f", 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.chmod, "f", 0o600)
        await trio.testing.wait_all_tasks_blocked()
        await world.fs.files.write(handle, 0, b"longer")
    world.manager.delay = 0.0
    assert world.stat("f").size == 6
    assert world.stat("f").mode == 0o100600
    await world.close(handle)
    assert world.stat("f").mode == 0o100600
    assert (await world.foreign.store.get_info("f")).metadata["mode"] == "0100600"


async def test_attributes_travel_with_bytes(world: World) -> None:
    """M1: what is set on a file before its commit is one meta message with it."""
    handle = world.open("f", 0o101)
    await world.fs.files.write(handle, 0, b"x")
    changes = AttributeChanges(mode=0o600, mtime_ns=10**18)
    await world.fs.changes.setattr(world.leaf("f"), changes, handle)
    assert world.store.stream.last_sequence == 0
    await world.close(handle)
    assert (world.stat("f").mode, world.stat("f").mtime_ns) == (0o100600, 10**18)
    assert world.store.stream.last_sequence == 2


async def test_attributes_of_an_implied_directory(world: World) -> None:
    """N5, M1: a directory without a marker gets one when its attributes are set."""
    await world.foreign.put("d/f", b"x")
    await world.settle()
    await world.chmod("d", 0o700)
    assert world.stat("d").mode == 0o40700
    assert await world.foreign.names() == ["d/", "d/f"]
    await world.chmod("", 0o711)
    assert world.stat("").mode == 0o40711
    assert "./" in await world.foreign.names()


@pytest.mark.expects_log("metadata of 'f' cannot be used: mode=.*uid=")
async def test_undecodable_metadata(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """M2: values that cannot be decoded fall back, with one warning an object."""
    bad = ObjectMeta(metadata={"mode": "rwx", "uid": "root", "mtime": "2020-01-01T00:00:00Z"})
    await world.foreign.put("f", b"x", bad)
    await world.settle()
    for _ in range(3):
        found = world.stat("f")
        assert (found.mode, found.uid, found.mtime_ns) == (0o100644, 1000, 1577836800 * 10**9)
        await world.chmod("f", 0o644)
    assert len([record for record in caplog.records if "cannot be used" in record.message]) == 1


# -- directories ----------------------------------------------------------------------------------


async def test_directories(world: World) -> None:
    """N5: mkdir stores a marker, rmdir removes it."""
    await world.mkdir("d")
    await world.mkdir("d/e")
    assert await world.foreign.names() == ["d/", "d/e/"]
    assert world.fs.entries.links(world.entry("d")) == 3
    with pytest.raises(NotEmptyError):
        await world.rmdir("d")
    for name in ("d/e", "d"):
        await world.rmdir(name)
    assert world.paths() == []


async def test_implied_directories_stay(world: World) -> None:
    """N5: a prefix stays a directory of this mount until rmdir, also when its last file goes."""
    await world.foreign.put("d/f", b"x")
    await world.settle()
    await world.foreign.delete("d/f")
    await world.settle()
    assert world.paths() == ["d/"]
    await world.rmdir("d")
    assert world.paths() == []


@pytest.mark.parametrize("call", ["mkdir", "mknod", "symlink", "link"])
async def test_exclusive_creation(world: World, call: str) -> None:
    """A3: a name that another client took, unheard of, is not taken again."""
    await world.write("f", b"f")
    await world.foreign.put("x/" if call == "mkdir" else "x", b"")
    with pytest.raises(ExistsError):
        await create(world, call, "x")
    with pytest.raises(ExistsError):
        await create(world, call, "x")


@pytest.mark.parametrize("call", ["mkdir", "mknod", "symlink", "link"])
async def test_creation_again(world: World, call: str) -> None:
    """A3: a name that was removed, by whomever, can be taken again."""
    await world.write("f", b"f")
    await create(world, call, "x")
    await (world.rmdir("x") if call == "mkdir" else world.unlink("x"))
    await create(world, call, "x")
    await world.foreign.delete("x/" if call == "mkdir" else "x")
    await world.settle()
    await create(world, call, "x")
    assert world.exists("x")


async def create(world: World, call: str, path: str) -> None:
    """Make something of the kind that *call* makes."""
    match call:
        case "mkdir":
            await world.mkdir(path)
        case "mknod":
            await world.fs.changes.mknod(*world.place(path), stat.S_IFIFO | 0o600, 0, 1, 1)
        case "symlink":
            await world.symlink("nowhere", path)
        case "link":
            await world.link("f", path)


async def test_foreign_file_while_a_directory_is_removed(world: World) -> None:
    """N5: a file that another client puts into a directory during its rmdir is not lost."""
    await world.mkdir("d")
    world.manager.delay = 0.01
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.rmdir, "d")
        await trio.testing.wait_all_tasks_blocked()
        await world.foreign.put("d/f", b"theirs")
    world.manager.delay = 0.0
    await world.settle()
    assert world.paths() == ["d/", "d/f"]
    assert await world.read("d/f") == b"theirs"


async def test_foreign_file_while_a_directory_is_made(world: World) -> None:
    """N5: nor one that is put into it during its mkdir."""
    world.manager.delay = 0.01
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.mkdir, "d")
        await trio.testing.wait_all_tasks_blocked()
        await world.foreign.put("d/f", b"theirs")
    world.manager.delay = 0.0
    await world.settle()
    assert world.paths() == ["d/", "d/f"]
    assert await world.foreign.names() == ["d/", "d/f"]


async def test_directory_goes_while_an_entry_is_created(world: World) -> None:
    """N1: an entry whose directory another client removes meanwhile is not lost."""
    await world.mkdir("d")
    world.manager.delay = 0.01
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.mkdir, "d/e")
        await trio.testing.wait_all_tasks_blocked()
        await world.foreign.delete("d/")
    world.manager.delay = 0.0
    await world.settle()
    assert world.paths() == ["d/", "d/e/"]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("x" * 256, NameTooLongError),
        ("f", ExistsError),
        ("．", InvalidArgument),
    ],
)
async def test_names_that_cannot_be_made(world: World, name: str, error: type[NatsfsError]) -> None:
    """N4, N5: what cannot be stored is refused early."""
    await world.write("f", b"f")
    with pytest.raises(error):
        await world.mkdir(name)


async def test_object_names_that_no_subject_holds(world: World) -> None:
    """N4: a path whose object name is too long is ENAMETOOLONG, and nothing is made."""
    path = ""
    for _ in range(11):
        path += "x" * 250 + "/"
        await world.mkdir(path.rstrip("/"))
    before = world.store.stream.last_sequence
    for create in (world.mkdir, lambda path: world.write(path, b"x")):
        with pytest.raises(NameTooLongError):
            await create(path + "y" * 250)
    assert world.store.stream.last_sequence == before


# -- removal --------------------------------------------------------------------------------------


async def test_unlink(world: World) -> None:
    """W6: a removed file leaves a tombstone and no chunks."""
    await world.write("f", b"data")
    await world.unlink("f")
    assert world.paths() == []
    (grave,) = await world.foreign.store.list(show_deleted=True)
    assert grave.deleted
    with pytest.raises(NotFoundError):
        await world.unlink("f")
    await world.mkdir("d")
    with pytest.raises(IsADirectory):
        await world.unlink("d")
    await world.write("f", b"again")
    with pytest.raises(NotADirectory):
        await world.rmdir("f")


async def test_unlink_of_a_version_that_nobody_heard_of(world: World) -> None:
    """W6: the chunks of the version that is really removed are freed."""
    await world.write("f", b"old")
    await world.foreign.put("f", b"theirs")
    await world.unlink("f")
    assert await world.foreign.names() == []
    assert not world.exists("f")


async def test_unlink_of_what_another_client_deleted(world: World) -> None:
    """A3: it is gone, which is what was asked for."""
    await world.write("f", b"old")
    await world.foreign.delete("f")
    await world.unlink("f")
    assert world.paths() == []


async def test_read_only(world: World) -> None:
    """A6: where nothing may be changed, everything that changes is refused."""
    await world.write("f", b"f")
    await world.mkdir("d")
    world.fs.mounted.read_only = "sealed"
    changes: list[Callable[[], Awaitable[None]]] = [
        lambda: world.mkdir("x"),
        lambda: world.unlink("f"),
        lambda: world.rmdir("d"),
        lambda: world.rename("f", "g"),
        lambda: world.chmod("f", 0o600),
        lambda: world.truncate("f", 0),
        lambda: world.symlink("f", "l"),
        lambda: world.link("f", "l"),
        lambda: world.write("f", b"g"),
        lambda: world.write("new", b"g"),
    ]
    for change in changes:
        with pytest.raises(ReadOnlyError):
            await change()
    assert await world.read("f") == b"f"


# -- a full bucket --------------------------------------------------------------------------------


async def test_full_bucket(tmp_path: Path) -> None:
    """E: a commit into a full bucket is ENOSPC at close; a removal works and makes room."""
    async with mounted(tmp_path, BucketConfig("bucket", max_bytes=500_000)) as world:
        await world.write("a", bytes(300_000))
        handle = world.open("b", 0o101)
        await world.fs.files.write(handle, 0, bytes(300_000))
        with pytest.raises(NoSpaceError):
            await world.fs.files.flush(handle)
        limit = world.store.stream.config
        world.store.stream.config = replace(limit, max_bytes=world.store.stream.size)
        await world.unlink("a")
        world.store.stream.config = limit
        await world.close(handle)
        assert world.paths() == ["b"]


async def test_waiting_chunks_make_room(tmp_path: Path) -> None:
    """W6: chunks that wait for their purge are freed at once when space is short."""
    config = BucketConfig("bucket", max_bytes=500_000)
    async with mounted(tmp_path, config, purge_delay=1000.0) as world:
        for _ in range(4):
            await world.write("a", bytes(200_000))
        assert await world.read("a") == bytes(200_000)
        await world.write("b", bytes(200_000))


async def test_removal_where_no_byte_is_left(tmp_path: Path) -> None:
    """E: where there is no room even for a tombstone, unlink and rmdir work all the same, and leave
    one behind."""
    async with mounted(tmp_path, BucketConfig("bucket", max_bytes=100_000)) as world:
        await world.mkdir("d")
        await world.write("d/f", b"")
        world.store.stream.config = replace(
            world.store.stream.config, max_bytes=world.store.stream.size
        )
        await world.unlink("d/f")
        await world.rmdir("d")
        assert world.paths() == []
        assert [info.deleted for info in await world.store.list(show_deleted=True)] == [True, True]


async def test_uncommitted_leaf_is_no_object(world: World) -> None:
    """W2: a file that is only here is a file without a meta."""
    handle = world.open("f", 0o101)
    leaf = world.entry("f")
    assert isinstance(leaf, Leaf)
    assert leaf.info is None
    await world.unlink("f")
    await world.close(handle)
    assert world.store.stream.last_sequence == 0
