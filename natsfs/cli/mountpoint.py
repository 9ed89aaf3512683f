"""Mount points of this host: which are natsfs's, and whether a directory can become one.

Mounts are read from /proc/self/mountinfo (proc(5)), never by looking at the mount point itself: a
mount whose server hangs would make the looker hang, too.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import click

from natsfs.cli.outcome import SystemFailure
from natsfs.errors import MountFailed, UsageError

MOUNTINFO = Path("/proc/self/mountinfo")
FUSE_DEVICE = Path("/dev/fuse")
FUSE_CONF = Path("/etc/fuse.conf")

#: What the kernel calls a FUSE mount with `subtype=natsfs`.
FILE_SYSTEM = "fuse.natsfs"

_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo."""

    directory: Path
    file_system: str
    source: str


def mounts(mountinfo: Path = MOUNTINFO) -> list[Mount]:
    """Everything that is mounted, in the order of mounting."""
    lines = os.fsdecode(mountinfo.read_bytes()).splitlines()
    return [_parse(line) for line in lines]


def natsfs_mounts(mountinfo: Path = MOUNTINFO) -> list[Mount]:
    """The natsfs mounts that are on top of their mount point."""
    on_top = {mount.directory: mount for mount in mounts(mountinfo)}
    return [mount for mount in on_top.values() if mount.file_system == FILE_SYSTEM]


def mount_at(directory: Path, mountinfo: Path = MOUNTINFO) -> Mount | None:
    """The natsfs mount on exactly *directory*."""
    found = (mount for mount in natsfs_mounts(mountinfo) if mount.directory == directory)
    return next(found, None)


def complete_mount(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The mount points that begin so, for a shell."""
    found = (str(mount.directory) for mount in natsfs_mounts())
    return [directory for directory in found if directory.startswith(incomplete)]


def mount_above(path: Path, mountinfo: Path = MOUNTINFO) -> Mount | None:
    """The natsfs mount that *path*, which is absolute, lies in."""
    around = [mount for mount in mounts(mountinfo) if path.is_relative_to(mount.directory)]
    nearest = max(around, key=lambda mount: len(mount.directory.parts), default=None)
    return mount_at(nearest.directory, mountinfo) if nearest else None


def located(path: str | Path) -> Path:
    """*path* absolute and free of symlinks, without a look at the mount that it may name."""
    absolute = Path(os.path.abspath(Path(path).expanduser()))
    if mount_above(absolute) is not None:
        return absolute
    return Path(os.path.realpath(absolute.parent)) / absolute.name if absolute.name else absolute


def _parse(line: str) -> Mount:
    """Fields 5, and after the lone hyphen 1 and 2; blanks in them are octal escapes (proc(5))."""
    before, _, after = line.partition(" - ")
    file_system, source, *_ = after.split(" ")
    return Mount(Path(_unescape(before.split(" ")[4])), file_system, _unescape(source))


def _unescape(field: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), field)


# -- before a mount -------------------------------------------------------------------------------


def check_mount_point(directory: Path, *, allow_non_empty: bool = False) -> None:
    """Make sure that *directory*, as `located` returns it, can be mounted on.

    Errors: `MountFailed` (missing, no directory, mounted, stale, not empty), `UsageError` (the user
    may not).
    """
    if mount := mount_at(directory):
        _refuse_mounted(mount)
    try:
        entries = os.listdir(directory)
    except FileNotFoundError:
        raise MountFailed(f"{directory} does not exist; make it with `mkdir -p`") from None
    except NotADirectoryError:
        raise MountFailed(f"{directory} is no directory") from None
    except PermissionError:
        raise UsageError(f"{directory} may not be read by this user") from None
    except OSError as exc:
        raise MountFailed(_stale(directory, exc)) from None
    if entries and not allow_non_empty:
        raise MountFailed(
            f"{directory} is not empty; choose another directory, or hide what is in it with "
            "--allow-non-empty"
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UsageError(f"{directory} may not be written by this user, so not be mounted on")


def _refuse_mounted(mount: Mount) -> None:
    try:
        os.stat(mount.directory)
    except OSError as exc:
        raise MountFailed(_stale(mount.directory, exc)) from None
    raise MountFailed(
        f"{mount.directory} has {mount.source} mounted on it already; `natsfs umount "
        f"{mount.directory}` ends that"
    )


def _stale(directory: Path, exc: OSError) -> str:
    if exc.errno == errno.ENOTCONN:
        return (
            f"{directory} holds a mount whose process has died; "
            f"run `natsfs umount {directory}` first"
        )
    return f"{directory}: {exc.strerror}"


def check_fuse(*, allow_other: bool = False) -> None:
    """Make sure that this host and user can make FUSE mounts.

    Errors: `SystemFailure` (no FUSE, no fusermount3), `UsageError` (the user may not).
    """
    check_device()
    if os.geteuid() != 0:
        _check_unprivileged(allow_other)


def check_device() -> None:
    """Make sure that FUSE is there.  Errors: as `check_fuse`."""
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        raise UsageError(f"{FUSE_DEVICE} may not be opened by this user") from None
    except OSError as exc:
        raise SystemFailure(
            f"{FUSE_DEVICE} cannot be opened ({exc.strerror}); run `modprobe fuse`, or start the "
            f"container with --device {FUSE_DEVICE} --cap-add SYS_ADMIN"
        ) from None


def _check_unprivileged(allow_other: bool) -> None:
    if shutil.which("fusermount3") is None:
        raise SystemFailure("fusermount3 is not installed; on Debian it is in the package fuse3")
    if allow_other and not others_allowed():
        raise UsageError(
            f"--allow-other is for root until {FUSE_CONF} has a line `user_allow_other`"
        )


def others_allowed() -> bool:
    """Whether users who are not root may let others into their mounts."""
    try:
        lines = FUSE_CONF.read_text().splitlines()
    except OSError:
        return False
    return "user_allow_other" in (line.strip() for line in lines)
