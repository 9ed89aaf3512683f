"""Links to a server, and streams to send through them."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from natsfs.config import ServerConfig
from natsfs.server import Server
from natsfs.store.link import Links, open_links
from natsfs.store.protocol import get_batch
from natsfs.store.session import Message, Request, open_session

INFO = Request("$JS.API.INFO")
CHUNK = 128 * 1024

#: Starts a server with a piece of configuration.
StartServer = Callable[[str], Server]


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def linked(*urls: str, timeout: float = 5.0, **settings: Any) -> AsyncIterator[Links]:
    """Links of which the first is open."""
    config = ServerConfig(urls=urls, timeout=timeout, **settings)
    async with open_session(config) as session, open_links(session) as links:
        await until(lambda: links.count > 0)
        yield links


async def create_stream(links: Links, name: str, chunks: int = 0) -> None:
    """A stream with *chunks* messages of 128 KiB, each of its own number."""
    config = {"name": name, "subjects": [f"{name}.>"], "allow_direct": True}
    await links.request(Request(f"$JS.API.STREAM.CREATE.{name}", json.dumps(config).encode()))
    for first in range(0, chunks, 32):
        numbers = range(first, min(first + 32, chunks))
        requests = [Request(f"{name}.c", bytes([n % 251]) * CHUNK) for n in numbers]
        for answer in await links.exchange(requests):
            assert isinstance(answer, list)


def freeze(server: Server) -> None:
    """Stop every thread of *server* as SIGSTOP does, and wait until they stand."""
    os.kill(server.pid, signal.SIGSTOP)
    threads = Path(f"/proc/{server.pid}/task")
    deadline = time.monotonic() + 10
    while not all(") T " in (task / "stat").read_text() for task in threads.iterdir()):
        assert time.monotonic() < deadline


@asynccontextmanager
async def silent(links: Links) -> AsyncIterator[Request]:
    """A request that nobody answers, though somebody listens."""
    async with links.subscribe("silent"):
        await links.session.request(INFO)  # the server has the subscription now
        yield Request("silent")


def batch(stream: str, count: int) -> Request:
    wanted = get_batch(1, count, count * (CHUNK + 1024))
    return Request(f"$JS.API.DIRECT.GET.{stream}", wanted, answer_bytes=count * CHUNK)


def check_batch(messages: Sequence[Message], count: int) -> None:
    assert [message.status for message in messages] == [0] * count + [204]
    assert all(m.data == bytes([n % 251]) * CHUNK for n, m in enumerate(messages[:-1]))
