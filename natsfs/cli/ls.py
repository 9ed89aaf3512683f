"""`natsfs ls`: the objects of a bucket, asked of the server and not of a mount."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import click

from natsfs.cli.commands import Command, store_options
from natsfs.cli.connection import take
from natsfs.cli.objects import arrow, object_json
from natsfs.cli.output import local_time, print_json, printable, say
from natsfs.cli.quantities import shown_size
from natsfs.cli.stores import listing_of
from natsfs.cli.target import Target, target_of
from natsfs.config import TreeConfig
from natsfs.errors import NotFoundError
from natsfs.filesystem.attributes import of_object
from natsfs.store.model import ObjectInfo
from natsfs.upkeep.listing import Listing


@click.command(cls=Command)
@click.argument("source")
@click.option("--deleted", is_flag=True, help="List deleted objects, too")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@store_options
def ls(source: str, deleted: bool, as_json: bool, **options: Any) -> None:
    """List the objects of SOURCE: a bucket, BUCKET/PREFIX, or a directory in a mount.

    A PREFIX stands for the object of that name and everything below it.
    """
    embedded: Path | None = options["embedded"]
    target = target_of(source, take(options))
    listing = listing_of(target, embedded)
    objects = _chosen(listing, target, deleted)
    if target.prefix and not objects:
        raise NotFoundError(f"bucket {target.bucket!r} has nothing at or below {target.prefix!r}")
    for subject, reason in listing.malformed.items():
        say(f"left out {printable(subject)}: {printable(reason)}")
    if as_json:
        print_json([object_json(info) for info in objects])
    else:
        _print(objects)


def _chosen(listing: Listing, target: Target, deleted: bool) -> list[ObjectInfo]:
    chosen = [
        info
        for info in listing.found.values()
        if (deleted or not info.deleted) and target.covers(info.name)
    ]
    return sorted(chosen, key=lambda info: info.name)


def _print(objects: list[ObjectInfo]) -> None:
    tree = TreeConfig()
    rows = [_row(info, tree) for info in objects]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for mode, owner, size, time, name in rows:
        click.echo(f"{mode:<{widths[0]}} {owner:<{widths[1]}} {size:>{widths[2]}} {time} {name}")


def _row(info: ObjectInfo, tree: TreeConfig) -> tuple[str, str, str, str, str]:
    found, _ = of_object(info, tree)
    mode = stat.S_IFDIR | stat.S_IMODE(found.mode) if _is_marker(info) else found.mode
    return (
        "deleted" if info.deleted else stat.filemode(mode),
        f"{found.uid}:{found.gid}",
        shown_size(info.size),
        local_time(found.mtime_ns),
        printable(info.name) + arrow(info),
    )


def _is_marker(info: ObjectInfo) -> bool:
    return info.name.endswith("/") and info.size == 0
