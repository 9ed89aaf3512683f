"""Whether a bucket that is told again still has the history that was known of it.

A server that lost the last minutes of its disk, or was restored from a backup, comes back with the
same bucket in an earlier state.  Revisions are given again then: one that was known means something
else, or nothing.  What is told cannot be put in order with what was known any more, so nothing of
that counts.

A single message that was deleted from under a newer one, or a commit of this mount that the server
acknowledged and lost, is no reason for that: the leader is asked for such a subject.

Pure and synchronous.
"""

from __future__ import annotations

from natsfs.filesystem.state import Mounted
from natsfs.store.model import ObjectInfo
from natsfs.tree.nodes import info_of


class History:
    """Compares what is told with what was known."""

    def __init__(self, mounted: Mounted) -> None:
        self._m = mounted
        self._reached = 0
        self._contradicted = False
        #: Subjects of which something older was told than is known.
        self._older: set[str] = set()

    def begin(self, reached: int) -> None:
        """Everything is about to be told again.  The watch had come to the revision *reached*."""
        self._reached = reached
        self._contradicted = False
        self._older.clear()

    def note(self, info: ObjectInfo) -> None:
        """*info* is told, and not taken in yet."""
        known = self._m.namespace.last_revision(info.subject)
        if info.revision < known:
            self._older.add(info.subject)
            return
        self._older.discard(info.subject)
        if info.revision == known and not self._is_known(info):
            self._contradicted = True

    def is_another(self, revision: int) -> bool:
        """Everything up to *revision* was told: whether the bucket was set back meanwhile."""
        return self._contradicted or revision < self._reached

    def doubtful(self, revision: int) -> set[str]:
        """Subjects to ask the leader for, when everything up to *revision* was told."""
        last, unconfirmed = self._m.namespace.last_revision, self._m.unconfirmed.subjects()
        older, self._older = self._older, set()
        return older | {subject for subject in unconfirmed if last(subject) > revision}

    def _is_known(self, info: ObjectInfo) -> bool:
        """Whether the meta that is known with the revision of *info* is *info*."""
        namespace = self._m.namespace
        if namespace.index.is_packed(info):
            return True
        known = info_of(namespace.find(info.subject))
        if known is None:
            return info.deleted  # Of a tombstone nothing but the revision is kept.
        same_time = known.time_ns == info.time_ns or info.subject in self._m.unconfirmed
        return known.nuid == info.nuid and same_time and not info.deleted
