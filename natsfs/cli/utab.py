"""What libmount knows of a mount beyond /proc/mounts: that umount(8) is to call `umount.natsfs`.

umount(8) asks the kernel for the type of what it unmounts, and gets "fuse": for such it would call
umount.fuse, which serves no file system in particular.  Only for a mount that is named in its own
table (`/run/mount/utab`) it looks further; there `uhelper=` names the helper.  See libmount,
`mnt_context_find_umount_fs`, of util-linux 2.38.
"""

from __future__ import annotations

import logging
import os
import subprocess
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

HELPER = Path("/sbin/umount.natsfs")
UTAB = Path("/run/mount/utab")

#: Seconds for a program that writes one line.
_PATIENCE = 10.0


def announce(source: str, directory: Path) -> None:
    """Let umount(8) call `umount.natsfs` for the mount on *directory*, if that is installed and the
    user is root, who alone may write the table.  Without, umount(8) works and does not wait."""
    if os.geteuid() != 0 or not HELPER.exists() or _is_announced(directory):
        return
    # --fake mounts nothing, but writes the table; a daemon that ends by itself leaves the line, and
    # the next mount there finds it.
    command = ["mount", "--internal-only", "--fake", "--no-canonicalize", "-t", "fuse.natsfs"]
    try:
        subprocess.run(
            [*command, "-o", "uhelper=natsfs", source, str(directory)],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.info("umount(8) will not wait for what is not stored: %s", error)


def _is_announced(directory: Path) -> bool:
    spelled = "".join(_octal(character) for character in str(directory))
    with suppress(OSError):
        lines = UTAB.read_text(errors="replace").splitlines()
        return any(
            f"TARGET={spelled}" in line.split(" ") and "uhelper=natsfs" in line for line in lines
        )
    return False


def _octal(character: str) -> str:
    return f"\\{ord(character):03o}" if character in " \t\n\\" else character
