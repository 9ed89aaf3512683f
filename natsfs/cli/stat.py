"""`natsfs stat`: what NATS knows of one object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from natsfs.cli.commands import Command, store_options
from natsfs.cli.connection import take
from natsfs.cli.objects import link_target, object_json
from natsfs.cli.output import local_time, print_json, print_pairs
from natsfs.cli.quantities import shown_duration, shown_size
from natsfs.cli.stores import with_manager
from natsfs.cli.target import object_of, target_of
from natsfs.store.base import ObjectStoreManager
from natsfs.store.model import EVER, ObjectInfo


@click.command(cls=Command)
@click.argument("source", metavar="PATH|SOURCE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@store_options
def stat(source: str, as_json: bool, **options: Any) -> None:
    """Show what NATS knows of an object: BUCKET/NAME, or a file, link or directory in a mount.

    An object that was deleted is shown as well, for as long as the server remembers it.
    """
    embedded: Path | None = options["embedded"]
    target = target_of(source, take(options))

    async def work(manager: ObjectStoreManager) -> ObjectInfo:
        return await object_of(await manager.bind(target.bucket), target, show_deleted=True)

    info = with_manager(work, target.server, embedded)
    if as_json:
        more = {"subject": info.subject, "max_chunk_size": info.max_chunk_size, "ttl": info.ttl}
        print_json({**object_json(info), **more, "extra": dict(info.extra)})
    else:
        print_pairs(_pairs(info))


def _pairs(info: ObjectInfo) -> list[tuple[str, str]]:
    chunk = f" of {shown_size(info.max_chunk_size)}" if info.max_chunk_size > 0 else ""
    target = link_target(info)
    lines = [
        ("Name", info.name + (" (deleted)" if info.deleted else "")),
        ("Bucket", info.bucket),
        ("Size", f"{info.size} bytes, {shown_size(info.size)}"),
        ("Chunks", f"{info.chunks}{chunk}"),
        ("Nuid", info.nuid or "none"),
        ("Digest", info.digest or "none"),
        ("Revision", str(info.revision)),
        ("Changed", local_time(info.time_ns)),
        ("Subject", info.subject),
    ]
    if target is not None:
        lines.append(("Link to", target))
    if info.ttl:
        lines.append(
            ("Expires", "never" if info.ttl == EVER else f"{shown_duration(info.ttl)} later")
        )
    if info.description:
        lines.append(("Description", info.description))
    lines += [
        (f"Header {name}", value)
        for name, values in sorted(info.headers.items())
        for value in values
    ]
    return [*lines, *((f"Metadata {key}", text) for key, text in sorted(info.metadata.items()))]
