"""`natsfs link`: links that every client of the Object Store can follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from natsfs.cli.commands import Command, store_options
from natsfs.cli.connection import take
from natsfs.cli.objects import arrow, object_json
from natsfs.cli.output import print_json, printable
from natsfs.cli.stores import with_manager
from natsfs.cli.target import is_bare, named_object, target_of
from natsfs.errors import UsageError
from natsfs.store.base import ObjectStoreManager
from natsfs.store.model import ObjectInfo


@click.command(cls=Command)
@click.argument("target")
@click.argument("source")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@store_options
def link(target: str, source: str, as_json: bool, **options: Any) -> None:
    """Make SOURCE, which is BUCKET/NAME or a path in a mount, a link to TARGET.

    TARGET is an object of the same server, BUCKET/NAME or a path in a mount; or a BUCKET by itself,
    and then the link is one to all of it. A link that SOURCE is already is replaced, an object is
    not. In mounts links are symlinks.
    """
    embedded: Path | None = options["embedded"]
    connection = take(options)
    to, at = target_of(target, connection), target_of(source, connection)
    name = named_object(at)
    # A bare BUCKET is one of the server that the other word names.
    if is_bare(target):
        to = replace(to, server=at.server)
    elif is_bare(source):
        at = replace(at, server=to.server)
    if to.server.urls != at.server.urls:
        raise UsageError("a link and its target are in buckets of one server")

    async def work(manager: ObjectStoreManager) -> ObjectInfo:
        store = await manager.bind(at.bucket)
        other = await manager.bind(to.bucket)
        if not to.prefix:
            return await store.add_bucket_link(name, to.bucket)
        return await store.add_link(name, await other.get_info(to.prefix))

    made = with_manager(work, at.server, embedded)
    if as_json:
        print_json(object_json(made))
    else:
        click.echo(f"{printable(made.name)}{arrow(made)}")
