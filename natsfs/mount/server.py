"""The server of a mount, which is its own if it is the embedded one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import trio

from natsfs.config import MountConfig, ServerConfig
from natsfs.server import EmbeddedServer
from natsfs.threads import in_thread_or_here


@asynccontextmanager
async def server_of(config: MountConfig) -> AsyncIterator[ServerConfig]:
    """The server to connect to, which is ours while the context lasts if it is the embedded one.

    Errors: `MountFailed` (it does not start).
    """
    if config.embedded is None:
        yield config.server
        return
    embedded = await in_thread_or_here(partial(EmbeddedServer.join, config.embedded))
    try:
        yield replace(config.server, urls=(embedded.url,))
    finally:
        with trio.CancelScope(shield=True):
            await in_thread_or_here(embedded.leave)
