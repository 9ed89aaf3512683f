"""`natsfs top`: what one mount is doing, as it happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click

from natsfs.cli.activity import Rates, rates_between
from natsfs.cli.commands import Command
from natsfs.cli.mountpoint import complete_mount, located, natsfs_mounts
from natsfs.cli.output import print_json, print_json_line
from natsfs.cli.places import control_directory
from natsfs.cli.quantities import Duration
from natsfs.control import Activity, Client, socket_path
from natsfs.errors import UsageError

#: Seconds between two looks of `--once` and of the live view.
INTERVAL = 1.0


@click.command(cls=Command)
@click.argument(
    "directory",
    required=False,
    type=click.Path(path_type=Path),
    shell_complete=complete_mount,
)
@click.option("--once", is_flag=True, help="Show one interval, and end")
@click.option(
    "--interval",
    type=Duration(),
    default=INTERVAL,
    metavar="DURATION",
    help="Time between two looks  [1s]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object for each interval")
def top(directory: Path | None, once: bool, interval: float, as_json: bool) -> None:
    """Show what the mount on DIRECTORY is doing: requests and how long they take, bytes between
    programs, mount and server, the use of the cache, and files on their way to the server.

    DIRECTORY may be left out where there is one mount. Ctrl-C ends it.
    """
    if interval < 0.1:
        raise UsageError("--interval must be 100ms or more")
    if not (once or as_json or sys.stdout.isatty()):
        raise UsageError("the live view needs a terminal; say --once or --json")
    with _client(_chosen(directory)) as client, suppress(KeyboardInterrupt):
        looks = _looks(client, interval)
        if as_json:
            _print(looks, once)
        else:
            # Only here: scripts do without what this brings in.
            from natsfs.cli.screen import show  # noqa: PLC0415

            show(looks, once=once)


def _chosen(directory: Path | None) -> Path:
    """The mount that is meant.  Errors: `UsageError`."""
    if directory is not None:
        return located(directory)
    found = [mount.directory for mount in natsfs_mounts()]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError("no natsfs mounts; `natsfs mount` makes one")
    names = ", ".join(map(str, found[:3])) + (", …" if len(found) > 3 else "")
    raise UsageError(f"there are {len(found)} mounts, name one: {names}")


def _client(directory: Path) -> Client:
    try:
        return Client(socket_path(control_directory(), directory))
    except OSError:
        raise UsageError(
            f"{directory} is no natsfs mount that answers; `natsfs status` lists those there are"
        ) from None


def _looks(client: Client, interval: float) -> Iterator[Rates]:
    """What has been done between two looks, for ever, or until the mount ends."""
    before: Activity = client.ask("activity")
    while True:
        time.sleep(interval)
        try:
            after: Activity = client.ask("activity")
        except ConnectionError:
            raise UsageError(f"the mount on {before['status']['directory']} has ended") from None
        yield rates_between(before, after)
        before = after


def _print(looks: Iterator[Rates], once: bool) -> None:
    for rates in looks:
        if once:
            print_json(rates.as_json())
            return
        print_json_line(rates.as_json())
