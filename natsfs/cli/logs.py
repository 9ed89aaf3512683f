"""Where a mount logs, and how a line looks.

The handlers for syslog and journald speak to sockets of this host; neither waits long for anybody,
for a mount must not stand still because its log does.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from natsfs.cli.outcome import redacted
from natsfs.cli.output import printable, rfc3339, say
from natsfs.errors import UsageError

log = logging.getLogger(__name__)

#: Where syslog listens; the second is what the first is a link to under systemd, and what there is
#: in a container that has the host's /run.
SYSLOG = (Path("/dev/log"), Path("/run/systemd/journal/dev-log"))
JOURNALD = Path("/run/systemd/journal/socket")

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

#: Seconds that a record may wait for room, while the mount stands still: a receiver that lives
#: makes some within milliseconds.  A socket has room for ten datagrams (net.unix.max_dgram_qlen).
_PATIENCE = 0.2

#: Bytes of a message; a datagram of a Unix socket has some 200 KiB at most.
_LONGEST = 64 * 1024

#: The facility of daemons and the levels of syslog(3); journald has the levels, too.
_DAEMON = 3 << 3
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


class Target(Enum):
    """Where the log of a mount goes."""

    STDERR = "stderr"
    FILE = "file"
    SYSLOG = "syslog"
    JOURNALD = "journald"


@dataclass(frozen=True, slots=True)
class Logging:
    """What the command line says of the log.  *file* is absolute."""

    target: Target | None = None
    as_json: bool = False
    file: Path | None = None
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.target not in (None, Target.FILE) and self.file is not None:
            raise UsageError(f"--log-file and --log-target={self.target.value} exclude each other")


def log_for_mount(plan: Logging, output: Path | None = None) -> Callable[[], None]:
    """Let a mount log as *plan* has it; *output* is the file that standard error is, if it is one.

    What is returned does what SIGHUP asks for: it opens the log file anew, or ends a mount whose
    terminal has gone.

    Errors: `OSError` (the log file cannot be opened), `UsageError` (nobody takes logs there).
    """
    handler, hang_up = _handler(plan, output)
    if plan.as_json:
        handler.setFormatter(_Json())
    elif isinstance(handler, _Syslog):
        handler.setFormatter(_OneLine("%(levelname)s %(name)s: %(message)s"))
    elif isinstance(handler, _Journald):
        handler.setFormatter(_Harmless("%(message)s"))
    else:
        handler.setFormatter(_Harmless(_TEXT))
    logging.basicConfig(level=logging.DEBUG if plan.verbose else logging.INFO, handlers=[handler])
    return hang_up


def _handler(plan: Logging, output: Path | None) -> tuple[logging.Handler, Callable[[], None]]:
    if plan.target is Target.SYSLOG:
        return _Syslog(), lambda: _reopen_output(output)
    if plan.target is Target.JOURNALD:
        return _Journald(), lambda: _reopen_output(output)
    if output is None and plan.file is not None:
        handler = logging.FileHandler(plan.file)
        return handler, lambda: _reopen_file(handler)
    return logging.StreamHandler(), lambda: _reopen_output(output)


class Said(logging.Handler):
    """What commands that have no log say of a warning."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        say(redacted(record.getMessage()))


# -- SIGHUP ---------------------------------------------------------------------------------------


def _reopen_file(handler: logging.FileHandler) -> None:
    try:
        stream = open(handler.baseFilename, "a", encoding="utf-8")  # noqa: SIM115 (the handler's)
    except OSError as error:
        log.error("the log file cannot be opened again: %s", error)
        return
    if old := handler.setStream(stream):
        old.close()
    log.info("SIGHUP: the log goes on here")


def _reopen_output(output: Path | None) -> None:
    """Open what standard output and standard error are anew."""
    if output is None:
        if sys.stderr.isatty():
            signal.raise_signal(signal.SIGINT)
        return
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        log.error("the log file cannot be opened again: %s", error)
        return
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    log.info("SIGHUP: the log goes on here")


# -- lines ----------------------------------------------------------------------------------------


class _Harmless(logging.Formatter):
    """A formatter that drops credentials from URLs, whoever logs them, and escapes what a terminal
    would obey: names come from strangers.  A message has one line, a traceback its own."""

    def format(self, record: logging.LogRecord) -> str:
        lines = redacted(super().format(record)).split("\n")
        return "\n".join(map(printable, lines))

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)


class _OneLine(_Harmless):
    """The same with a traceback in the line of its message: syslog would take more for others."""

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", " | ")


class _Json(logging.Formatter):
    """One JSON object a line, in ASCII: `time`, `level`, `logger`, `message`, and `object` and
    `traceback` where there are any."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": rfc3339(round(record.created * 1000) * 10**6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        if (name := object_of(record)) is not None:
            line["object"] = name
        if record.exc_info:
            line["traceback"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line)


def object_of(record: logging.LogRecord) -> str | None:
    """The object that *record* is about, where the one who logged it has said so."""
    name = getattr(record, "object", None)
    return name if isinstance(name, str) else None


# -- sockets --------------------------------------------------------------------------------------


class _Datagrams(logging.Handler):
    """Sends each record as a datagram to the socket *address*.

    Where the other end does not keep up, records are lost: the first waits a moment, those after it
    for nothing until one gets through.  The handler of the standard library waits for ever, and
    does not say at the start that nobody listens.
    """

    def __init__(self, address: Path, what: str) -> None:
        super().__init__()
        if not address.is_socket():
            raise UsageError(f"no {what} listens on {address}; use --log-file, or start it")
        self._address = str(address)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._stalled = False

    def emit(self, record: logging.LogRecord) -> None:
        self._socket.settimeout(0 if self._stalled else _PATIENCE)
        try:
            self._socket.sendto(self.entry(record), self._address)
            self._stalled = False
        except OSError:
            self._stalled = True

    def close(self) -> None:
        self._socket.close()
        super().close()

    def entry(self, record: logging.LogRecord) -> bytes:
        """The datagram for *record*."""
        raise NotImplementedError


class _Syslog(_Datagrams):
    """Sends records to syslog, as syslog(3) does."""

    def __init__(self) -> None:
        address = next((address for address in SYSLOG if address.is_socket()), SYSLOG[0])
        super().__init__(address, "syslog")

    def entry(self, record: logging.LogRecord) -> bytes:
        """RFC 3164 without the time, which syslog adds."""
        head = f"<{_DAEMON | _priority(record)}>natsfs[{os.getpid()}]: "
        return (head + self.format(record)).encode(errors="replace")[:_LONGEST]


class _Journald(_Datagrams):
    """Sends records to journald by its native protocol, which keeps their fields apart: systemd's
    own document "Native Journal Protocol"."""

    def __init__(self) -> None:
        super().__init__(JOURNALD, "journald")

    def entry(self, record: logging.LogRecord) -> bytes:
        """The fields, one after the other."""
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(_priority(record)),
            "SYSLOG_IDENTIFIER": "natsfs",
            "LOGGER": record.name,
            "NATSFS_OBJECT": object_of(record),
        }
        return b"".join(_field(name, text) for name, text in fields.items() if text is not None)


def _priority(record: logging.LogRecord) -> int:
    return next((priority for level, priority in _PRIORITIES if record.levelno >= level), 7)


def _field(name: str, text: str) -> bytes:
    """A field in the form that takes any value: its name, its length in eight bytes, its bytes."""
    value = text.encode(errors="replace")[:_LONGEST]
    return b"%b\n%b%b\n" % (name.encode(), struct.pack("<Q", len(value)), value)
