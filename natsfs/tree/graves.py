"""Tombstones: which subjects had an object, and the revision that says it is gone.

Pure and synchronous.
"""

from __future__ import annotations

from collections.abc import Set

from natsfs.store.model import ObjectInfo


class Graves:
    """Revisions of tombstones by subject: a compare-and-set that re-creates one must state it."""

    def __init__(self) -> None:
        self._revisions: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._revisions)

    def __contains__(self, subject: str) -> bool:
        return subject in self._revisions

    def revision(self, subject: str) -> int:
        """The revision of the tombstone on *subject*, 0 if there is none."""
        return self._revisions.get(subject, 0)

    def revisions(self) -> dict[str, int]:
        """All of them, as they are now."""
        return dict(self._revisions)

    def put(self, subject: str, revision: int) -> None:
        """There is a tombstone of this *revision* on *subject*."""
        self._revisions[subject] = revision

    def add(self, grave: ObjectInfo) -> None:
        """*grave* is the newest meta of its subject."""
        self._revisions[grave.subject] = grave.revision

    def discard(self, subject: str) -> None:
        """There is no tombstone on *subject* any more, if there was."""
        self._revisions.pop(subject, None)

    def keep(self, subjects: Set[str], revision: int) -> None:
        """Up to *revision* the bucket holds tombstones on *subjects* and nowhere else."""
        gone = [s for s, r in self._revisions.items() if r <= revision and s not in subjects]
        for subject in gone:
            del self._revisions[subject]

    def clear(self) -> None:
        """The bucket is another one: tombstones and their revisions mean nothing any more."""
        self._revisions.clear()
