"""Extended attributes, and what NATS knows of an object."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from natsfs.errors import (
    InvalidArgument,
    NatsfsError,
    NoAttributeError,
    NoSpaceError,
    NotPermitted,
    NotSupported,
)
from natsfs.filesystem.xattrs import MAX_METADATA
from natsfs.store.model import ObjectMeta
from tests.fs.world import World, mounted


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"user.comment", "text, ünïcode".encode()),
        (b"user.binary", bytes(range(256))),
        (b"user.empty", b""),
        (b"user.mode", b"not the file's mode"),
        (b"user.user.mode", b"nor this one"),
        (b"user.nats", b"short of user.nats."),
        (b"user.\xff\xfe", b"a name that is not UTF-8"),
        (b"trusted.a", b"what root keeps"),
        (b"user.trusted.a", b"is another one"),
    ],
)
async def test_round_trip(world: World, name: bytes, value: bytes) -> None:
    """M4: any attribute and any value come back, and the file's own metadata stays."""
    await world.write("f", b"x")
    before = world.stat("f")
    await world.fs.xattrs.put(world.entry("f"), name, value)
    assert world.fs.xattrs.get(world.entry("f"), name) == value
    assert world.fs.xattrs.names(world.entry("f")) == [name]
    after = world.stat("f")
    assert (after.mode, after.uid, after.mtime_ns) == (before.mode, before.uid, before.mtime_ns)
    await world.fs.xattrs.remove(world.entry("f"), name)
    assert world.fs.xattrs.names(world.entry("f")) == []
    with pytest.raises(NoAttributeError):
        world.fs.xattrs.get(world.entry("f"), name)
    with pytest.raises(NoAttributeError):
        await world.fs.xattrs.remove(world.entry("f"), name)


async def test_foreign_metadata_is_an_attribute(world: World) -> None:
    """M4: a metadata key of another client is seen as user.KEY, and system keys are not."""
    await world.foreign.put("f", b"x", ObjectMeta(metadata={"owner": "ann", "mode": "0100600"}))
    await world.settle()
    assert world.fs.xattrs.names(world.entry("f")) == [b"user.owner"]
    await world.fs.xattrs.put(world.entry("f"), b"user.owner", b"bob")
    assert (await world.foreign.store.get_info("f")).metadata["owner"] == "bob"


async def test_attributes_of_directories(world: World) -> None:
    """M4: directories have them, too, also those that only foreign objects imply."""
    await world.foreign.put("implied/f", b"x")
    await world.settle()
    await world.mkdir("made")
    for name in ("implied", "made"):
        await world.fs.xattrs.put(world.entry(name), b"user.a", b"1")
        assert world.fs.xattrs.get(world.entry(name), b"user.a") == b"1"


async def test_attributes_of_an_open_file(world: World) -> None:
    """M4: an attribute set while bytes wait for their commit is kept with them."""
    async with world.opened("f", os.O_WRONLY | os.O_CREAT) as handle:
        await world.fs.files.write(handle, 0, b"bytes")
        await world.fs.xattrs.put(world.entry("f"), b"user.a", b"1")
        await world.fs.files.write(handle, 5, b" and more")
    assert world.fs.xattrs.get(world.entry("f"), b"user.a") == b"1"
    assert await world.foreign.get("f") == b"bytes and more"


async def test_what_nats_knows(world: World) -> None:
    """M4: user.nats.* tells of the object, is not listed, and is not written."""
    await world.write("d", b"12345")
    node, info = world.entry("d"), await world.foreign.store.get_info("d")
    shown = {
        "digest": info.digest,
        "nuid": info.nuid,
        "chunks": "1",
        "bucket": info.bucket,
        "object": "d",
        "revision": str(info.revision),
    }
    for name, value in shown.items():
        attribute = f"user.nats.{name}".encode()
        assert world.fs.xattrs.get(node, attribute) == value.encode()
        with pytest.raises(NotPermitted):
            await world.fs.xattrs.put(node, attribute, b"x")
    assert world.fs.xattrs.names(node) == []
    with pytest.raises(NoAttributeError):
        world.fs.xattrs.get(node, b"user.nats.link")


async def test_update_meta(world: World) -> None:
    """M4: description, headers and metadata are written through their attributes."""
    await world.write("f", b"x")
    xattrs, node = world.fs.xattrs, world.entry("f")
    await xattrs.put(node, b"user.nats.description", b"what it is")
    await xattrs.put(node, b"user.nats.headers", json.dumps({"k": ["v", "w"]}).encode())
    await xattrs.put(node, b"user.nats.metadata", b'{"only": "this"}')
    info = await world.foreign.store.get_info("f")
    assert info.description == "what it is"
    assert info.headers == {"k": ("v", "w")}
    assert info.metadata == {"only": "this"}
    assert xattrs.get(node, b"user.nats.headers") == b'{"k": ["v", "w"]}'


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        (b"other.a", b"", NotSupported),
        (b"system.posix_acl_access", b"", NotSupported),
        (b"user.", b"", InvalidArgument),
        (b"trusted.", b"", InvalidArgument),
        (b"user.nats.headers", b"no JSON", InvalidArgument),
        (b"user.nats.headers", b'{"k": "v"}', InvalidArgument),
        (b"user.nats.headers", b'{"k": [1]}', InvalidArgument),
        (b"user.nats.metadata", b'{"k": 1}', InvalidArgument),
        (b"user.nats.metadata", b"[" * 100_000, InvalidArgument),
        (b"user.large", b"x" * MAX_METADATA, NoSpaceError),
    ],
)
async def test_refused(world: World, name: bytes, value: bytes, error: type[NatsfsError]) -> None:
    """M4: what cannot be kept is refused, and nothing changes."""
    await world.write("f", b"x")
    before = await world.foreign.store.get_info("f")
    with pytest.raises(error):
        await world.fs.xattrs.put(world.entry("f"), name, value)
    assert await world.foreign.store.get_info("f") == before


async def test_two_mounts_set_their_own(world: World, tmp_path: Path) -> None:
    """M5: attributes that two mounts set on one file at the same time are all there."""
    await world.write("f", b"x")
    async with mounted(tmp_path / "other", store=world.store, manager=world.manager) as other:
        for number in range(20):
            await world.fs.xattrs.put(world.entry("f"), b"user.a%d" % number, b"1")
            await other.fs.xattrs.put(other.entry("f"), b"user.b%d" % number, b"1")
        await world.settle()
        assert len(world.fs.xattrs.names(world.entry("f"))) == 40
