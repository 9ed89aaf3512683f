"""The control socket: what a mount answers, what a command learns, who may come in."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import pytest
import trio

from natsfs.control import (
    ANSWER_TIMEOUT,
    MAX_CONNECTIONS,
    MAX_REQUEST,
    Client,
    Handler,
    ask,
    list_mounts,
    serve_control,
    socket_path,
)
from natsfs.errors import MountFailed, NatsfsError, NotFoundError, RequestTimeout, UsageError

T = TypeVar("T")


async def status() -> dict[str, Any]:
    return {"directory": "/mnt", "pending": 7}


async def echo(text: str, times: int = 1) -> str:
    return text * times


async def refuse() -> None:
    raise NotFoundError("no such thing")


async def fail() -> None:
    raise ZeroDivisionError("a bug")


async def unspeakable() -> object:
    return object()


HANDLERS: dict[str, Handler] = {
    function.__name__: function for function in (status, echo, refuse, fail, unspeakable)
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return socket_path(tmp_path / "run", Path("/mnt"))


@asynccontextmanager
async def serving(
    path: Path, handlers: Mapping[str, Handler] = MappingProxyType(HANDLERS)
) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, path, handlers)
        yield
        nursery.cancel_scope.cancel()


async def outside(call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """The result of *call*, which blocks, while the server goes on."""
    return await trio.to_thread.run_sync(partial(call, *args, **kwargs))


def say(path: Path, data: bytes) -> bytes:
    """What the server answers to raw *data*, up to the end of a line or of the connection."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(ANSWER_TIMEOUT)
        client.connect(os.path.relpath(path))
        try:
            client.sendall(data)
            with client.makefile("rb") as answers:
                return answers.readline()
        except ConnectionError:
            return b""


async def test_ask(path: Path) -> None:
    """A call gets its arguments by keyword and brings back what the handler returns."""
    async with serving(path):
        assert await outside(ask, path, "status") == {"directory": "/mnt", "pending": 7}
        assert await outside(ask, path, "echo", text="ä", times=2) == "ää"


async def test_many_requests_on_one_connection(path: Path) -> None:
    """A connection serves requests until it is closed, and knows the process that serves it."""

    def converse() -> list[str]:
        with Client(path) as client:
            assert client.pid == os.getpid()
            return [client.ask("echo", text=str(number)) for number in range(100)]

    async with serving(path):
        assert await outside(converse) == [str(number) for number in range(100)]


async def test_known_errors(path: Path) -> None:
    """An error that a handler raises on purpose reaches the asker as its text."""
    async with serving(path):
        with pytest.raises(NatsfsError, match="no such thing"):
            await outside(ask, path, "refuse")


@pytest.mark.expects_log("control: request")
@pytest.mark.parametrize("call", ["fail", "unspeakable"])
async def test_bugs_in_handlers(path: Path, call: str) -> None:
    """A handler that fails is logged, answered as an internal error, and ends nothing."""
    async with serving(path):
        with pytest.raises(NatsfsError, match="internal error"):
            await outside(ask, path, call)
        assert await outside(ask, path, "echo", text="alive") == "alive"


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"nonsense\n",
        b"[]\n",
        b"{}\n",
        b'{"call": "bogus"}\n',
        b'{"call": ["x"]}\n',
        b'{"call": "echo"}\n',
        b'{"call": "echo", "args": {"wrong": 1}}\n',
        b'{"call": "status", "args": 7}\n',
        b"\xff\xfe\n",
    ],
)
async def test_malformed_requests(path: Path, line: bytes) -> None:
    """What is no request is answered with an error, and the server lives on."""
    async with serving(path):
        assert "error" in json.loads(await outside(say, path, line))
        assert await outside(ask, path, "echo", text="alive") == "alive"


@pytest.mark.expects_log("control: a request of more than")
async def test_endless_request(path: Path) -> None:
    """A request without an end is cut off before it fills the memory."""
    async with serving(path):
        assert await outside(say, path, b"x" * (MAX_REQUEST + 100_000)) == b""
        assert await outside(ask, path, "echo", text="alive") == "alive"


