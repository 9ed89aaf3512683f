"""What can go wrong, one class per fact.

Each class carries the errno that the kernel is told and the level at which the error boundary logs
it (`semantics.md`, table E).  Layers below `operations` raise these and never an errno; layers
above decide by class, never by text.
"""

from __future__ import annotations

import errno
import logging


class NatsfsError(Exception):
    """Base of everything that natsfs raises on purpose."""

    errno: int = errno.EIO
    level: int = logging.WARNING


# -- what programs ask for and cannot have: part of every day, so logged at DEBUG -----------------


class NotFoundError(NatsfsError):
    """No object, entry or attribute of that name, or it is deleted."""

    errno = errno.ENOENT
    level = logging.DEBUG


class ExistsError(NatsfsError):
    """The name of an exclusive create is taken."""

    errno = errno.EEXIST
    level = logging.DEBUG


class NotADirectory(NatsfsError):
    """A directory operation met something else."""

    errno = errno.ENOTDIR
    level = logging.DEBUG


class IsADirectory(NatsfsError):
    """A file operation met a directory."""

    errno = errno.EISDIR
    level = logging.DEBUG


class NotEmptyError(NatsfsError):
    """The directory, or the bucket, still has entries."""

    errno = errno.ENOTEMPTY
    level = logging.DEBUG


class InvalidArgument(NatsfsError):
    """POSIX calls for EINVAL, or a name cannot be stored."""

    errno = errno.EINVAL
    level = logging.DEBUG


class NameTooLongError(NatsfsError):
    """A component of more than 255 bytes, or an object name that no subject can hold."""

    errno = errno.ENAMETOOLONG
    level = logging.DEBUG


class NoAttributeError(NatsfsError):
    """The extended attribute does not exist."""

    errno = errno.ENODATA
    level = logging.DEBUG


class NotSupported(NatsfsError):
    """natsfs, or this server, does not offer the operation."""

    errno = errno.EOPNOTSUPP
    level = logging.DEBUG


class NotPermitted(NatsfsError):
    """POSIX calls for EPERM."""

    errno = errno.EPERM
    level = logging.DEBUG


class AccessDenied(NatsfsError):
    """POSIX calls for EACCES: the mode bits of a file or directory say no."""

    errno = errno.EACCES
    level = logging.DEBUG


class BadHandle(NatsfsError):
    """The handle does not allow this call, or does not exist."""

    errno = errno.EBADF
    level = logging.DEBUG


class CrossBucketError(NatsfsError):
    """A rename or hard link would leave its bucket."""

    errno = errno.EXDEV
    level = logging.DEBUG


class FileTooBig(NatsfsError):
    """An offset beyond what the file system can address."""

    errno = errno.EFBIG
    level = logging.DEBUG


# -- the bucket ----------------------------------------------------------------------------------


class BucketNotFoundError(NatsfsError):
    """The bucket's stream does not exist (any more)."""

    errno = errno.ENODEV


class DeletedBucket(NatsfsError):
    """What is asked for was in a bucket that this mount showed and that was deleted."""

    errno = errno.ESTALE
    level = logging.DEBUG


class ReplacedBucket(NatsfsError):
    """What is to be changed was in a bucket that was deleted; there is another one of its name."""

    errno = errno.ESTALE


class BucketGone(BucketNotFoundError):
    """The root of a mount whose bucket was deleted under it, which was logged when it happened."""

    level = logging.DEBUG


class ReadOnlyError(NatsfsError):
    """The bucket is sealed or a mirror, or the mount is read-only."""

    errno = errno.EROFS
    level = logging.DEBUG


class NoSpaceError(NatsfsError):
    """The bucket, the server's storage or the local disk is full."""

    errno = errno.ENOSPC


class QuotaExceededError(NatsfsError):
    """The account's storage limit is reached."""

    errno = errno.EDQUOT


class OutOfMemory(NatsfsError):
    """This process gets no more memory, which `operations.reserve` logs once."""

    errno = errno.ENOMEM
    level = logging.DEBUG


class WrongRevision(NatsfsError):
    """A compare-and-set lost: the meta message is not the one that was expected.

    *actual* is the revision that the server reported, or None where it gave none.
    """

    errno = errno.ESTALE
    level = logging.DEBUG

    def __init__(self, name: str, expected: int | None, actual: int | None = None) -> None:
        found = "another" if actual is None else str(actual)
        super().__init__(f"{name!r} is at revision {found}, not {expected}")
        self.name = name
        self.expected = expected
        self.actual = actual


# -- the content ---------------------------------------------------------------------------------


class StaleVersion(NatsfsError):
    """A foreign client purged the chunks of the version that is being read (R1)."""

    errno = errno.ESTALE


class StaleNode(StaleVersion):
    """An entry of a bucket that was deleted, which was logged when it happened."""

    level = logging.DEBUG


class ConflictError(NatsfsError):
    """Another client stored a version after the file was opened here, and the mount is to give way
    then (A4, `conflict=fail`)."""

    errno = errno.ESTALE


class ConflictKnown(ConflictError):
    """The same for a file of which it was said already."""

    level = logging.DEBUG


class DigestMismatch(NatsfsError):
    """The bytes of a version are not those that its SHA-256 digest promises (R3)."""

    level = logging.ERROR


class DamageKnown(DigestMismatch):
    """The same for a handle that was told already: the kernel asks again for what it read ahead."""

    level = logging.DEBUG


class ChunkMissing(NatsfsError):
    """Chunks of a version that is still the current one are not in the stream."""

    level = logging.ERROR


class MissingKnown(ChunkMissing):
    """The same for a version of which it was said already."""

    level = logging.DEBUG


class MalformedMeta(NatsfsError):
    """A meta message that cannot be understood."""


class MalformedKnown(MalformedMeta):
    """The same for one of which it was said already."""

    level = logging.DEBUG


# -- the server ----------------------------------------------------------------------------------


class PermissionsError(NatsfsError):
    """The credentials may not publish or read that subject.  The session logs the first of each
    kind (`natsfs.store.session.denials`)."""

    errno = errno.EACCES
    level = logging.DEBUG


class RequestTimeout(NatsfsError):
    """No answer within the deadline."""


class ConnectionLost(NatsfsError):
    """There is no connection, and none came back within the deadline."""


class NotSent(ConnectionLost):
    """So it is, and nothing of the change was sent before either: it has not happened."""


class ConnectFailed(NatsfsError):
    """The first connection could not be made; the text says to whom and why."""


class JetStreamUnavailable(NatsfsError):
    """The server, or this account on it, has no JetStream."""


class ServerRefused(NatsfsError):
    """JetStream answered with an error that no other class here stands for.

    *err_code* is JetStream's number, 0 where the answer had none.
    """

    def __init__(self, what: str, err_code: int, description: str) -> None:
        number = f" (JetStream error {err_code})" if err_code else ""
        super().__init__(f"{what}: {description}{number}")
        self.err_code = err_code
        self.description = description


# -- this host -----------------------------------------------------------------------------------


class CacheError(NatsfsError):
    """The local cache or spool directory cannot be used."""


class UsageError(NatsfsError):
    """The command line asks for something that cannot be done: exit status 1 of mount(8)."""


class MountFailed(NatsfsError):
    """The mount could not be made: exit status 32 of mount(8)."""
