"""`natsfs cache`: what mounts keep on local disk."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from natsfs.cli.commands import Command, Group, store_options
from natsfs.cli.connection import take
from natsfs.cli.output import print_json
from natsfs.cli.places import cache_directory
from natsfs.cli.progress import shown
from natsfs.cli.quantities import shown_size
from natsfs.cli.stores import with_manager
from natsfs.cli.tables import print_table
from natsfs.cli.target import target_of
from natsfs.errors import UsageError
from natsfs.store.base import ObjectStoreManager
from natsfs.upkeep.disk import Contents, LocalDisk
from natsfs.upkeep.listing import list_bucket

_SOURCE = click.argument("source", metavar="[SOURCE]", required=False)
_DIRECTORY = click.option(
    "--cache-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The --cache-dir of the mounts  [XDG cache directory]",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON")


@click.group(cls=Group)
def cache() -> None:
    """Show or clear what mounts of this user keep on local disk.

    Of all buckets, or of the bucket SOURCE: files are named by hashes of versions, so the server is
    asked then which versions that bucket has. What was replaced since counts for no bucket, and is
    evicted when the cache is full.
    """


@cache.command("show", cls=Command)
@_SOURCE
@_DIRECTORY
@_JSON
@store_options
def show(source: str | None, cache_dir: Path | None, as_json: bool, **options: Any) -> None:
    """Show the size of what is cached, and the journals, by the mounts that they are of."""
    directory = _directory(cache_dir)
    contents = _disk(directory, source, options).contents()
    if as_json:
        free = shutil.disk_usage(_existing(directory)).free
        print_json({"directory": str(directory), "free": free, **asdict(contents)})
    else:
        click.echo(f"{directory}:")
        _print(contents)


@cache.command("clear", cls=Command)
@_SOURCE
@_DIRECTORY
@_JSON
@store_options
def clear(source: str | None, cache_dir: Path | None, as_json: bool, **options: Any) -> None:
    """Remove cached blocks and trees. Mounts may be running: they fetch again what they need.

    Journals are never touched; `natsfs recover` saves what is in those of mounts that died.
    """
    directory = _directory(cache_dir)
    removed = _disk(directory, source, options).clear()
    if as_json:
        print_json(
            {
                "directory": str(directory),
                "blocks": asdict(removed.blocks),
                "snapshots": asdict(removed.snapshots),
            }
        )
    else:
        freed = shown_size(removed.blocks.bytes + removed.snapshots.bytes)
        click.echo(f"{removed.blocks.files + removed.snapshots.files} files removed, {freed}.")


def _directory(given: Path | None) -> Path:
    return (given or cache_directory()).expanduser().absolute()


def _existing(directory: Path) -> Path:
    """*directory*, or what there is of the way to it."""
    return next(path for path in (directory, *directory.parents) if path.exists())


def _disk(directory: Path, source: str | None, options: dict[str, Any]) -> LocalDisk:
    embedded: Path | None = options["embedded"]
    if source is None:
        return LocalDisk(directory)
    target = target_of(source, take(options))
    if target.prefix:
        raise UsageError("the cache is shown and cleared by whole buckets: leave out the path")

    async def work(manager: ObjectStoreManager) -> tuple[str, set[str]]:
        store = await manager.bind(target.bucket)
        found = (await list_bucket(store, progress)).found.values()
        return (await store.status()).identity, {info.nuid for info in found}

    with shown("listing") as progress:
        identity, nuids = with_manager(work, target.server, embedded)
    return LocalDisk(directory, identity, nuids)


def _print(contents: Contents) -> None:
    rows = [
        ("blocks", str(contents.blocks.files), shown_size(contents.blocks.bytes), ""),
        ("trees", str(contents.snapshots.files), shown_size(contents.snapshots.bytes), ""),
    ]
    for run in contents.journals:
        whose = f"{run.source or run.bucket or '?'} on {run.mount or '?'}"
        state = f"process {run.pid}" if run.alive else "died; see `natsfs recover`"
        rows.append(
            ("journal", str(run.kept.files), shown_size(run.kept.bytes), f"{whose}, {state}")
        )
    print_table(("Kind", "Files>", "Size>", "Of"), rows)
