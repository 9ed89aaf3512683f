"""Where journals lie, and whose they are.

Below the cache directory there is one directory for each bucket, and in it one for each *run*: a
process that had the bucket mounted.  A run is locked by its process; the kernel takes the lock away
with it, and so whoever gets the lock has found what a dead process left.

Everything here may block for as long as the disk does.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from natsfs.data.ownership import others_may_replace
from natsfs.errors import CacheError, NatsfsError, NoSpaceError
from natsfs.store.wire import new_nuid

log = logging.getLogger(__name__)

#: Changes whenever the bytes mean something else, here or in `data.records`.
LAYOUT = "journal-1"

_LOCK = "lock"
_ABOUT = "about.json"
_DONE = "done"


class About(msgspec.Struct, frozen=True):
    """Whose run it is: *source* and *directory* of the mount, and when it began, in nanoseconds."""

    bucket: str
    identity: str
    source: str
    directory: str
    host: str
    pid: int
    began_ns: int


class Run:
    """The run of this process for the bucket of *about*, below *cache*; made when it is needed."""

    def __init__(self, cache: Path, about: About) -> None:
        self._about = about
        self.cache = cache
        self.parent = bucket_directory(cache, about.identity)
        #: Another one whenever somebody has removed it.
        self.directory = self.parent / self._new_name()
        self._lock = -1
        self._synced = False

    def made(self) -> Path:
        """The directory, which exists and is ours.  Errors: `CacheError`, `NoSpaceError`."""
        try:
            if self._lock < 0 or not self.directory.is_dir():
                self._make()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoSpaceError(f"the local disk is full: {error}") from error
            raise CacheError(f"the journal cannot be kept in {self.parent}: {error}") from error
        return self.directory

    def sync(self) -> None:
        """Wait until the disk knows of the files in it.  Errors: `OSError`."""
        if self._lock >= 0:
            for directory in (self.directory, *([] if self._synced else self._above())):
                _sync(directory)
            self._synced = True

    def leave(self, *, keep: bool) -> None:
        """The process is done.  Without *keep* nothing stays; what is kept stays locked for as long
        as the process lives."""
        if self._lock >= 0 and not keep:
            shutil.rmtree(self.directory, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def former(self) -> list[Path]:
        """Where dead runs lie of earlier buckets that had the same name at the same servers."""
        return [
            parent
            for parent in bucket_directories(self.cache)
            if parent != self.parent
            and any(self._is_namesake(about) for _, about, lives in all_runs(parent) if not lives)
        ]

    def _is_namesake(self, about: About | None) -> bool:
        """The name of a mount's source ends with its bucket, or with a slash for all of them."""
        own = self._about
        if about is None or about.bucket != own.bucket:
            return False
        servers = [one.source.removesuffix(own.bucket) for one in (about, own)]
        return servers[0] == servers[1]

    def _new_name(self) -> str:
        return f"{self._about.began_ns // 10**9}-{new_nuid()}"

    def _above(self) -> list[Path]:
        return [self.parent, self.parent.parent, self.parent.parent.parent]

    def _make(self) -> None:
        """It appears locked: whoever finds it unlocked takes it for that of a dead process."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
            self.directory = self.parent / self._new_name()
        self.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_ours(self.parent.parent)
        _check_ours(self.parent)
        unready = self.parent / f".{self.directory.name}"
        unready.mkdir(mode=0o700)
        try:
            (unready / _ABOUT).write_bytes(msgspec.json.encode(self._about))
            lock = os.open(unready / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:
            shutil.rmtree(unready, ignore_errors=True)
            raise
        fcntl.flock(lock, fcntl.LOCK_EX)
        unready.rename(self.directory)
        self._lock, self._synced = lock, False


class DeadRun:
    """A run that a dead process left, locked by us until `release`."""

    def __init__(self, directory: Path, lock: int) -> None:
        self.directory = directory
        self._lock = lock
        self.about = _about(directory)
        self._done = done_in(directory)

    def is_done(self, identity: str) -> bool:
        """Whether the entry with this *identity* was taken over or dropped."""
        return identity in self._done

    def note_done(self, identity: str) -> None:
        """Whoever reads the run again leaves the entry with this *identity* out.

        Errors: `OSError`, with which it may be read again."""
        self._done.add(identity)
        with (self.directory / _DONE).open("a") as stream:
            stream.write(f"{identity}\n")
            stream.flush()
            os.fsync(stream.fileno())

    def remove(self) -> None:
        """Nothing of it is needed."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.release()

    def release(self) -> None:
        """Leave it for later."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def bucket_directory(cache: Path, identity: str) -> Path:
    """Where the runs of the bucket with this *identity* lie."""
    return cache / LAYOUT / hashlib.sha256(identity.encode()).hexdigest()[:40]


def dead_runs(parent: Path) -> Iterator[DeadRun]:
    """The runs in *parent* that no process has any more, the oldest first."""
    for directory in sorted(_entries(parent)):
        if directory.name.startswith("."):
            _tidy(directory)
            continue
        lock = _locked(directory)
        if lock is not None:
            yield DeadRun(directory, lock)


def all_runs(parent: Path) -> Iterator[tuple[Path, About | None, bool]]:
    """The directory of each run in *parent*, whose it is, and whether its process lives."""
    for directory in sorted(_entries(parent)):
        if not directory.name.startswith("."):
            lock = _locked(directory)
            if lock is not None:
                os.close(lock)
            yield directory, _about(directory), lock is None


def done_in(directory: Path) -> set[str]:
    """The entries of the run in *directory* that were taken over or dropped."""
    return set(_lines(directory / _DONE))


def bucket_directories(cache: Path) -> list[Path]:
    """The directories of all buckets that ever had a journal here.

    Errors: `CacheError` (nobody can say).
    """
    try:
        return sorted(_read_entries(cache / LAYOUT))
    except OSError as error:
        raise CacheError(f"cannot read the journals in {cache}: {error.strerror}") from None


def _entries(directory: Path) -> list[Path]:
    try:
        return _read_entries(directory)
    except (OSError, NatsfsError) as error:
        log.warning("the journals in %s cannot be read: %s", directory, error)
        return []


def _read_entries(directory: Path) -> list[Path]:
    """Errors: `OSError`, `CacheError` (it is not ours alone)."""
    try:
        _check_ours(directory)
        return [found for found in directory.iterdir() if found.is_dir()]
    except FileNotFoundError:
        return []


def _locked(directory: Path) -> int | None:
    """The lock of the run in *directory*; None if a process has it."""
    try:
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _about(directory: Path) -> About | None:
    try:
        return msgspec.json.decode((directory / _ABOUT).read_bytes(), type=About)
    except (OSError, msgspec.MsgspecError):
        return None


def _lines(path: Path) -> list[str]:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text().split("\n")
    return []


def _check_ours(directory: Path) -> None:
    """Errors: `CacheError` if others could have put something there."""
    status = directory.lstat()
    foreign = status.st_uid != os.geteuid() or status.st_mode & 0o022
    if foreign or others_may_replace(directory):
        raise CacheError(f"{directory} may be changed by others; `chmod 700` it, or remove it")


def _tidy(unready: Path) -> None:
    """A run that was never ready, of a process that was killed in between."""
    with suppress(OSError):
        if time.time() - unready.lstat().st_mtime > 3600:
            shutil.rmtree(unready, ignore_errors=True)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
