"""`natsfs ls`: the objects of a bucket, asked of the server and not of a mount."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from natsfs.cli.commands import Command, store_options
from natsfs.cli.connection import ConnectionOptions, server_config, server_of_mount, take
from natsfs.cli.mountpoint import located, mount_above
from natsfs.cli.output import local_time, print_json, printable, rfc3339, say
from natsfs.cli.places import control_directory
from natsfs.cli.quantities import shown_size
from natsfs.cli.source import check_bucket, parse_source
from natsfs.cli.stores import with_manager
from natsfs.config import ServerConfig, TreeConfig
from natsfs.control import ask, socket_path
from natsfs.errors import UsageError
from natsfs.filesystem.attributes import of_object, symlink_text
from natsfs.store.base import ObjectStoreManager
from natsfs.store.model import CaughtUp, Malformed, ObjectInfo, Restarted, Updated
from natsfs.tree.names import decode_component


@dataclass(frozen=True, slots=True)
class Place:
    """What to list and where."""

    bucket: str
    prefix: str
    server: ServerConfig


@dataclass(slots=True)
class Listing:
    """What a bucket holds, by meta subject."""

    found: dict[str, ObjectInfo] = field(default_factory=dict)
    malformed: dict[str, str] = field(default_factory=dict)


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
    place = _place(source, take(options))

    async def collect(manager: ObjectStoreManager) -> Listing:
        return await _collect(manager, place.bucket)

    listing = with_manager(collect, place.server, embedded)
    objects = _chosen(listing, place.prefix, deleted)
    for subject, reason in listing.malformed.items():
        say(f"left out {printable(subject)}: {printable(reason)}")
    if as_json:
        print_json([_as_json(info) for info in objects])
    else:
        _print(objects)


def _place(source: str, options: ConnectionOptions) -> Place:
    path = located(source)
    mount = mount_above(path) if "://" not in source else None
    if mount is not None:
        return _mounted_place(path, mount.directory, options)
    if source.startswith(("/", "./", "../", "~")) or source in (".", ".."):
        raise UsageError(f"{source} is in no natsfs mount; `natsfs status` lists those there are")
    wanted = parse_source(source, prefix_allowed=True)
    server = server_config(options, os.environ, wanted.servers)
    return Place(wanted.bucket, wanted.prefix, server)


def _mounted_place(path: Path, directory: Path, options: ConnectionOptions) -> Place:
    """The bucket behind a mount: its process tells the server, the caller brings the secrets."""
    try:
        status = ask(socket_path(control_directory(), directory), "status")
    except OSError as exc:
        raise UsageError(
            f"the mount on {directory} does not answer: {exc.strerror or exc}; it may have died or "
            "belong to another user"
        ) from None
    server = server_of_mount(options, os.environ, status["server"])
    names = [decode_component(os.fsencode(part)) for part in path.relative_to(directory).parts]
    if status["bucket"]:
        return Place(status["bucket"], "/".join(names), server)
    if not names:
        raise UsageError(
            f"{directory} shows all buckets; name a directory in it, or use `natsfs bucket list`"
        )
    return Place(check_bucket(names[0]), "/".join(names[1:]), server)


async def _collect(manager: ObjectStoreManager, bucket: str) -> Listing:
    store = await manager.bind(bucket)
    listing = Listing()
    async with store.watch() as events:
        async for event in events:
            match event:
                case Restarted():
                    listing = Listing()
                case Updated(info):
                    listing.malformed.pop(info.subject, None)
                    listing.found[info.subject] = info
                case Malformed(subject, _, reason):
                    listing.found.pop(subject, None)
                    listing.malformed[subject] = reason
                case CaughtUp():
                    break
    return listing


def _chosen(listing: Listing, prefix: str, deleted: bool) -> list[ObjectInfo]:
    below = prefix if prefix.endswith("/") or not prefix else f"{prefix}/"
    chosen = [
        info
        for info in listing.found.values()
        if (deleted or not info.deleted) and (info.name == prefix or info.name.startswith(below))
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
        printable(info.name) + _arrow(info),
    )


def _is_marker(info: ObjectInfo) -> bool:
    return info.name.endswith("/") and info.size == 0


def _arrow(info: ObjectInfo) -> str:
    """Where a link leads, by bucket and object; where a symlink points, by its text."""
    if info.link is not None:
        inside = info.link.bucket == info.bucket
        target = "/".join(filter(None, ("" if inside else info.link.bucket, info.link.name)))
        return f" -> {printable(target)}"
    text = symlink_text(info)
    return "" if text is None else f" -> {printable(os.fsdecode(text))}"


def _as_json(info: ObjectInfo) -> dict[str, Any]:
    link = info.link and {"bucket": info.link.bucket, "name": info.link.name}
    return {
        "name": info.name,
        "bucket": info.bucket,
        "size": info.size,
        "chunks": info.chunks,
        "nuid": info.nuid,
        "digest": info.digest,
        "deleted": info.deleted,
        "link": link,
        "description": info.description,
        "headers": {name: list(values) for name, values in info.headers.items()},
        "metadata": dict(info.metadata),
        "revision": info.revision,
        "time": rfc3339(info.time_ns),
    }
