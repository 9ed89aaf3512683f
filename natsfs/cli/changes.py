"""What happened to objects, told from the metas of a bucket one after the other.

A meta says how an object is and not what was done to it, so the one before it is remembered.  A
rename is told in two halves: a new name for a version that another name has, and the end of that
other name, by a tombstone or, with most clients, a purge.  The first half is therefore held back
until the second comes or is given up.

Pure: events in, changes out; the caller has the clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from natsfs.filesystem.attributes import CLAIM_KEY
from natsfs.store.model import (
    CaughtUp,
    Malformed,
    ObjectInfo,
    Restarted,
    Updated,
    WatchEvent,
)


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """Something that happened.

    *event* is one of "exists", "created", "changed" (other bytes), "metadata", "link", "renamed",
    "deleted" and "gone" (purged or expired, of which no revision tells).  *info* is the newest meta
    of the object, *old_name* what a renamed one was called.
    """

    event: str
    info: ObjectInfo
    old_name: str = ""


class Changes:
    """A bucket's objects as far as they have been heard of."""

    def __init__(self) -> None:
        self._known: dict[str, ObjectInfo] = {}
        self._by_nuid: dict[str, str] = {}
        #: First halves of renames: the subject of the old name, by that of the new one.
        self._half: dict[str, str] = {}
        self._seen: set[str] | None = None
        self._first = True

    @property
    def suspects(self) -> list[str]:
        """The old subjects of what may have been renamed, which have to be asked for."""
        return list(self._half.values())

    def feed(self, event: WatchEvent) -> list[ObjectChange]:
        """What *event* says."""
        match event:
            case Restarted():
                self._seen = set()
            case Malformed():
                self._see(event.subject)
            case Updated(info):
                self._see(info.subject)
                return self._update(info)
            case CaughtUp():
                return self._caught_up()
        return []

    def gone(self, subject: str) -> list[ObjectChange]:
        """There is nothing on *subject* any more, and no tombstone said so."""
        known = self._known.get(subject)
        return [] if known is None else self._end(known, "gone", known)

    def remains(self, subject: str) -> list[ObjectChange]:
        """What has a new name still has the old one, on *subject*: it was not renamed."""
        halves = [new for new, old in self._half.items() if old == subject]
        for new in halves:
            del self._half[new]
        return [ObjectChange("created", self._known[new]) for new in halves]

    def subjects(self) -> list[str]:
        """The subjects of all objects, as they are now."""
        return list(self._known)

    def subject_at(self, revision: int) -> str:
        """The subject whose newest meta is *revision*; empty if none."""
        return next((s for s, info in self._known.items() if info.revision == revision), "")

    # -- inside -----------------------------------------------------------------------------------

    def _see(self, subject: str) -> None:
        if self._seen is not None:
            self._seen.add(subject)

    def _caught_up(self) -> list[ObjectChange]:
        """What a watch that began again did not bring is gone."""
        seen, self._seen, self._first = self._seen or set(), None, False
        return [change for subject in self._known.keys() - seen for change in self.gone(subject)]

    def _update(self, info: ObjectInfo) -> list[ObjectChange]:
        known = self._known.get(info.subject)
        if known is not None and known.revision >= info.revision:
            return []
        if info.deleted:
            # A claim on a name that nothing has is no end of anything.
            ended = known is not None and CLAIM_KEY not in info.metadata
            return self._end(known, "deleted", info) if ended and known is not None else []
        holder = self._by_nuid.get(info.nuid, "") if info.nuid else ""
        self._remember(info, known)
        if self._first:
            return [ObjectChange("exists", info)]
        if known is None and holder not in ("", info.subject):
            self._half[info.subject] = holder
            return []
        return [ObjectChange(_event(known, info), info)]

    def _remember(self, info: ObjectInfo, known: ObjectInfo | None) -> None:
        if known is not None and self._by_nuid.get(known.nuid) == known.subject:
            del self._by_nuid[known.nuid]
        self._known[info.subject] = info
        if info.nuid:
            self._by_nuid[info.nuid] = info.subject

    def _end(self, known: ObjectInfo, event: str, last: ObjectInfo) -> list[ObjectChange]:
        del self._known[known.subject]
        if self._by_nuid.get(known.nuid) == known.subject:
            del self._by_nuid[known.nuid]
        self._half.pop(known.subject, None)
        renamed = next((new for new, old in self._half.items() if old == known.subject), "")
        if renamed:
            del self._half[renamed]
            return [ObjectChange("renamed", self._known[renamed], known.name)]
        return [ObjectChange(event, last)]


def _event(known: ObjectInfo | None, info: ObjectInfo) -> str:
    if info.link is not None and (known is None or known.link != info.link):
        return "link"
    if known is None:
        return "created"
    return "metadata" if known.nuid == info.nuid else "changed"