@pytest.mark.expects_log("control: more than")
async def test_too_many_connections(path: Path) -> None:
    """One connection too many is closed; there is room again when others go."""

    def crowd() -> None:
        clients = [Client(path) for _ in range(MAX_CONNECTIONS)]
        for client in clients:
            client.ask("status")
        with pytest.raises(ConnectionError):
            ask(path, "status")
        for client in clients:
            client.close()

    async with serving(path):
        await outside(crowd)
        with trio.fail_after(ANSWER_TIMEOUT):
            while not await outside(is_answered, path):
                await trio.lowlevel.checkpoint()


def is_answered(path: Path) -> bool:
    try:
        return ask(path, "status") is not None
    except ConnectionError:
        return False


def test_no_answer(path: Path) -> None:
    """A mount that does not answer is reported after the time-out, not waited for."""
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(os.path.relpath(path))
        silent.listen()
        with pytest.raises(RequestTimeout):
            ask(path, "status", timeout=0.05)


async def test_who_may_come_in(path: Path) -> None:
    """The socket is for its user alone, even in a directory that was open to others."""
    path.parent.mkdir(mode=0o777)
    path.parent.chmod(0o777)
    async with serving(path):
        found, around = await outside(path.stat), await outside(path.parent.stat)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert stat.S_IMODE(around.st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")
async def test_directory_of_another_user(path: Path) -> None:
    """Sockets are not put where somebody else rules."""
    path.parent.mkdir()
    os.chown(path.parent, 12345, 12345)
    with pytest.raises(UsageError, match="belongs to another user"):
        await serve_control(path, HANDLERS)


async def test_the_socket_goes_with_the_server(path: Path) -> None:
    """When the server ends, its socket file is gone and the directory empty."""
    async with serving(path):
        assert await outside(path.exists)
    assert await outside(os.listdir, path.parent) == []


async def test_two_servers(path: Path) -> None:
    """A second server on one socket is refused and does not harm the first."""
    async with serving(path):
        with pytest.raises(MountFailed, match="another natsfs"):
            await serve_control(path, HANDLERS)
        assert await outside(ask, path, "echo", text="alive") == "alive"


async def test_dead_socket_is_replaced(path: Path) -> None:
    """What a killed mount left behind does not hinder the next one."""
    path.parent.mkdir()
    leave_dead_socket(path)
    async with serving(path):
        assert await outside(ask, path, "echo", text="alive") == "alive"


async def test_list_mounts(path: Path) -> None:
    """All mounts answer with their status; dead sockets are removed, silent mounts reported."""
    path.parent.mkdir()
    dead, silent = path.with_name("dead.sock"), path.with_name("silent.sock")
    leave_dead_socket(dead)
    async with serving(path), serving(silent, {}):
        found = {answer.path: answer for answer in await outside(list_mounts, path.parent)}
    assert found.keys() == {path, silent}
    assert found[path].status == {"directory": "/mnt", "pending": 7}
    assert (found[silent].status, "status" in found[silent].trouble) == (None, True)
    assert not await outside(dead.exists)


def test_list_mounts_without_any(tmp_path: Path) -> None:
    """Where no mount ever was there is nothing to list."""
    assert list_mounts(tmp_path / "missing") == []


def leave_dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(os.path.relpath(path))


async def test_long_paths(tmp_path: Path) -> None:
    """A directory may be deeper than a socket address can say."""
    path = socket_path(tmp_path / ("deep" * 30) / ("deeper" * 20), Path("/mnt"))
    async with serving(path):
        assert await outside(ask, path, "echo", text="alive") == "alive"


def test_socket_paths_differ(tmp_path: Path) -> None:
    """Each mount directory has a socket of its own, of the same name each time."""
    names = {socket_path(tmp_path, Path(f"/mnt/{number}")) for number in range(100)}
    assert len(names) == 100
    assert socket_path(tmp_path, Path("/mnt/1")) in names
