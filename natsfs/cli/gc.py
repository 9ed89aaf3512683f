"""`natsfs gc`: free what a bucket keeps for nobody."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from natsfs.cli.commands import Command, store_options
from natsfs.cli.connection import take
from natsfs.cli.output import print_json, printable, rfc3339, say
from natsfs.cli.places import cache_directory
from natsfs.cli.progress import bars
from natsfs.cli.quantities import Duration, shown_duration, shown_size
from natsfs.cli.stores import with_manager
from natsfs.cli.tables import print_table
from natsfs.cli.target import target_of
from natsfs.data.salvage import uploads
from natsfs.errors import UsageError
from natsfs.store.base import ObjectStoreManager
from natsfs.upkeep.garbage import CHUNK_AGE, TOMBSTONE_AGE, Ages, Collector, Garbage, Stages

#: Metas that a message names: more would not help to find the rest.
NAMED = 3


@click.command(cls=Command)
@click.argument("source")
@click.option("--delete", is_flag=True, help="Free it; without, only say what there is")
@click.option(
    "--min-age",
    type=Duration(),
    default=CHUNK_AGE,
    metavar="DURATION",
    help="Age from which bytes without an object are nobody's; longer than any program keeps a "
    f"file open between two writes  [{shown_duration(CHUNK_AGE)}]",
)
@click.option(
    "--tombstones",
    type=Duration(),
    default=TOMBSTONE_AGE,
    metavar="DURATION",
    help=f"Age from which records of deleted objects go  [{shown_duration(TOMBSTONE_AGE)}]",
)
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path),
    help="Where mounts of this host keep their journals  [that of mounts]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@store_options
def gc(
    source: str,
    delete: bool,
    min_age: float,
    tombstones: float,
    cache_dir: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Find in the bucket SOURCE, and with --delete free: chunks that belong to no object, because
    a writer died before it was done; names that a dead mount had reserved; records of objects that
    were deleted long ago.

    What files in the journals of this host and user need is left alone, however old it is.  Of
    other hosts nothing is known but the age of what they sent.
    """
    embedded: Path | None = options["embedded"]
    target = target_of(source, take(options))
    if target.prefix:
        raise UsageError("chunks have no names, so gc works on whole buckets: leave out the path")
    cache = (cache_dir or cache_directory()).expanduser().absolute()
    ages = Ages(chunks=min_age, tombstones=tombstones)

    with bars() as stages:
        told = Stages(*map(stages.stage, ("counting", "listing", "looking", "freeing")))

        async def collect(manager: ObjectStoreManager) -> Garbage:
            store = await manager.bind(target.bucket)
            journaled = partial(uploads, cache)
            return await Collector(store, ages, journaled, told).run(remove=delete)

        garbage = with_manager(collect, target.server, embedded)
    if garbage.unreadable:
        say(_blocked(garbage))
    if as_json:
        print_json(_as_json(garbage, delete))
    else:
        _print(garbage, delete)


def _blocked(garbage: Garbage) -> str:
    names = ", ".join(map(printable, garbage.unreadable[:NAMED]))
    more = len(garbage.unreadable) - NAMED
    return (
        f"{garbage.unowned} versions seem to belong to no object, and are left alone because of "
        f"objects that cannot be understood: {names}{f' and {more} more' if more > 0 else ''}; "
        "mend or delete those first"
    )


def _print(garbage: Garbage, deleted: bool) -> None:
    print_table(
        ("Kind", "Number>", "Size>"),
        [
            ("chunks without an object", str(len(garbage.chunks)), shown_size(garbage.size)),
            ("reservations", str(len(garbage.claims)), ""),
            ("records of deleted objects", str(len(garbage.tombstones)), ""),
        ],
    )
    if garbage.young:
        click.echo(f"{garbage.young} versions without an object are too young to judge.")
    if garbage.waiting:
        click.echo(
            f"{garbage.waiting} versions are left alone: files in journals of this host need them "
            "(`natsfs recover`)."
        )
    if deleted:
        click.echo(f"Freed {shown_size(garbage.size)}.")
    elif garbage.chunks or garbage.claims or garbage.tombstones:
        click.echo("Nothing was changed; --delete frees it.")


def _as_json(garbage: Garbage, deleted: bool) -> dict[str, Any]:
    return {
        "deleted": deleted,
        "bytes": garbage.size,
        "chunks": [
            {
                "nuid": chunks.nuid,
                "messages": chunks.count,
                "bytes": chunks.size,
                "time": rfc3339(chunks.time_ns),
            }
            for chunks in garbage.chunks
        ],
        "reservations": [info.name for info in garbage.claims],
        "tombstones": [info.name for info in garbage.tombstones],
        "young": garbage.young,
        "waiting": garbage.waiting,
        "unowned": garbage.unowned,
        "unreadable": garbage.unreadable,
    }
