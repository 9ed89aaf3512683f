"""M3: whoever asks for a ctime gets the server's, although acknowledgements do not bring it."""

from __future__ import annotations

import os

import pytest
import trio
import trio.testing

from natsfs.errors import RequestTimeout
from natsfs.filesystem import confirmation
from tests.fs.world import World


async def server_time(world: World, name: str) -> int:
    """When the server stored the newest meta of *name*."""
    return (await world.foreign.store.get_info(name)).time_ns


async def held_up(world: World) -> trio.Event:
    """The watch waits for the kernel until the event is set."""
    world.notices.busy = busy = trio.Event()
    await world.foreign.put("foreign", b"of another client")
    await world.settle()
    return busy


async def test_who_asks_waits_for_the_echo(world: World) -> None:
    """M3: after close, chmod, mkdir and rename who asks is told the server's time, whichever way
    the entry has been changed."""
    await world.write("f", b"one")
    await world.fs.confirmation.settled(world.leaf("f"))
    assert world.stat("f").ctime_ns == await server_time(world, "f")
    await world.chmod("f", 0o600)
    assert world.stat("f").ctime_ns != await server_time(world, "f")
    await world.fs.confirmation.settled(world.leaf("f"))
    assert world.stat("f").ctime_ns == await server_time(world, "f")
    await world.mkdir("d")
    await world.fs.confirmation.settled(world.directory("d"))
    assert world.stat("d").ctime_ns == await server_time(world, "d/")
    await world.rename("f", "d/g")
    await world.fs.confirmation.settled(world.leaf("d/g"))
    assert world.stat("d/g").ctime_ns == await server_time(world, "d/g")
    await world.link("d/g", "h")
    await world.fs.confirmation.settled(world.leaf("h"))
    assert world.stat("h").ctime_ns == await server_time(world, "d/g")


async def test_of_several_commits_the_last(world: World) -> None:
    """M3: the echo of a commit that another one has overtaken confirms nothing."""
    await world.write("f", b"one")
    for mode in (0o600, 0o640, 0o644):
        await world.chmod("f", mode)
    await world.fs.confirmation.settled(world.leaf("f"))
    assert world.stat("f").ctime_ns == await server_time(world, "f")
    assert world.fs.entries.settled(world.leaf("f"))


async def test_the_leader_is_asked_when_the_watch_is_held_up(world: World) -> None:
    """M3: a watch that waits for the kernel keeps nobody from the server's time for long."""
    busy = await held_up(world)
    await world.write("f", b"one")
    with trio.fail_after(confirmation.ECHO + confirmation.ANSWER):
        await world.fs.confirmation.settled(world.leaf("f"))
    assert world.stat("f").ctime_ns == await server_time(world, "f")
    busy.set()


@pytest.mark.parametrize("failing", [True, False])
async def test_attributes_without_a_server(world: World, failing: bool) -> None:
    """A5: when neither watch nor leader tells, attributes are served with an estimate, which the
    kernel may not keep."""
    busy = await held_up(world)
    await world.write("f", b"one")
    estimate = world.stat("f").ctime_ns
    if failing:
        world.manager.fail = lambda operation, name: RequestTimeout("no answer")
    else:
        world.manager.delay = 3600.0
    begin = trio.current_time()
    await world.fs.confirmation.settled(world.leaf("f"))
    assert trio.current_time() - begin < confirmation.ECHO + confirmation.ANSWER + 1
    assert world.stat("f").ctime_ns == estimate
    assert not world.fs.entries.settled(world.leaf("f"))
    world.manager.fail = lambda operation, name: None
    world.manager.delay = 0.0
    busy.set()
    await world.settle()
    assert world.stat("f").ctime_ns == await server_time(world, "f")


async def test_nobody_waits_in_vain(world: World) -> None:
    """A5: attributes that no echo will change are told at once: of bytes that wait for their
    commit, of a directory that changed since, and of anything while the watch is interrupted."""
    busy = await held_up(world)
    await world.write("f", b"one")
    await world.mkdir("d")
    await world.write("d/f", b"one")

    async def at_once(path: str) -> None:
        begin = trio.current_time()
        await world.fs.confirmation.settled(world.entry(path))
        assert trio.current_time() - begin < confirmation.ECHO

    await at_once("d")
    async with world.opened("f", os.O_WRONLY) as handle:
        await world.fs.files.write(handle, 0, b"two")
        await at_once("f")
    world.fs.mounted.live = False
    await at_once("f")
    world.fs.mounted.live = True
    busy.set()


async def test_purged_before_its_echo(world: World) -> None:
    """M3: nobody waits for the echo of what was removed."""
    busy = await held_up(world)
    await world.write("f", b"one")
    leaf = world.leaf("f")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.fs.confirmation.settled, leaf)
        await trio.testing.wait_all_tasks_blocked()
        await world.unlink("f")
        busy.set()
    await world.settle()
    assert len(world.fs.mounted.unconfirmed) == 0
