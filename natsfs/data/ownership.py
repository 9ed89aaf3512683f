"""Whether a directory of ours can be trusted to stay ours: others share this host's disks."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def others_may_replace(directory: Path) -> bool:
    """Whether another user than root could put something else into the place of *directory*.

    Errors: `OSError` (there is nothing around it).
    """
    around = directory.parent.stat()
    if around.st_uid not in (0, os.geteuid()):
        return True
    return bool(around.st_mode & 0o022) and not around.st_mode & stat.S_ISVTX
