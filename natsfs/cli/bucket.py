"""`natsfs bucket`: make, list, show, upgrade, seal and delete buckets."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import click

from natsfs.cli.commands import Command, Group, store_options
from natsfs.cli.connection import server_config, take
from natsfs.cli.output import (
    local_time,
    print_json,
    print_pairs,
    printable,
    rfc3339,
    say,
)
from natsfs.cli.progress import shown
from natsfs.cli.quantities import Duration, Size, shown_duration, shown_size
from natsfs.cli.source import Source, check_bucket, parse_source
from natsfs.cli.stores import with_manager
from natsfs.cli.tables import print_table
from natsfs.errors import UsageError
from natsfs.store.base import ObjectStoreManager
from natsfs.store.model import BucketConfig, BucketStatus, Placement, Upgrade

T = TypeVar("T")

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON")
_SURE = click.option("-f", "--force", "--yes", "sure", is_flag=True, help="Do not ask")


@click.group(cls=Group)
def bucket() -> None:
    """Make, list, show, upgrade, seal and delete buckets.

    A bucket is named as in `natsfs mount`: BUCKET, nats://HOST:PORT/BUCKET or tls://….
    """


@bucket.command(cls=Command)
@click.argument("source")
@click.option("--description", default="", metavar="TEXT", help="What it is for  [nothing]")
@click.option(
    "--ttl", type=Duration(), metavar="DURATION", help="Let objects expire after this  [never]"
)
@click.option(
    "--max-bytes", type=Size(), metavar="SIZE", default=-1, help="Bound of its size  [none]"
)
@click.option(
    "--storage",
    type=click.Choice(["file", "memory"]),
    default="file",
    help="Where the server keeps it  [file]",
)
@click.option(
    "--replicas",
    type=click.IntRange(1, 5),
    default=1,
    metavar="N",
    help="Copies in a cluster  [1]",
)
@click.option(
    "--cluster", default="", metavar="NAME", help="Place it in this cluster  [the server's]"
)
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="TAG",
    help="Place it on servers with this tag; repeatable",
)
@click.option("--compress", is_flag=True, help="Let the server compress")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Label it; repeatable")
@_JSON
@store_options
def create(source: str, as_json: bool, **options: Any) -> None:
    """Make the bucket SOURCE."""
    wanted = parse_source(source)
    config = _bucket_config(wanted.bucket, options)

    async def work(manager: ObjectStoreManager) -> BucketStatus:
        return await (await manager.create(config)).status()

    made = _run(work, wanted, options)
    for setting in _ignored(config, made):
        say(f"bucket {made.bucket} is made without {setting}: the server does not offer that")
    _print(made, as_json)


def _ignored(config: BucketConfig, made: BucketStatus) -> list[str]:
    """What an old server has left out without a word."""
    asked = {
        "compression": config.compression and not made.compression,
        "metadata": dict(config.metadata) != dict(made.metadata),
    }
    return [setting for setting, missing in asked.items() if missing]


@bucket.command(cls=Command)
@click.argument("source")
@_SURE
@store_options
def delete(source: str, sure: bool, **options: Any) -> None:
    """Delete the bucket SOURCE with all that is in it."""
    wanted = parse_source(source)

    async def look(manager: ObjectStoreManager) -> BucketStatus:
        return await (await manager.bind(wanted.bucket)).status()

    async def work(manager: ObjectStoreManager) -> None:
        await manager.delete(wanted.bucket)

    if not sure:
        _check_presence()
        found = _run(look, wanted, options)
        _confirm(f"Delete bucket {found.bucket} and the {shown_size(found.size)} in it?")
    _run(work, wanted, options)


@bucket.command("list", cls=Command)
@_JSON
@store_options
def list_(as_json: bool, **options: Any) -> None:
    """List the buckets that you may see."""

    async def work(manager: ObjectStoreManager) -> list[BucketStatus]:
        return await manager.list(progress)

    with shown("listing") as progress:
        found = _run(work, None, options)
    if as_json:
        print_json([_as_json(status) for status in found])
    elif not found:
        say("no buckets; `natsfs bucket create NAME` makes one")
    else:
        print_table(
            ("Bucket", "Size>", "Limit>", "Storage", "Replicas>", "Created", "Description"),
            [_row(status) for status in found],
        )


@bucket.command(cls=Command)
@click.argument("source")
@_JSON
@store_options
def info(source: str, as_json: bool, **options: Any) -> None:
    """Show the settings and the size of the bucket SOURCE."""
    wanted = parse_source(source)

    async def work(manager: ObjectStoreManager) -> BucketStatus:
        return await (await manager.bind(wanted.bucket)).status()

    _print(_run(work, wanted, options), as_json)


@bucket.command(cls=Command)
@click.argument("source")
@_SURE
@store_options
def seal(source: str, sure: bool, **options: Any) -> None:
    """Make the bucket SOURCE read-only for ever."""
    wanted = parse_source(source)

    async def work(manager: ObjectStoreManager) -> None:
        await (await manager.bind(wanted.bucket)).seal()

    if not sure:
        _check_presence()
        _confirm(f"Seal bucket {wanted.bucket}? It can never be written again.")
    _run(work, wanted, options)


#: What people call the settings that `upgrade` switches on.
_FEATURES = {
    "allow_atomic": "atomic batches",
    "allow_msg_ttl": "message TTLs",
    "allow_direct": "direct get",
    "allow_rollup_hdrs": "rollup headers",
}


@bucket.command(cls=Command)
@click.argument("source")
@click.option("--dry-run", is_flag=True, help="Only say what would be switched on")
@_SURE
@store_options
def upgrade(source: str, dry_run: bool, sure: bool, **options: Any) -> int:
    """Switch on what the bucket SOURCE, made by another client, lacks for natsfs.

    With atomic batches and message TTLs renames are all-or-nothing and deleted names are forgotten
    by the server after a day.  Nothing else about the bucket changes, and other clients see no
    difference.
    """
    wanted = parse_source(source)

    async def work(manager: ObjectStoreManager, *, dry_run: bool = False) -> Upgrade:
        return await (await manager.bind(wanted.bucket)).upgrade(dry_run=dry_run)

    planned = _run(partial(work, dry_run=True), wanted, options)
    if not planned.changed:
        _print_upgrade(planned, "")
        offered = "all that its server offers" if planned.refused else "all of it"
        click.echo(f"bucket {wanted.bucket} has {offered}")
        return 1 if planned.refused and not dry_run else 0
    if dry_run:
        _print_upgrade(planned, "would be switched on")
        return 0
    if not sure:
        _check_presence()
        names = ", ".join(_FEATURES[feature] for feature in planned.changed)
        _confirm(f"Switch on {names} for bucket {wanted.bucket}? It cannot all be switched off.")
    done = _run(work, wanted, options)
    _print_upgrade(done, "switched on")
    return 1 if done.refused else 0


def _print_upgrade(result: Upgrade, done: str) -> None:
    for feature in result.changed:
        click.echo(f"{_FEATURES[feature]}: {done}")
    for feature, reason in result.refused.items():
        say(f"{_FEATURES[feature]}: not switched on: {printable(reason)}")


def _run(
    work: Callable[[ObjectStoreManager], Awaitable[T]],
    wanted: Source | None,
    options: dict[str, Any],
) -> T:
    """The result of *work* on the server that *wanted*, options and environment name."""
    connection = take(dict(options))
    if wanted is None:
        return with_manager(work, server_config(connection, os.environ), options["embedded"])
    server = server_config(connection, os.environ, wanted.servers)
    return with_manager(work, server, options["embedded"])


def _bucket_config(name: str, options: dict[str, Any]) -> BucketConfig:
    placed = options["cluster"] or options["tags"]
    return BucketConfig(
        bucket=check_bucket(name),
        description=options["description"],
        ttl=options["ttl"],
        max_bytes=options["max_bytes"],
        storage=options["storage"],
        replicas=options["replicas"],
        placement=Placement(options["cluster"], tuple(options["tags"])) if placed else None,
        compression=options["compress"],
        metadata=dict(_pair(text) for text in options["metadata"]),
    )


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"--metadata {text!r} is no KEY=VALUE")
    return key, value


def _check_presence() -> None:
    """Make sure that there is somebody to ask.  Errors: `UsageError`."""
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to be asked; say --force if you are sure")


def _confirm(question: str) -> None:
    """Go on if the user says yes.  Errors: `click.Abort`."""
    click.confirm(question, abort=True, err=True)


def _print(status: BucketStatus, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(status))
    else:
        print_pairs(_pairs(status))


def _row(status: BucketStatus) -> tuple[str, ...]:
    return (
        status.bucket + (" (sealed)" if status.sealed else ""),
        shown_size(status.size),
        shown_size(status.max_bytes),
        status.storage,
        str(status.replicas),
        local_time(status.created_ns),
        status.description,
    )


def _pairs(status: BucketStatus) -> list[tuple[str, str]]:
    return [
        ("Bucket", status.bucket),
        ("Description", status.description),
        ("Created", local_time(status.created_ns)),
        ("Size", f"{shown_size(status.size)} in {status.messages} messages"),
        ("Limit", shown_size(status.max_bytes)),
        ("Objects expire", shown_duration(status.ttl)),
        ("Storage", status.storage + (", compressed" if status.compression else "")),
        ("Replicas", str(status.replicas)),
        ("Sealed", "yes" if status.sealed else "no"),
        ("Mirror of", status.mirror or "nothing"),
        ("Atomic batches", "yes" if status.allow_atomic else "no"),
        ("Message TTLs", "yes" if status.allow_msg_ttl else "no"),
        *((f"Metadata {key}", value) for key, value in sorted(status.metadata.items())),
    ]


def _as_json(status: BucketStatus) -> dict[str, Any]:
    return {
        "bucket": status.bucket,
        "stream": status.stream,
        "description": status.description,
        "created": rfc3339(status.created_ns),
        "size": status.size,
        "messages": status.messages,
        "max_bytes": status.max_bytes,
        "ttl": status.ttl,
        "storage": status.storage,
        "compression": status.compression,
        "replicas": status.replicas,
        "sealed": status.sealed,
        "mirror": status.mirror,
        "allow_atomic": status.allow_atomic,
        "allow_msg_ttl": status.allow_msg_ttl,
        "metadata": dict(status.metadata),
    }
