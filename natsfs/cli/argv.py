"""The process's own command line: credentials in it are overwritten before anybody lists it.

`ps` shows every user the arguments of every process, and a mount lives for months.
"""

from __future__ import annotations

import ctypes
import re
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
