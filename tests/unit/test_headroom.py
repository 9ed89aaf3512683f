"""What the process does with memory that it has freed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

#: Frees pieces as large as the kernel's requests, many times, and prints how many pages that took.
PROGRAM = """
import resource
from natsfs.headroom import keep_what_is_freed

def turn():
    kept = [bytes(bytearray(b"x") * (1 << 20)) for _ in range(8)]
    del kept

{first}
turn()
turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    turn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_what_is_freed_is_used_again() -> None:
    """W4: a mount that is written to does not get its pages from the kernel anew for each MiB."""
    plain, keeping = (
        int(subprocess.check_output([sys.executable, "-c", PROGRAM.format(first=first)]))
        for first in ("", "keep_what_is_freed()")
    )
    assert plain > 1000
    assert keeping < 100
