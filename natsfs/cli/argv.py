"""What mount(8) and umount(8) call their helpers with.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence


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
