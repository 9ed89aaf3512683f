"""Where a mount may differ from a local file system, and by which promise.

Each difference that is let pass is one-sided: something on the mount may be newer than POSIX asks
for, and never older.  Pure.
"""

from __future__ import annotations

from typing import Any

from tests.model.looking import BEFORE, JUST
from tests.model.sides import Operation

#: Operations by which bytes that wait may be committed: those that close a descriptor, as the end
#: of a mapping does, or sync one.
COMMITS = frozenset(
    {
        *("open", "open_again", "close", "fsync", "truncate"),
        *("map_read", "map_write", "map_late", "map_private", "map_beside"),
    }
)


def excused(expected: Any, found: Any, recent: list[Operation], *, several: bool = False) -> Any:
    """The tree *found*, without the differences to *expected* that are excused after the *recent*
    operations; *several* says that the bucket is mounted more than once."""
    if not isinstance(expected, dict) or not isinstance(found, dict):
        return found  # looking failed
    return {
        path: _entry(expected[path], entry, _may_be_newer(path, entry, recent, several=several))
        if path in expected
        else entry
        for path, entry in found.items()
    }


def _entry(expected: dict[str, Any], found: dict[str, Any], may_be_newer: bool) -> dict[str, Any]:
    kept = {**found, "read": expected["read"]}
    if expected["read"]:
        kept["atime"] = expected["atime"]
    if may_be_newer and (expected["ctime"], found["ctime"]) == (BEFORE, JUST):
        kept["ctime"] = BEFORE
    return kept


def _may_be_newer(
    path: str, entry: dict[str, Any], recent: list[Operation], *, several: bool
) -> bool:
    """Whether the ctime of an entry may have moved without a reason that POSIX knows: it is the
    server's timestamp of the newest meta (M3)."""
    kind = entry["mode"][0]
    if kind == "d" and several:
        return True  # another mount stores its mtime, and so its meta, a while after it changed
    if kind == "-" and any(name in COMMITS for name, *_ in recent):
        return True
    # A directory that is moved takes the metas of all that is in it along.
    return path.count("/") > 1 and any(name == "rename" for name, *_ in recent)
