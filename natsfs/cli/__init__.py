"""The command `natsfs`: what stands between a shell and everything else.

Only this package reads argv and the environment, prints, and decides on exit statuses.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module

import click

from natsfs import __version__
from natsfs.cli.argv import mount_arguments, umount_arguments
from natsfs.cli.collection import pause_collection, resume_collection
from natsfs.cli.commands import Group, Session
from natsfs.cli.logs import Said
from natsfs.cli.outcome import USAGE, describe, redacted
from natsfs.cli.output import say
from natsfs.cli.places import complete
from natsfs.cli.secrecy import conceal_credentials, forbid_dumps, keep_files_private
from natsfs.errors import UsageError

#: Where each command is: loading one must not cost the time of all.
_COMMANDS = {
    "mount": "natsfs.cli.mount",
    "umount": "natsfs.cli.umount",
    "ls": "natsfs.cli.ls",
    "stat": "natsfs.cli.stat",
    "du": "natsfs.cli.du",
    "watch": "natsfs.cli.watch",
    "meta": "natsfs.cli.meta",
    "link": "natsfs.cli.link",
    "status": "natsfs.cli.status",
    "top": "natsfs.cli.top",
    "recover": "natsfs.cli.recover",
    "gc": "natsfs.cli.gc",
    "fsck": "natsfs.cli.fsck",
    "cache": "natsfs.cli.cache",
    "doctor": "natsfs.cli.doctor",
    "bucket": "natsfs.cli.bucket",
    "seal": "natsfs.cli.bucket",
    "serve": "natsfs.cli.serve",
    "completion": "natsfs.cli.completion",
    "install-helper": "natsfs.cli.install_helper",
    "help": "natsfs.cli.help",
}

#: What a command is called in its module, where its name means something else to Python.
_OTHERWISE = {"help": "help_", "install-helper": "install_helper"}


class _Commands(Group):
    """The commands, each loaded when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(
            import_module(_COMMANDS[cmd_name]), _OTHERWISE.get(cmd_name, cmd_name)
        )
        resume_collection()
        return command


@click.group(cls=_Commands, epilog="`natsfs help` lists pages on semantics, errors and more.")
@click.version_option(
    __version__, "-V", "--version", prog_name="natsfs", message="%(prog)s %(version)s"
)
def natsfs() -> None:
    """Mount NATS JetStream Object Store buckets as directories.

    The server is the one in SOURCE, else --server, else NATS_URL, else that of the context of the
    nats command, else nats://127.0.0.1:4222.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; *argv* is the process's own by default.

    Every error is one line on standard error, except that `--verbose` shows where an unexpected one
    came from.
    """
    if argv is None:
        argv = sys.argv[1:]
        _begin()
    session = Session()
    try:
        status = natsfs.main(list(argv), "natsfs", standalone_mode=False, obj=session)
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        return USAGE
    except SystemExit as exc:
        # click ends so, in silence, when nobody reads its output any more.
        return exc.code if isinstance(exc.code, int) else USAGE
    except BaseException as exc:
        return _report(exc, session, mounting=bool(argv) and argv[0] in ("mount", "umount"))
    return status if isinstance(status, int) else 0


def mount_helper() -> int:
    """`mount.natsfs`, the program that mount(8) calls for a line of fstab(5)."""
    return _help("mount", lambda argv: ["--as-spelled", *mount_arguments(argv)])


def umount_helper() -> int:
    """`umount.fuse.natsfs`, the program that umount(8) calls for a natsfs mount."""
    return _help("umount", umount_arguments)


def _help(command: str, translate: Callable[[Sequence[str]], list[str]]) -> int:
    """Do what mount(8) or umount(8) asks for, in the little environment that it may have."""
    argv = sys.argv[1:]
    _begin()
    complete(os.environ)
    try:
        arguments = translate(argv)
    except UsageError as exc:
        say(str(exc))
        return USAGE
    return main([command, *arguments])


def _begin() -> None:
    pause_collection()
    logging.lastResort = Said()
    conceal_credentials()
    forbid_dumps()
    keep_files_private()


def _report(exc: BaseException, session: Session, *, mounting: bool) -> int:
    failure = describe(exc, mounting=mounting)
    if session.verbose and failure.unexpected:
        click.echo(redacted("".join(traceback.format_exception(exc))), err=True, nl=False)
    say(failure.text)
    return failure.status
