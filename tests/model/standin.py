"""What another client's changes look like on a local directory, which has no other client."""

from __future__ import annotations

import os
import stat
import time
from typing import Any

from tests.model.descriptors import content
from tests.model.looking import brief
from tests.model.mappings import Mappings

#: Seconds to wait until a foreign change can be seen.
FOREIGN_TIMEOUT = 5.0


class StandIn(Mappings):
    """Foreign changes: made on the reference, waited for on the mount."""

    def do_foreign_sight(self, path: str) -> str:
        """What a foreign client would change at *path*: "file", "nothing", or with "nothing in
        nothing" the directories above as well; "no" where it must not.

        That is where *path* has a second name or is not a file, or is open: then a reader keeps the
        old version (R1) as long as its chunks live, and of two writers the last wins (A4).  A local
        directory knows nothing of either.
        """
        parts = path.split("/")
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        if any(os.path.lexists(one) and not stat.S_ISDIR(os.lstat(one).st_mode) for one in above):
            return "no"
        if not all(map(os.path.lexists, above)):
            return "nothing in nothing"
        if not os.path.lexists(path):
            return "nothing"
        status = os.lstat(path)
        alone = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        return "file" if alone and not self.is_open(status) else "no"

    def do_concerns(self, slots: list[int], paths: list[str]) -> bool:
        """Whether one of these *slots* is of a file that one of *paths* leads to or through."""
        return any(self.is_open(status, slots) for path in paths for status in _behind(path))

    def do_replace(self, path: str, body: str) -> Any:
        """What a foreign put looks like: owner, mode and attributes are those of a new object, and
        a directory in which the name was there already hears nothing of it."""
        self._imply(os.path.dirname(path) or ".")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(descriptor, body.encode())
        # In a set-group-ID directory, too, owners are those of the mount, and whatever the umask.
        os.fchown(descriptor, os.geteuid(), os.getegid())
        os.fchmod(descriptor, 0o644)
        for name in os.listxattr(descriptor):
            os.removexattr(descriptor, name)
        os.utime(descriptor)
        os.close(descriptor)

    def _imply(self, directory: str) -> None:
        if not os.path.exists(directory):
            self._imply(os.path.dirname(directory) or ".")
            os.mkdir(directory)
            os.chown(directory, os.geteuid(), os.getegid())
            os.chmod(directory, 0o755)

    def do_drop(self, path: str) -> Any:
        """What a foreign delete looks like."""
        os.unlink(path)

    def do_await(self, path: str, body: str | None) -> Any:
        """Wait until *path* has *body*, or is gone."""
        deadline = time.monotonic() + FOREIGN_TIMEOUT
        while (seen := content(path)) != (None if body is None else brief(body.encode())):
            if time.monotonic() > deadline:
                return f"{path} has {seen}"
            time.sleep(0.001)
        return None


def _behind(path: str) -> list[os.stat_result]:
    """What an operation on *path* may change: it, its target, and all that is below it."""
    found = []
    for follow in (False, True):
        try:
            found.append(os.stat(path, follow_symlinks=follow))
        except (OSError, ValueError):
            continue
    for top, _, files in os.walk(path):
        found += [os.lstat(os.path.join(top, name)) for name in files]
    return found
