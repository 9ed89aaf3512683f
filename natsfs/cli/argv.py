"""The process's own command line: credentials in it are overwritten before anybody lists it.

`ps` shows every user the arguments of every process, and a mount lives for months.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Sequence
from pathlib import Path

_CREDENTIALS = re.compile(rb"(?<=://)[^\s@\0]+(?=@)")


def conceal_credentials() -> None:
    """Overwrite the credentials of URLs in the memory that /proc/PID/cmdline shows.

    Its bounds are fields 48 and 49 of /proc/self/stat (proc(5)); the kernel gives 0 for both where
    it does not tell.  `sys.argv` is a copy and stays as it is.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[48 - 3]), int(fields[49 - 3])
    for found in _CREDENTIALS.finditer(ctypes.string_at(start, end - start)):
        ctypes.memset(start + found.start(), ord("x"), found.end() - found.start())


def umount_arguments(argv: Sequence[str]) -> list[str]:
    """The arguments of `natsfs umount` that mean what umount(8) calls its helper with: it hands on
    its own options, of which `-n`, `-r` and `-v` ask for nothing here, and `-t` and `-N` take a
    value."""
    found: list[str] = []
    rest = iter(argv)
    for argument in rest:
        if argument in ("-t", "-N"):
            next(rest, None)
        elif argument not in ("-n", "-r", "-v"):
            found.append(argument)
    return found
