"""Which processes have a file of this mount open for writing, as /proc tells.

The kernel tells of each close(2) and exit by which a process lets go of a descriptor, and not
whether another process, which has inherited the same one, still has it.  Who lets go is not in
/proc any more when the kernel tells of it, and whoever is still there will be told of later.  So a
process that is found will let go after this, and the last one finds nobody.

What cannot be seen, of other users or other namespaces, counts as nobody.

Concurrency: `somebody_writes` may be called by any number of tasks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from natsfs.mount.mountinfo import mounts_on
from natsfs.threads import in_thread

#: Seconds for a look: a host with so many processes that it takes longer is better off storing.
PATIENCE = 2.0


class Holders:
    """Those who have files open that are below *directory*."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        #: Who was found last: a shell stays while its children come and go.
        self._last = ""

    async def somebody_writes(self, ino: int) -> bool:
        """Whether a process has a descriptor of the inode *ino* that may write.  Among 125 that
        takes 6 ms where none has, and 0.2 ms where the one has that had it last.  Where /proc, or
        a thread to look at it, cannot be had, or not within `PATIENCE`, nobody has."""
        with suppress(OSError), trio.move_on_after(PATIENCE):
            return await in_thread(partial(self._look, ino), abandon=True)
        return False

    def _look(self, ino: int) -> bool:
        mounts = {mount.number for mount in mounts_on(self._directory)}
        for process in self._processes():
            with suppress(OSError, ValueError):
                if any(_writes(fd, ino, mounts) for fd in self._descriptors(process)):
                    self._last = process
                    return True
        return False

    def _processes(self) -> Iterator[str]:
        if self._last:
            yield self._last
        yield from filter(str.isdigit, os.listdir("/proc"))

    def _descriptors(self, process: str) -> Iterator[str]:
        """Where /proc tells of the descriptors of *process* for what is below the directory.  The
        path of what one leads to is known to the kernel: to ask for more would be to ask us."""
        within = f"{self._directory}/"
        for number in os.listdir(f"/proc/{process}/fd"):
            with suppress(FileNotFoundError):
                if os.readlink(f"/proc/{process}/fd/{number}").startswith(within):
                    yield f"/proc/{process}/fdinfo/{number}"


def _writes(fdinfo: str, ino: int, mounts: set[str]) -> bool:
    """Errors: `OSError` (it is closed)."""
    lines = Path(fdinfo).read_text().splitlines()
    told = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    # Linux before 5.14 does not tell the inode.
    same = told.get("ino") == str(ino) and told.get("mnt_id") in mounts
    return same and int(told["flags"], 8) & os.O_ACCMODE != os.O_RDONLY
