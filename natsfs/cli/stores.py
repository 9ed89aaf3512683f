"""A connection for the length of one command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import trio

from natsfs.cli.progress import shown
from natsfs.cli.target import Target
from natsfs.config import ServerConfig
from natsfs.server import EmbeddedServer
from natsfs.store.base import ObjectStoreManager
from natsfs.store.jetstream import JetStreamManager
from natsfs.store.link import open_links
from natsfs.store.session import Session, open_session
from natsfs.upkeep.listing import Listing, list_bucket

T = TypeVar("T")


def with_manager(
    work: Callable[[ObjectStoreManager], Awaitable[T]],
    server: ServerConfig,
    embedded: Path | None = None,
) -> T:
    """The result of *work* with the buckets of *server*, or of the *embedded* one.

    Errors: those of *work*, perhaps in an exception group; `ConnectFailed`; `MountFailed` (the
    embedded server does not start).
    """
    return with_session(lambda _, manager: work(manager), server, embedded)


def listing_of(target: Target, embedded: Path | None) -> Listing:
    """All that the bucket of *target* says of its objects; a terminal shows how far that is.

    Errors: as `with_manager`, and those of `list_bucket`.
    """

    async def collect(manager: ObjectStoreManager) -> Listing:
        return await list_bucket(await manager.bind(target.bucket), progress)

    with shown("listing") as progress:
        return with_manager(collect, target.server, embedded)


def with_session(
    work: Callable[[Session, ObjectStoreManager], Awaitable[T]],
    server: ServerConfig,
    embedded: Path | None = None,
) -> T:
    """As `with_manager`, and *work* gets the connection as well."""

    async def connected() -> T:
        async with open_session(server) as session, open_links(session) as links:
            return await work(session, JetStreamManager(links))

    with ExitStack() as stack:
        if embedded is not None:
            joined = stack.enter_context(EmbeddedServer.join(embedded))
            server = replace(server, urls=(joined.url,))
        return trio.run(connected)
