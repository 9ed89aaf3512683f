"""`natsfs du`: how much lies in a bucket or below a directory, without reading any of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from natsfs.cli.commands import Command, store_options
from natsfs.cli.connection import take
from natsfs.cli.output import print_json, printable, say
from natsfs.cli.quantities import shown_size
from natsfs.cli.stores import listing_of
from natsfs.cli.tables import print_table
from natsfs.cli.target import target_of
from natsfs.errors import NotFoundError
from natsfs.upkeep.usage import Usage, usage_by_directory


@click.command(cls=Command)
@click.argument("source")
@click.option("-d", "--max-depth", type=click.IntRange(0), metavar="N", help="Show N levels  [all]")
@click.option("-s", "--summarize", is_flag=True, help="Show the total alone, as --max-depth 0")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@store_options
def du(source: str, max_depth: int | None, summarize: bool, as_json: bool, **options: Any) -> None:
    """Sum up the objects of SOURCE by directory: a bucket, BUCKET/PREFIX, or a directory in a
    mount.

    The server is asked for what it knows of the objects, and none is read. What the bucket takes up
    on the server's disk, replaced versions included, is in `natsfs bucket info`.
    """
    embedded: Path | None = options["embedded"]
    target = target_of(source, take(options))
    listing = listing_of(target, embedded)
    if listing.malformed:
        say(f"left out {len(listing.malformed)} objects that cannot be understood; see `natsfs ls`")
    chosen = [info for info in listing.found.values() if target.covers(info.name)]
    top = target.prefix.rstrip("/")
    if top and not any(not info.deleted for info in chosen):
        raise NotFoundError(f"bucket {target.bucket!r} has nothing below {top!r}")
    found = usage_by_directory(chosen, top, 0 if summarize else max_depth)
    if as_json:
        print_json(_as_json(target.bucket, top, found))
    else:
        _print(f"{target.bucket}/{top}".rstrip("/") + "/", found)


def _print(top: str, found: dict[str, Usage]) -> None:
    print_table(
        ("Size>", "Objects>", "Chunks>", "Directory"),
        [
            (
                shown_size(usage.bytes),
                str(usage.objects),
                str(usage.chunks),
                printable(f"{top}{path}"),
            )
            for path, usage in found.items()
        ],
    )


def _as_json(bucket: str, top: str, found: dict[str, Usage]) -> dict[str, Any]:
    above = f"{top}/" if top else ""
    directories = [{"path": f"{above}{path}", **asdict(usage)} for path, usage in found.items()]
    return {"bucket": bucket, "total": asdict(found[""]), "directories": directories}
