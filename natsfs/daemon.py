"""A life in the background: the fork, and how the parent learns whether it went well.

The child says one line on a pipe: "mounted", or "error STATUS TEXT", after any number of lines
"progress DONE TOTAL".  A pipe that closes without one means that the child died.  Whatever happens,
when `run_in_background` returns or raises, either the child has said "mounted" or there is no child
any more.

Concurrency: a fork copies the calling thread alone, so this must happen before any other thread or
event loop exists; `run_in_background` refuses otherwise.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn, Protocol

from natsfs.errors import MountFailed

log = logging.getLogger(__name__)

#: Seconds between SIGTERM and SIGKILL for a child that nobody waits for any more: an embedded
#: server, which it may have to stop first, is given 10 s itself.
END_TIMEOUT = 15.0

#: How a line about progress begins.
_PROGRESS = b"progress "

#: Bytes of the log that are searched for its last line.
LOG_TAIL = 4096


class Ready(Protocol):
    """The child's words to its parent."""

    def __call__(self) -> None:
        """It is ready; said once.  Errors: `MountFailed` (the parent is gone)."""

    def progress(self, done: int, total: int) -> None:
        """How far it is with what it does before that."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the child gave up: an exit status, and one line for the user.

    *unexpected* asks for a traceback in the log.
    """

    status: int
    text: str
    unexpected: bool = False


class ChildDied(MountFailed):
    """The child ended before it was ready and without giving a reason."""


def run_in_background(
    work: Callable[[Ready], None],
    *,
    log_file: Path,
    describe: Callable[[BaseException], Failure],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Failure | None:
    """Run *work* in a process of its own and return when it is ready.

    *work* gets a callable to call once when it is ready, and then goes on for as long as it likes,
    in a session of its own, in the root directory, with its output in *log_file*.  *progress* gets
    what it tells of its progress until then.  The result is
    None then, or what *describe* made of the exception that ended *work* before.

    A SIGINT or SIGTERM to the caller ends the child too, by SIGTERM, and raises
    `KeyboardInterrupt` or `SystemExit(143)`.  A child that finds its parent gone when it is ready
    gets `MountFailed` from the callable.  In the child SIGTERM interrupts as SIGINT does.

    Errors: `ChildDied`; `OSError` (*log_file* cannot be opened, or no process can be made).
    """
    if threading.active_count() != 1:
        raise RuntimeError("a process with threads cannot be forked safely")
    output = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    start = os.fstat(output).st_size
    hearing, saying = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with _terminable(), _held_signals() as release:
        child = os.fork()
        if child == 0:
            _be_the_child(work, describe, saying, output, release)
        try:
            release()
            os.close(saying)
            os.close(output)
            said = _hear(hearing, progress)
        except BaseException:
            _end(child)
            raise
    return _outcome(child, said, log_file, start)


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that the child can be ended first."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _held_signals() -> Iterator[Callable[[], None]]:
    """Hold back SIGINT and SIGTERM until the end, or until what this gives is called: what arrives
    at the moment of a fork would leave a child that nobody ends."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})

    def release() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    try:
        yield release
    finally:
        release()


def interrupt_on_sigterm() -> None:
    """Let SIGTERM do what SIGINT does: unwind by `KeyboardInterrupt`, at a moment of trio's choice.

    SIGINT itself is set right, too: a shell starts its background jobs with SIGINT ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.raise_signal(signal.SIGINT))


# -- the parent -----------------------------------------------------------------------------------


def _hear(pipe: int, progress: Callable[[int, int], None]) -> bytes:
    """What the child says at last, up to the end of that line or of its life."""
    with open(pipe, "rb") as stream:
        while (line := stream.readline()).startswith(_PROGRESS):
            done, total = line.split()[1:]
            progress(int(done), int(total))
        return line


def _outcome(child: int, said: bytes, log_file: Path, start: int) -> Failure | None:
    if said == b"mounted\n":
        return None
    _, status = os.waitpid(child, 0)
    if said.startswith(b"error "):
        _, number, text = said.decode(errors="replace").rstrip("\n").split(" ", 2)
        return Failure(int(number), text)
    raise ChildDied(
        f"the background process {_manner(status)} before the mount was ready; "
        f"{log_file} {_last_words(log_file, start)}"
    )


def _manner(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.waitstatus_to_exitcode(status)}"


def _last_words(log_file: Path, start: int) -> str:
    """The end of what this run wrote into its log, in one line."""
    with log_file.open("rb") as stream:
        stream.seek(0, os.SEEK_END)
        stream.seek(max(start, stream.tell() - LOG_TAIL))
        lines = stream.read().decode(errors="replace").split("\n")
    words = [line.strip() for line in lines if line.strip()]
    return f"ends with: {words[-1]}" if words else "has nothing about it"


def _end(child: int) -> None:
    """End *child*, by SIGKILL if SIGTERM does not do it in time, and reap it."""
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGTERM)
    ended = os.pidfd_open(child)
    try:
        if not select.select([ended], [], [], END_TIMEOUT)[0]:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(ended)
    os.waitpid(child, 0)


# -- the child ------------------------------------------------------------------------------------


def _be_the_child(
    work: Callable[[Ready], None],
    describe: Callable[[BaseException], Failure],
    saying: int,
    output: int,
    release_signals: Callable[[], None],
) -> NoReturn:
    """Do the *work* and end the process; never return into the parent's code."""
    status = 2
    try:
        interrupt_on_sigterm()
        release_signals()
        ready = _Announcement(saying)
        failure = _failure_of(lambda: work(ready), describe, saying, output)
        if failure is not None and not ready.said:
            _say(saying, f"error {failure.status} {failure.text}")
        status = failure.status if failure is not None else 0
    finally:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _failure_of(
    work: Callable[[], None],
    describe: Callable[[BaseException], Failure],
    saying: int,
    output: int,
) -> Failure | None:
    try:
        _leave_the_terminal(saying, output)
        work()
    except BaseException as exc:
        failure = describe(exc)
        log.critical("%s", failure.text, exc_info=exc if failure.unexpected else None)
        return failure
    return None


class _Announcement:
    """`Ready`."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self.said = False

    def __call__(self) -> None:
        self.said = True
        try:
            _say(self._pipe, "mounted")
        except BrokenPipeError:
            raise MountFailed("the command that asked for this mount is gone") from None

    def progress(self, done: int, total: int) -> None:
        # Nobody may be reading: then it is not worth waiting for.
        os.set_blocking(self._pipe, False)
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._pipe, b"%s%d %d\n" % (_PROGRESS, done, total))
        os.set_blocking(self._pipe, True)


def _leave_the_terminal(saying: int, output: int) -> None:
    """Keep nothing of the caller's: no terminal, no directory, no descriptor but the pipe."""
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, saying)
    os.closerange(saying + 1, os.sysconf("SC_OPEN_MAX"))


def _say(pipe: int, line: str) -> None:
    os.write(pipe, line.encode() + b"\n")
    os.close(pipe)
