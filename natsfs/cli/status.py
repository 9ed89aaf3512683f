"""`natsfs status`: the mounts of this host, as their processes describe them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from natsfs.cli.commands import Command
from natsfs.cli.mountpoint import complete_mount, located, natsfs_mounts
from natsfs.cli.output import print_json, print_pairs, printable, say
from natsfs.cli.places import cache_directory, control_directory
from natsfs.cli.quantities import shown_duration, shown_size
from natsfs.cli.tables import fits, print_table
from natsfs.control import Answer, MountStatus, list_mounts, socket_path
from natsfs.data.salvage import waiting
from natsfs.errors import CacheError, UsageError

#: Those after Pending are files in the journal, bytes of the cache, requests that failed.  Context
#: is there when some mount has one.
COLUMNS = (
    *("Directory", "Source", "Context", "Pid>", "Uptime>", "Connection"),
    *("Objects>", "Pending>", "Journal>", "Cache>", "Errors>"),
)

#: How many malformed metas a table names for each mount; `--json` has them all.
NAMED_MALFORMED = 20


@click.command(cls=Command)
@click.argument("directories", metavar="[DIRECTORY]...", nargs=-1, shell_complete=complete_mount)
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def status(directories: tuple[str, ...], as_json: bool) -> None:
    """Show all mounts of this host, or those on DIRECTORY.

    A mount of another user, or one whose process has died, is listed without details.
    """
    found = mounts_of_host()
    if directories:
        found = [_named(directory, found) for directory in directories]
    if as_json:
        print_json(found)
        return
    if not found:
        click.echo("no natsfs mounts")
    else:
        _print_mounts(found)
        for mount in found:
            _print_malformed(mount)
    if not directories:
        _print_waiting()


def _print_mounts(found: list[dict[str, Any]]) -> None:
    """A table where the terminal is wide enough, else some lines for each mount."""
    rows = [_row(mount) for mount in found]
    shown = [
        number
        for number, title in enumerate(COLUMNS)
        if title != "Context" or any(row[number] for row in rows)
    ]
    columns = [COLUMNS[number] for number in shown]
    cells = [[row[number] for number in shown] for row in rows]
    if fits(columns, cells):
        print_table(columns, cells)
        return
    for number, mount in enumerate(found):
        if number:
            click.echo()
        click.echo(printable(mount["directory"]))
        print_pairs(_facts(mount), indent=2)


def _facts(mount: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Source", mount["source"]
    if context := _context(mount):
        yield "Context", context
    if "pid" not in mount:
        yield "State", _connection(mount)
        return
    yield "State", f"{_connection(mount)}, up {_uptime(mount)}, process {mount['pid']}"
    yield "Objects", f"{mount['objects']}, {shown_size(mount['cache']['used'])} in the cache"
    yield "Pending", f"{shown_size(mount['pending'])}, {_left(mount)} files in the journal"
    yield "Errors", str(mount["errors"])


def _print_waiting() -> None:
    """What mounts that died have not saved."""
    try:
        found = waiting(cache_directory())
    except CacheError as exc:
        say(str(exc))
        return
    if found:
        size = shown_size(sum(one.size for one in found))
        click.echo(f"\nMounts that died left {len(found)} files, {size}: see `natsfs recover`.")


def _named(directory: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    wanted = str(located(directory))
    for mount in found:
        if mount["directory"] == wanted:
            return mount
    raise UsageError(f"{directory} is no natsfs mount; `natsfs status` lists those there are")


def mounts_of_host() -> list[dict[str, Any]]:
    """What every mount says of itself, and what the kernel says of those that say nothing.

    A mount that has no answer has a *connection* that tells why.
    """
    directory = control_directory()
    answers = {answer.path: answer for answer in list_mounts(directory)}
    found = []
    for mount in natsfs_mounts():
        answer = answers.pop(socket_path(directory, mount.directory), None)
        found.append(_known(mount.source, mount.directory, answer))
    # What is left serves a mount in another mount namespace, or one that is about to start or end.
    found += [dict(answer.status) for answer in answers.values() if answer.status]
    return sorted(found, key=lambda mount: str(mount["directory"]))


def _known(source: str, directory: Path, answer: Answer | None) -> dict[str, Any]:
    if answer is not None and answer.status is not None:
        return dict(answer.status)
    silent: MountStatus = {
        "source": source,
        "directory": str(directory),
        "connection": answer.trouble if answer else "no answer: dead, or of another user",
    }
    return dict(silent)


def _row(mount: dict[str, Any]) -> tuple[str, ...]:
    silent = "pid" not in mount
    return (
        mount["directory"],
        mount["source"],
        _context(mount),
        "-" if silent else str(mount["pid"]),
        "-" if silent else _uptime(mount),
        _connection(mount),
        "-" if silent else str(mount["objects"]),
        "-" if silent else shown_size(mount["pending"]),
        "-" if silent else _left(mount),
        "-" if silent else shown_size(mount["cache"]["used"]),
        "-" if silent else str(mount["errors"]),
    )


def _context(mount: dict[str, Any]) -> str:
    """The context of the nats command that the mount was made by, if one was."""
    name: str = mount.get("server", {}).get("context", "")
    return name


def _uptime(mount: dict[str, Any]) -> str:
    return shown_duration(max(1.0, mount["uptime"]))


def _connection(mount: dict[str, Any]) -> str:
    return str(mount["connection"]) + (", read-only" if mount.get("read_only") else "")


def _left(mount: dict[str, Any]) -> str:
    """The files of this mount in its journal, and those that dead mounts have left there."""
    left = mount["left"]["files"]
    return f"{mount['journal']}+{left}" if left else str(mount["journal"])


def _print_malformed(mount: dict[str, Any]) -> None:
    entries = mount.get("malformed", [])
    if not entries:
        return
    click.echo(f"\n{mount['directory']} does not show {len(entries)} malformed objects:")
    for entry in entries[:NAMED_MALFORMED]:
        click.echo(f"  {printable(entry['name'])}: {printable(entry['reason'])}")
    if len(entries) > NAMED_MALFORMED:
        click.echo(f"  and {len(entries) - NAMED_MALFORMED} more; --json has them all")
