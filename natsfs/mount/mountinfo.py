"""What the kernel's table says of mounts: to ask our own would be to wait for ourselves."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Mount(NamedTuple):
    """One line: the mount's *number* in this namespace, and MAJOR:MINOR of what is mounted."""

    number: str
    device: str


def mounts_on(directory: Path) -> list[Mount]:
    """What is mounted on *directory*, that which can be seen last."""
    spelled = "".join(_octal(character) for character in str(directory))
    lines = (line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return [Mount(fields[0], fields[2]) for fields in lines if fields[4] == spelled]


def _octal(character: str) -> str:
    return f"\\{ord(character):03o}" if character in " \t\n\\" else character
