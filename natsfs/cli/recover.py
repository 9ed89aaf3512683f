"""`natsfs recover`: what mounts that died had not saved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import trio

from natsfs.cli.commands import Command, store_options
from natsfs.cli.connection import server_config, take
from natsfs.cli.mount import shown_source
from natsfs.cli.output import local_time, print_json, rfc3339, say
from natsfs.cli.places import cache_directory
from natsfs.cli.progress import bars
from natsfs.cli.quantities import shown_size
from natsfs.cli.source import parse_source
from natsfs.cli.tables import print_table
from natsfs.config import CacheConfig, MountConfig
from natsfs.data.salvage import Waiting, waiting
from natsfs.errors import UsageError

_WISHES = ("keep", "store", "discard")

#: The exit status when something is left that only its user can decide on, as that of fsck(8).
LEFT = 4


@click.command(cls=Command)
@click.argument("source", required=False)
@click.option(
    "--unfinished",
    type=click.Choice(_WISHES),
    default="keep",
    help="Files that were still being written, or cannot be stored under their name: keep them in "
    "the journal, store them as NAME.recovered-HOST-TIME, or discard them  [keep]",
)
@click.option(
    "--former",
    type=click.Choice(_WISHES),
    default="keep",
    help="Files that were written to an earlier bucket of this name, which was deleted: keep them "
    "in the journal, store them in this one, or discard them  [keep]",
)
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write these into files below DIR instead",
)
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The --cache-dir of the mounts  [XDG cache directory]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@store_options
def recover(
    source: str | None,
    unfinished: str,
    former: str,
    into: Path | None,
    cache_dir: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Save what programs wrote on mounts of the bucket SOURCE that died before the server had it.

    Without SOURCE, list all that waits on this host.  A new mount of the bucket saves it, too.  No
    version that another client stored since is replaced: what is saved then gets a name beside it.
    What was written to an earlier bucket of that name is left until you say what becomes of it.
    The exit status is 4 if something is left.
    """
    cache = (cache_dir or cache_directory()).expanduser().absolute()
    if source is None:
        if into is not None or (unfinished, former) != ("keep", "keep"):
            raise UsageError("name the bucket whose files are meant: natsfs recover SOURCE …")
        found = waiting(cache)
        _print_waiting(found, as_json)
        return LEFT if found else 0
    if into is not None and (unfinished, former) != ("keep", "keep"):
        raise UsageError(
            "--into says what becomes of all that is left; leave out --unfinished and --former"
        )
    return _recover(_config(source, cache, options), (unfinished, former), into, as_json)


def _config(source: str, cache: Path, options: dict[str, Any]) -> MountConfig:
    embedded: Path | None = options["embedded"]
    wanted = parse_source(source)
    server = server_config(take(options), os.environ, wanted.servers)
    return MountConfig(
        server=server,
        bucket=wanted.bucket,
        directory=Path("/"),
        cache=CacheConfig(cache),
        embedded=embedded,
        source=shown_source(source, server, embedded, wanted.bucket),
    )


def _recover(config: MountConfig, wishes: tuple[str, str], into: Path | None, as_json: bool) -> int:
    # Only here: what this brings in (libfuse, asyncio) is of no use to those who list.
    from natsfs.mount.recover import Wish, recover  # noqa: PLC0415

    directory = into.expanduser().absolute() if into is not None else None
    unfinished, former = map(Wish, wishes)
    with bars() as stages:
        told = stages.stage("listing"), stages.stage("storing", in_bytes=True)
        done = trio.run(recover, config, unfinished, former, directory, *told)
    if as_json:
        left = [
            {"name": one.name, "bytes": one.size, "time": rfc3339(one.time_ns), "why": one.trouble}
            for one in done.left
        ]
        print_json({"saved": done.saved, "left": left})
    else:
        click.echo(f"{done.saved} files are saved.")
        if done.left:
            rows = [
                (one.name, shown_size(one.size), local_time(one.time_ns), one.trouble)
                for one in done.left
            ]
            print_table(("Left", "Size>", "Written", "Why"), rows)
            say(
                "--into DIR, or --unfinished=store or --former=store, saves what is left, "
                "=discard drops it"
            )
    return LEFT if done.left else 0


def _print_waiting(found: list[Waiting], as_json: bool) -> None:
    if as_json:
        print_json(
            [
                {
                    "bucket": one.bucket,
                    "source": one.source,
                    "name": one.name,
                    "bytes": one.size,
                    "time": rfc3339(one.time_ns),
                    "finished": one.finished,
                    "why": one.trouble,
                    "journal": str(one.directory),
                }
                for one in found
            ]
        )
    elif not found:
        click.echo("nothing waits to be saved")
    else:
        print_table(
            ("Source", "Name", "Size>", "Written", "State"),
            [
                (
                    one.source,
                    one.name,
                    shown_size(one.size),
                    local_time(one.time_ns),
                    "will be saved" if one.finished else one.trouble,
                )
                for one in found
            ],
        )
