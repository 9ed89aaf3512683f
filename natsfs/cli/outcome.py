"""How a command ends: every exception becomes one line and an exit status, here and nowhere else.

The statuses are those of mount(8): 0, 1 for usage and permissions, 2 for the system, 32 for a mount
that failed.  The other commands use 1 for whatever natsfs reports and 2 for what it did not expect.
"""

from __future__ import annotations

import re

import click

from natsfs.daemon import Failure
from natsfs.errors import (
    BucketNotFoundError,
    ConnectFailed,
    ConnectionLost,
    JetStreamUnavailable,
    MountFailed,
    NatsfsError,
    PermissionsError,
    RequestTimeout,
    UsageError,
)

USAGE = 1
SYSTEM = 2
MOUNT_FAILED = 32
#: 128 + SIGINT, as shells report it.
INTERRUPTED = 130

_HINTS: tuple[tuple[type[NatsfsError], str], ...] = (
    (
        ConnectFailed,
        "check --server or NATS_URL and --user, --creds or --nkey, or use --embedded for a private "
        "server",
    ),
    (ConnectionLost, "check that the server is running, then try again"),
    (RequestTimeout, "check the server, or allow more time with --timeout"),
    (
        BucketNotFoundError,
        "`natsfs bucket list` shows the buckets, --create or `natsfs bucket create` makes one",
    ),
    (JetStreamUnavailable, "start nats-server with -js, or enable JetStream for this account"),
    (PermissionsError, "or use other credentials: --user, --creds or --nkey"),
)

#: As far as the last @: a list of servers may have credentials in front of each.
_CREDENTIALS = re.compile(r"(?<=://)\S*@")


class SystemFailure(NatsfsError):
    """This host lacks something that a mount needs: exit status 2 of mount(8)."""


def describe(exc: BaseException, *, mounting: bool = False) -> Failure:
    """The exit status and the one line for *exc*; *mounting* for what a mount's failure is told.

    Credentials in URLs are left out, whoever put them into the text.
    """
    exc = _cause(exc)
    return Failure(_status(exc, mounting), _one_line(_text(exc)), not _is_expected(exc))


def redacted(text: str) -> str:
    """*text* without the credentials of the URLs in it."""
    return _CREDENTIALS.sub("", text)


def _is_expected(exc: BaseException) -> bool:
    """Whether *exc* is something that natsfs or click raises on purpose, or the user's doing."""
    expected = (
        *(NatsfsError, click.ClickException, click.Abort),
        *(KeyboardInterrupt, SystemExit, MemoryError),
    )
    return isinstance(exc, expected)


def _cause(exc: BaseException) -> BaseException:
    """What is at the bottom of an exception group: nurseries wrap what their tasks raise."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def _status(exc: BaseException, mounting: bool) -> int:
    match exc:
        case KeyboardInterrupt() | click.Abort():
            return INTERRUPTED
        case SystemExit(code=int(status)):
            return status
        case click.ClickException() | UsageError():
            return USAGE
        case MountFailed():
            return MOUNT_FAILED
        case NatsfsError() if not isinstance(exc, SystemFailure):
            return MOUNT_FAILED if mounting else USAGE
    return SYSTEM


def _text(exc: BaseException) -> str:
    match exc:
        case KeyboardInterrupt() | click.Abort():
            return "interrupted"
        case click.UsageError(ctx=click.Context(command_path=command)):
            return f"{exc.format_message().rstrip('.')}; see `{command} --help`"
        case click.ClickException():
            return exc.format_message()
        case NatsfsError():
            return _with_hint(exc)
        case OSError(strerror=str(reason)):
            return f"{exc.filename}: {reason}" if exc.filename else reason
        case MemoryError():
            return "out of memory; allow the process more (ulimit -v, LimitAS=)"
    return f"unexpected {type(exc).__name__}: {exc}; --verbose shows where"


def _with_hint(exc: NatsfsError) -> str:
    text = str(exc) or type(exc).__name__
    for kind, hint in _HINTS:
        if isinstance(exc, kind):
            return f"{text.rstrip('.')}; {hint}"
    return text


def _one_line(text: str) -> str:
    return redacted(" ".join(text.split()))
