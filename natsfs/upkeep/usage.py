"""How much the objects of a bucket are, by directory: summed up from their metas, never read.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from natsfs.store.model import ObjectInfo


@dataclass(slots=True)
class Usage:
    """The *objects* below a directory, the *bytes* and *chunks* of these."""

    objects: int = 0
    bytes: int = 0
    chunks: int = 0

    def add(self, info: ObjectInfo) -> None:
        """Count *info* as well."""
        self.objects += 1
        self.bytes += info.size
        self.chunks += info.chunks


def usage_by_directory(
    objects: Iterable[ObjectInfo], top: str = "", depth: int | None = None
) -> dict[str, Usage]:
    """What lies below *top*, the name of a directory or an object without a slash at its end, and
    below each directory in it down to *depth* levels; None for all.  *objects* are those of *top*.

    The names are relative to *top*, which is the empty one, end in a slash, and are sorted.  A link
    has no bytes of its own, and an object that only describes a directory counts for nothing.
    """
    found: dict[str, Usage] = {"": Usage()}
    skip = len(top) + 1 if top else 0
    for info in objects:
        if info.deleted:
            continue
        *directories, last = info.name[skip:].split("/")
        described = not last and not info.size
        path = ""
        for name in [None, *directories[:depth]]:
            path = path if name is None else f"{path}{name}/"
            usage = found.setdefault(path, Usage())
            if not described:
                usage.add(info)
    return dict(sorted(found.items()))
