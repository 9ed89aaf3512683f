"""rename(2): what moves, what gives way, and who else is at work meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.testing

from natsfs.errors import (
    ExistsError,
    InvalidArgument,
    IsADirectory,
    NatsfsError,
    NotADirectory,
    NotEmptyError,
    NotFoundError,
    RequestTimeout,
)
from natsfs.filesystem.moves import RENAME_EXCHANGE, RENAME_NOREPLACE
from natsfs.store.memory import MemoryManager
from tests.fs.world import World, in_pieces, mounted

CREATE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


async def test_rename_moves_no_bytes(world: World) -> None:
    """A2: a rename keeps the version, its attributes and the inode."""
    await world.write("f", b"data")
    node, before = world.leaf("f"), world.stat("f")
    assert node.info is not None
    nuid = node.info.nuid
    await world.rename("f", "g")
    assert world.leaf("g") is node
    assert node.info.nuid == nuid
    assert world.stat("g").mtime_ns == before.mtime_ns
    assert world.stat("g").ctime_ns > before.ctime_ns
    assert await world.foreign.names() == ["g"]
    assert await world.foreign.get("g") == b"data"


async def test_rename_over_a_file(world: World) -> None:
    """A2: what has the new name is replaced in one step, and its chunks are freed."""
    await world.write("f", b"new")
    await world.write("g", b"old")
    await world.rename("f", "g")
    assert world.paths() == ["g"]
    assert await world.read("g") == b"new"
    assert await world.foreign.names() == ["g"]


async def test_rename_of_a_file_that_is_not_committed(world: World) -> None:
    """W2: a new file that takes the name of an old one replaces it when it is committed, not
    before."""
    await world.write("g", b"old")
    async with world.opened("tmp", CREATE) as handle:
        await world.fs.files.write(handle, 0, b"new")
        await world.rename("tmp", "g")
        assert world.paths() == ["g"]
        assert await world.foreign.get("g") == b"old"
        assert await world.foreign.names() == ["g"]
    assert await world.foreign.get("g") == b"new"


async def test_rename_of_a_directory(world: World) -> None:
    """A2: a directory takes everything below it along, what is not committed included."""
    await world.mkdir("d")
    await world.mkdir("d/sub")
    await world.write("d/f", b"1")
    await world.write("d/sub/g", b"2")
    async with world.opened("d/new", CREATE) as handle:
        await world.fs.files.write(handle, 0, b"3")
        await world.rename("d", "e")
    assert world.paths() == ["e/", "e/f", "e/new", "e/sub/", "e/sub/g"]
    assert await world.foreign.names() == ["e/", "e/f", "e/new", "e/sub/", "e/sub/g"]
    assert await world.foreign.get("e/new") == b"3"
    assert world.entry("e").parent is world.root


@pytest.mark.parametrize("atomic", [True, False])
async def test_rename_of_a_large_directory(tmp_path: Path, atomic: bool) -> None:
    """A2: more entries than fit into a batch move, too."""
    manager = MemoryManager()
    manager.allow_atomic = atomic
    async with mounted(tmp_path, manager=manager) as world:
        for number in range(620):
            await world.foreign.store.upload(f"d/{number}", in_pieces(b"x" * (number % 2)))
        await world.settle()
        await world.rename("d", "e")
        assert len(world.directory("e").children) == 620
        assert not world.exists("d")
        assert await world.foreign.names() == sorted(f"e/{number}" for number in range(620))


@pytest.mark.parametrize("old", ["marked", "implied", "emptied"])
@pytest.mark.parametrize("new", ["marked", "emptied"])
async def test_rename_over_an_empty_directory(world: World, old: str, new: str) -> None:
    """A2: a directory replaces an empty one, whichever of them has a marker."""
    for name, kind in (("old", old), ("new", new)):
        if kind == "marked":
            await world.mkdir(name)
        else:
            await world.foreign.put(f"{name}/f", b"x")
        if kind == "emptied":
            await world.foreign.delete(f"{name}/f")
    await world.settle()
    await world.rename("old", "new")
    assert world.paths() == (["new/", "new/f"] if old == "implied" else ["new/"])
    # Another mount sees the same: nothing but the bucket tells it.
    assert await world.foreign.names() != []


async def test_implied_directory_survives_its_rename(world: World) -> None:
    """N5: a directory that only foreign objects implied, and that is empty now, keeps existing
    under its new name in every mount."""
    await world.foreign.put("d/f", b"x")
    await world.settle()
    await world.unlink("d/f")
    await world.rename("d", "e")
    assert world.paths() == ["e/"]
    assert await world.foreign.names() == ["e/"]


async def test_rename_onto_a_hidden_name(world: World) -> None:
    """N3: a directory that replaces one which hides an object hides it, too."""
    await world.foreign.put("a", b"object")
    await world.mkdir("d")
    await world.foreign.put("a/", b"")
    await world.settle()
    assert world.paths() == ["a/", "a‛", "d/"]
    await world.rename("d", "a")
    assert world.paths() == ["a/", "a‛"]
    assert await world.read("a‛") == b"object"
    await world.rename("a", "c")
    assert world.paths() == ["a", "c/"]
    assert await world.read("a") == b"object"


@pytest.mark.parametrize(
    ("old", "new", "flags", "error"),
    [
        ("none", "x", 0, NotFoundError),
        ("f", "d", 0, IsADirectory),
        ("d", "f", 0, NotADirectory),
        ("d", "full", 0, NotEmptyError),
        ("full", "full/sub", 0, InvalidArgument),
        ("full", "full/sub/below", 0, InvalidArgument),
        ("f", "g", RENAME_NOREPLACE, ExistsError),
        ("f", "none", RENAME_EXCHANGE, NotFoundError),
        ("full", "full/sub", RENAME_EXCHANGE, InvalidArgument),
        ("full/sub", "full", RENAME_EXCHANGE, InvalidArgument),
        ("f", "g", 4, InvalidArgument),
        ("f", "g", RENAME_NOREPLACE | RENAME_EXCHANGE, InvalidArgument),
    ],
)
async def test_refusals(
    world: World, old: str, new: str, flags: int, error: type[NatsfsError]
) -> None:
    """A2: what rename(2) refuses is refused, and changes nothing."""
    for name in ("d", "full", "full/sub"):
        await world.mkdir(name)
    await world.write("f", b"f")
    await world.write("g", b"g")
    before, revision = world.paths(), world.store.stream.last_sequence
    with pytest.raises(error):
        await world.rename(old, new, flags)
    assert world.paths() == before
    assert world.store.stream.last_sequence == revision


async def test_rename_onto_itself(world: World) -> None:
    """A2: a rename to the same name does nothing."""
    await world.write("f", b"f")
    revision = world.store.stream.last_sequence
    await world.rename("f", "f")
    assert world.store.stream.last_sequence == revision


async def test_exchange(world: World) -> None:
    """A2: RENAME_EXCHANGE swaps two entries of any kind in one step."""
    await world.write("f", b"file")
    await world.mkdir("d")
    await world.write("d/g", b"below")
    await world.rename("f", "d", RENAME_EXCHANGE)
    assert world.paths() == ["d", "f/", "f/g"]
    assert await world.read("d") == b"file"
    assert await world.foreign.names() == ["d", "f/", "f/g"]
    await world.write("x", b"x")
    await world.rename("x", "d", RENAME_EXCHANGE)
    assert await world.foreign.get("x") == b"file"
    assert await world.foreign.get("d") == b"x"


async def test_exchange_without_batches(tmp_path: Path) -> None:
    """A2: where the server has no batches an exchange is refused rather than pretended."""
    manager = MemoryManager()
    manager.allow_atomic = False
    async with mounted(tmp_path, manager=manager) as world:
        await world.write("f", b"f")
        await world.write("g", b"g")
        with pytest.raises(InvalidArgument):
            await world.rename("f", "g", RENAME_EXCHANGE)
        assert await world.foreign.get("f") == b"f"


async def test_failed_rename(world: World) -> None:
    """A2: a rename that the server does not acknowledge leaves the tree as it was."""
    await world.mkdir("d")
    await world.write("d/f", b"f")
    world.manager.fail = lambda operation, name: (
        RequestTimeout("no answer") if operation == "commit" else None
    )
    with pytest.raises(RequestTimeout):
        await world.rename("d", "e")
    world.manager.fail = lambda operation, name: None
    assert world.paths() == ["d/", "d/f"]
    await world.rename("d", "e")
    assert await world.foreign.names() == ["e/", "e/f"]


async def test_rename_while_a_file_below_is_committed(world: World) -> None:
    """A2, W1: neither the rename nor the commit is lost."""
    await world.mkdir("d")
    world.manager.delay = 0.01
    handle = world.open("d/f", CREATE)
    await world.fs.files.write(handle, 0, b"data")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.fs.files.flush, handle)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(world.rename, "d", "e")
    world.manager.delay = 0.0
    await world.close(handle)
    assert world.paths() == ["e/", "e/f"]
    assert await world.foreign.get("e/f") == b"data"
    assert await world.foreign.names() == ["e/", "e/f"]


async def test_commit_while_the_directory_is_renamed(world: World) -> None:
    """A2, W1: the same with the rename first."""
    await world.mkdir("d")
    await world.write("d/f", b"old")
    handle = world.open("d/f", os.O_RDWR)
    await world.fs.files.write(handle, 0, b"new")
    world.manager.delay = 0.01
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.rename, "d", "e")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(world.fs.files.flush, handle)
    world.manager.delay = 0.0
    await world.close(handle)
    assert world.paths() == ["e/", "e/f"]
    assert await world.foreign.get("e/f") == b"new"


async def test_noreplace_against_another_client(world: World) -> None:
    """A3: a name that another client took, unheard of, is not replaced with RENAME_NOREPLACE."""
    await world.write("f", b"mine")
    await world.foreign.put("g", b"theirs")
    with pytest.raises(ExistsError):
        await world.rename("f", "g", RENAME_NOREPLACE)
    assert await world.read("g") == b"theirs"
    assert await world.read("f") == b"mine"


async def test_rename_over_what_another_client_just_put(world: World) -> None:
    """A2: a plain rename replaces it."""
    await world.write("f", b"mine")
    await world.foreign.put("g", b"theirs")
    await world.rename("f", "g")
    assert world.paths() == ["g"]
    assert await world.foreign.get("g") == b"mine"


async def test_directory_onto_what_another_client_just_filled(world: World) -> None:
    """A2: a directory does not replace one that has entries, heard of or not."""
    await world.mkdir("d")
    await world.write("d/f", b"mine")
    await world.foreign.put("e/f", b"theirs")
    with pytest.raises(NotEmptyError):
        await world.rename("d", "e")
    assert await world.foreign.get("e/f") == b"theirs"
    assert await world.foreign.get("d/f") == b"mine"


async def test_rename_of_what_another_client_deleted(world: World) -> None:
    """A2: a rename of something that is gone, unheard of, is ENOENT."""
    await world.write("f", b"mine")
    await world.foreign.delete("f")
    with pytest.raises(NotFoundError):
        await world.rename("f", "g")
    assert world.paths() == []


async def test_rename_keeps_a_foreign_change(world: World) -> None:
    """M5: a rename takes along what another client changed, heard of or not."""
    await world.write("f", b"data")
    await world.foreign.store.update_meta("f", description="theirs")
    await world.rename("f", "g")
    assert (await world.foreign.store.get_info("g")).description == "theirs"


async def test_rename_into_a_directory_that_is_gone(world: World) -> None:
    """N1: nothing is renamed into a directory that another client removed."""
    await world.write("f", b"f")
    await world.foreign.put("d/", b"")
    await world.settle()
    directory = world.directory("d")
    await world.foreign.delete("d/")
    await world.settle()
    with pytest.raises(NotFoundError):
        await world.fs.moves.rename(world.root, b"f", directory, b"g", 0)
    assert await world.foreign.names() == ["f"]


async def test_links_below_a_renamed_directory(world: World) -> None:
    """K6: links inside a renamed directory lead where they led, inside and out."""
    await world.mkdir("d")
    await world.write("d/f", b"1")
    await world.write("out", b"2")
    await world.symlink("f", "d/in")
    await world.symlink("../out", "d/up")
    await world.rename("d", "e")
    assert world.readlink("e/in") == b"f"
    assert world.readlink("e/up") == b"../out"
    info = await world.foreign.store.get_info("e/in")
    assert info.link is not None
    assert info.link.name == "e/f"


async def test_hard_links_follow(world: World) -> None:
    """K7: all names of a file follow it when one of them is renamed or replaced."""
    await world.write("f", b"data")
    await world.link("f", "g")
    await world.rename("f", "h")
    assert world.leaf("h") is world.leaf("g")
    assert await world.read("g") == b"data"
    await world.write("x", b"other")
    await world.rename("x", "h")
    assert await world.read("g") == b"data"
    assert await world.read("h") == b"other"
    assert world.fs.entries.links(world.leaf("g")) == 1
    assert await world.foreign.names() == ["g", "h"]
