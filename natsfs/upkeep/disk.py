"""What mounts keep in a cache directory, and throwing away what can be fetched again.

Blocks and snapshots of trees can; journals have what nobody else has, and are only looked at.

All of it may be done while mounts use the directory.  Everything here may block for as long as the
disk does, and raises `OSError` when it fails.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from natsfs.data import snapshots
from natsfs.data.runs import all_runs, bucket_directories
from natsfs.data.segments import SegmentFiles, named


@dataclass(frozen=True, slots=True)
class Kept:
    """So many *files*, and what they take."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class JournalRun:
    """The journal of one mount of one bucket, *alive* if its process is.  *bucket*, *source* and
    *mount*, its mount point, are empty where the journal does not tell."""

    bucket: str
    source: str
    mount: str
    pid: int
    alive: bool
    directory: str
    kept: Kept


@dataclass(frozen=True, slots=True)
class Contents:
    """Blocks of versions, snapshots of trees, and the journals."""

    blocks: Kept
    snapshots: Kept
    journals: list[JournalRun] = field(default_factory=list)


class LocalDisk:
    """The cache *directory*; with *identity* what is there of that bucket, as far as blocks are of
    one of its versions *nuids*."""

    def __init__(
        self, directory: Path, identity: str | None = None, nuids: Collection[str] = ()
    ) -> None:
        self._directory = directory
        self._segments = SegmentFiles(directory)
        self._identity = identity
        self._versions = None if identity is None else {named(identity, nuid) for nuid in nuids}

    def contents(self) -> Contents:
        """What is there."""
        return Contents(
            Kept(*self._segments.usage(self._versions)),
            Kept(*snapshots.usage(self._directory, self._identity)),
            [run for parent in bucket_directories(self._directory) for run in self._runs(parent)],
        )

    def clear(self) -> Contents:
        """Remove blocks and snapshots, and say what they were."""
        return Contents(
            Kept(*self._segments.clear(self._versions)),
            Kept(*snapshots.clear(self._directory, self._identity)),
        )

    def _runs(self, parent: Path) -> list[JournalRun]:
        found = []
        for directory, about, alive in all_runs(parent):
            if self._identity is not None and (about is None or about.identity != self._identity):
                continue
            told = (
                (about.bucket, about.source, about.directory, about.pid)
                if about
                else ("", "", "", 0)
            )
            found.append(JournalRun(*told, alive, str(directory), _size(directory)))
        return found


def _size(directory: Path) -> Kept:
    """What the files in *directory* take, some of which may go meanwhile."""
    costs = []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                costs.append(entry.stat(follow_symlinks=False).st_blocks * 512)
            except FileNotFoundError:
                continue
    return Kept(len(costs), sum(costs))
