"""Programs that keep a mount busy until they are told to stop, or until it goes away.

    python -m tests.mount.load KIND DIRECTORY SECONDS

Each works inside of the directory from its start, so that a mount that is detached is used on.
What other programs do to its files is no failure; an errno that no such thing explains is, and ends
it with status 1 and a line.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

#: What happens to a program when others rename, remove and replace what it works on.
COMMON = {
    *(errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR, errno.ESTALE),
    *(errno.EINVAL, errno.EBUSY, errno.ELOOP, errno.EXDEV, errno.EPERM),
    # Its chunks are gone: nats-py purges what a mount has given another name meanwhile.
    errno.EIO,
}

#: What happens to it when the mount goes away.
GONE = {errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV}

NAMES = tuple("abcdef")


def names() -> str:
    """A path of one or two names that many use."""
    return "/".join(random.choices(NAMES, k=random.choice((1, 1, 2))))


def write() -> None:
    """Create, overwrite, append."""
    flags = random.choice((os.O_TRUNC, os.O_APPEND, os.O_EXCL)) | os.O_CREAT | os.O_RDWR
    descriptor = os.open(names(), flags, 0o644)
    try:
        os.write(descriptor, random.randbytes(random.choice((1, 5000, 200_000))))
        if random.random() < 0.2:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remap() -> None:
    """Read and write through a mapping, in a child: what others cut off or purge is SIGBUS."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        _remap()
    finally:
        os._exit(0)


def _remap() -> None:
    descriptor = os.open(names(), os.O_RDWR)
    try:
        size = os.fstat(descriptor).st_size
        if size < 4096:
            os.ftruncate(descriptor, 4096)
            size = 4096
        with mmap.mmap(descriptor, 4096) as mapped:
            mapped[0:100] = random.randbytes(100)
            mapped.flush()
    finally:
        os.close(descriptor)


def rename() -> None:
    """Rename files and directories over each other."""
    os.rename(names(), names())


def entries() -> None:
    """Make and remove directories, links and files."""
    path = names()
    random.choice(
        (
            lambda: os.mkdir(path),
            lambda: os.rmdir(path),
            lambda: os.unlink(path),
            lambda: os.symlink("target", path),
            lambda: os.link(path, names()),
            lambda: os.chmod(path, random.choice((0o755, 0o700))),
        )
    )()


def walk() -> None:
    """List everything and look at it."""
    for top, _, files in os.walk("."):
        for name in files:
            os.stat(os.path.join(top, name))


def find() -> None:
    """`find` and `cat` of everything."""
    quiet = subprocess.DEVNULL
    subprocess.run(
        ["find", ".", "-type", "f", "-exec", "cat", "{}", "+"],
        stdin=quiet,
        stdout=quiet,
        stderr=quiet,
        check=False,
    )


def copy() -> None:
    """`cp -r` of everything beside the rest, and away with it."""
    quiet = subprocess.DEVNULL
    name = f"copy-{os.getpid()}"
    os.makedirs(name, exist_ok=True)
    for source in NAMES:
        subprocess.run(
            ["cp", "-r", source, name], stdin=quiet, stdout=quiet, stderr=quiet, check=False
        )
    shutil.rmtree(name)


def interrupted() -> None:
    """Requests that a signal comes in between of."""
    signal.setitimer(signal.ITIMER_REAL, random.random() * 0.002)
    try:
        random.choice((write, rename, entries))()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


KINDS: dict[str, Callable[[], None]] = {
    "write": write,
    "remap": remap,
    "rename": rename,
    "entries": entries,
    "walk": walk,
    "find": find,
    "copy": copy,
    "interrupted": interrupted,
}


def main() -> int:
    """Exit status 0 for a good end, 1 for an errno without a reason."""
    kind, directory, seconds = sys.argv[1:]
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    try:
        os.chdir(directory)
    except OSError as error:
        # It was unmounted before this program had started.
        return 0 if error.errno in GONE else 1
    ends = time.monotonic() + float(seconds)
    while time.monotonic() < ends:
        try:
            KINDS[kind]()
        except OSError as error:
            if error.errno in GONE:
                return 0
            if error.errno not in COMMON:
                print(f"load {kind}: {error!r}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
