"""`natsfs serve`: the embedded server on its own, for as long as the command runs."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from pathlib import Path

import click

from natsfs.cli.commands import Command
from natsfs.cli.output import print_json
from natsfs.cli.places import server_directory
from natsfs.daemon import interrupt_on_sigterm
from natsfs.errors import UsageError
from natsfs.server import EmbeddedServer


@click.command(cls=Command)
@click.argument("store_dir", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="Listen there, on 127.0.0.1  [any that is free]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
def serve(store_dir: Path | None, port: int | None, as_json: bool) -> None:
    """Run the private nats-server of --embedded in the foreground, and print its URL when it can be
    used.

    STORE_DIR is where it keeps everything. SIGTERM and Ctrl-C end the command, and the server with
    it, unless mounts with --embedded use that; those then keep it.
    """
    interrupt_on_sigterm()
    directory = (store_dir or server_directory()).expanduser().absolute()
    with suppress(KeyboardInterrupt), EmbeddedServer.join(directory, port or -1) as server:
        if port is not None and not server.url.endswith(f":{port}"):
            raise UsageError(f"a server of {directory} runs already, on {server.url}")
        if as_json:
            print_json({"url": server.url, "pid": server.pid, "directory": str(directory)})
        else:
            click.echo(server.url)
        _wait_for_the_end(server.pid)
        raise UsageError(f"nats-server has ended; {directory}/server.log may say why")


def _wait_for_the_end(pid: int) -> None:
    """Wait until the process *pid* has ended."""
    with suppress(ProcessLookupError):
        ended = os.pidfd_open(pid)
        try:
            select.select([ended], [], [])
        finally:
            os.close(ended)
