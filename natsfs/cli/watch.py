"""`natsfs watch`: what happens to the objects of a bucket, as it happens.

Concurrency: two tasks feed one `Changes`, each without an await in between.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import trio

from natsfs.cli.changes import Changes, ObjectChange
from natsfs.cli.commands import Command, store_options
from natsfs.cli.connection import take
from natsfs.cli.output import print_json_line, printable, rfc3339, say
from natsfs.cli.quantities import shown_size
from natsfs.cli.stores import with_manager
from natsfs.cli.target import Target, target_of
from natsfs.errors import MalformedMeta, NotFoundError
from natsfs.store.base import ObjectStore, ObjectStoreManager
from natsfs.store.model import Malformed, Removed, Restarted

#: Seconds that the first half of a rename waits for the second.  natsfs publishes both in one
#: batch, other clients purge the old name within a millisecond.
RENAME_PATIENCE = 0.3

#: What a shell says of a program that SIGPIPE ended; nobody reads more than that.
BROKEN_PIPE = 141


@click.command(cls=Command)
@click.argument("source")
@click.option("--initial", is_flag=True, help="First print what is there")
@click.option(
    "--count", type=click.IntRange(min=1), metavar="N", help="End after so many changes  [never]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line")
@store_options
def watch(source: str, initial: bool, count: int | None, as_json: bool, **options: Any) -> int:
    """Print changes of SOURCE as they happen: a bucket, BUCKET/PREFIX, or a directory in a mount.

    What happens is one of created, changed (other bytes), metadata, link, renamed, deleted, and
    gone (purged or expired); with --initial first: exists.
    """
    embedded: Path | None = options["embedded"]
    target = target_of(source, take(options))
    printer = _Printer(target, initial=initial, left=count, as_json=as_json)

    async def follow(manager: ObjectStoreManager) -> None:
        await _follow(await manager.bind(target.bucket), printer)

    with_manager(follow, target.server, embedded)
    return BROKEN_PIPE if printer.unheard else 0


@dataclass
class _Printer:
    """Prints what concerns *target*.  *left* is how many changes are still to be printed, None for
    no end; *over* says that there is nothing more to print, *unheard* that nobody reads it."""

    target: Target
    initial: bool
    left: int | None
    as_json: bool
    over: trio.Event = field(default_factory=trio.Event)
    unheard: bool = False

    def show(self, changes: list[ObjectChange]) -> None:
        """Print *changes*, as far as they are wanted."""
        for change in changes:
            first = change.event == "exists"
            names = (change.info.name, change.old_name or change.info.name)
            if self.over.is_set() or not any(map(self.target.covers, names)):
                continue
            if not first or self.initial:
                self._print(change)
            if not first and self.left is not None:
                self.left -= 1
                if not self.left:
                    self.over.set()

    def _print(self, change: ObjectChange) -> None:
        try:
            if self.as_json:
                print_json_line(_as_json(change))
            else:
                click.echo(_as_text(change))
        except BrokenPipeError:
            # What is left in the buffer would be tried again, and complained about, at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self.unheard = True
            self.over.set()


async def _follow(store: ObjectStore, printer: _Printer) -> None:
    changes = Changes()
    async with trio.open_nursery() as nursery:
        await nursery.start(_follow_removals, store, changes, printer)
        nursery.start_soon(_follow_metas, store, changes, printer, nursery)
        await printer.over.wait()
        nursery.cancel_scope.cancel()


async def _follow_metas(
    store: ObjectStore, changes: Changes, printer: _Printer, nursery: trio.Nursery
) -> None:
    begun = False
    async with store.watch() as events:
        async for event in events:
            if isinstance(event, Restarted):
                if begun:
                    say("the connection was lost; what changed meanwhile follows")
                begun = True
            if isinstance(event, Malformed):
                say(f"{printable(event.subject)}: {printable(event.reason)}")
            halves = set(changes.suspects)
            printer.show(changes.feed(event))
            for subject in set(changes.suspects) - halves:
                nursery.start_soon(_complete, store, changes, printer, subject)


async def _follow_removals(
    store: ObjectStore,
    changes: Changes,
    printer: _Printer,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Purges and single deletions, as far as the server tells of them."""
    async with store.advisories() as advisories:
        task_status.started()
        async for advisory in advisories:
            if isinstance(advisory, Removed):
                subject = advisory.subject or changes.subject_at(advisory.revision)
                subjects = [subject] if subject or advisory.revision else changes.subjects()
                for each in filter(None, subjects):
                    if not await _is_there(store, each):
                        printer.show(changes.gone(each))


async def _complete(store: ObjectStore, changes: Changes, printer: _Printer, subject: str) -> None:
    """Wait for the other half of a rename, and ask for it when it does not come."""
    await trio.sleep(RENAME_PATIENCE)
    if subject in changes.suspects:
        there = await _is_there(store, subject)
        printer.show(changes.remains(subject) if there else changes.gone(subject))


async def _is_there(store: ObjectStore, subject: str) -> bool:
    """Whether there is a message on *subject*, whatever it says: the watch tells that."""
    try:
        await store.get_info_at(subject)
    except NotFoundError:
        return False
    except MalformedMeta:
        return True
    return True


def _as_text(change: ObjectChange) -> str:
    info = change.info
    name = printable(info.name)
    if change.old_name:
        name = f"{printable(change.old_name)} -> {name}"
    elif info.link is not None:
        name = f"{name} -> {printable('/'.join(filter(None, (info.link.bucket, info.link.name))))}"
    time = datetime.fromtimestamp(info.time_ns / 1e9).strftime("%Y-%m-%d %H:%M:%S")
    size = "-" if info.deleted else shown_size(info.size)
    return f"{time} {change.event:<8} {info.revision:>8} {size:>9} {info.nuid:<22} {name}"


def _as_json(change: ObjectChange) -> dict[str, Any]:
    info = change.info
    line: dict[str, Any] = {
        "event": change.event,
        "name": info.name,
        "size": info.size,
        "revision": info.revision,
        "time": rfc3339(info.time_ns),
        "nuid": info.nuid,
    }
    if change.old_name:
        line["old_name"] = change.old_name
    if info.link is not None:
        line["link"] = {"bucket": info.link.bucket, "name": info.link.name}
    return line
