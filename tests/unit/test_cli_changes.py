"""What happened, told from metas: without a server."""

from __future__ import annotations

from dataclasses import replace

from natsfs.cli.changes import Changes, ObjectChange
from natsfs.filesystem.attributes import CLAIM_KEY
from natsfs.store.base import tombstone
from natsfs.store.model import CaughtUp, Link, ObjectInfo, Restarted, Updated


def meta(name: str, revision: int, nuid: str = "") -> ObjectInfo:
    return ObjectInfo(name, "b", f"M.{name}", nuid or f"nuid-{name}", revision=revision)


def grave(info: ObjectInfo, revision: int) -> ObjectInfo:
    return replace(tombstone(info), revision=revision)


def begun(*infos: ObjectInfo) -> Changes:
    changes = Changes()
    changes.feed(Restarted(1))
    for info in infos:
        assert changes.feed(Updated(info)) == [ObjectChange("exists", info)]
    assert changes.feed(CaughtUp(9)) == []
    return changes


def test_kinds() -> None:
    """A1: new objects, other bytes, other metadata, links and ends are told apart."""
    changes = begun()
    made = meta("f", 10)
    assert changes.feed(Updated(made)) == [ObjectChange("created", made)]
    other = replace(made, revision=11, nuid="other")
    assert changes.feed(Updated(other)) == [ObjectChange("changed", other)]
    described = replace(other, revision=12, description="new")
    assert changes.feed(Updated(described)) == [ObjectChange("metadata", described)]
    link = replace(meta("l", 13), link=Link("b", "f"))
    assert changes.feed(Updated(link)) == [ObjectChange("link", link)]
    moved = replace(link, revision=14, link=Link("b", "g"))
    assert changes.feed(Updated(moved)) == [ObjectChange("link", moved)]
    end = grave(described, 15)
    assert changes.feed(Updated(end)) == [ObjectChange("deleted", end)]
    assert changes.feed(Updated(made)) == [ObjectChange("created", made)]


def test_old_news() -> None:
    """A1: what a watch that began again brings once more is no change."""
    made = meta("f", 1)
    changes = begun(made)
    changes.feed(Restarted(1))
    assert changes.feed(Updated(made)) == []
    assert changes.feed(CaughtUp(9)) == []


def test_renames() -> None:
    """A1: both halves make one change, whether the old name ends by a tombstone or a purge."""
    old = meta("f", 1)
    new = meta("g", 10, old.nuid)
    changes = begun(old)
    assert changes.feed(Updated(new)) == []
    assert changes.suspects == [old.subject]
    assert changes.feed(Updated(grave(old, 11))) == [ObjectChange("renamed", new, "f")]
    third = meta("h", 12, old.nuid)
    assert changes.feed(Updated(third)) == []
    assert changes.gone(new.subject) == [ObjectChange("renamed", third, "g")]
    assert changes.suspects == []


def test_copies() -> None:
    """A1: what keeps its old name was not renamed."""
    old = meta("f", 1)
    new = meta("g", 10, old.nuid)
    changes = begun(old)
    changes.feed(Updated(new))
    assert changes.remains(old.subject) == [ObjectChange("created", new)]
    assert changes.feed(Updated(grave(old, 11)))[0].event == "deleted"


def test_claims() -> None:
    """A3: a claim on a free name, and a tombstone of what nobody knew, are no deletes."""
    changes = begun()
    claim = replace(meta("f", 10), deleted=True, metadata={CLAIM_KEY: "mount"})
    assert changes.feed(Updated(claim)) == []
    assert changes.feed(Updated(grave(meta("g", 1), 11))) == []
    made = meta("f", 12)
    assert changes.feed(Updated(made)) == [ObjectChange("created", made)]


def test_what_a_new_watch_leaves_out() -> None:
    """A5: what went while the connection was lost is told when the watch has caught up."""
    gone, kept = meta("f", 1), meta("g", 2)
    changes = begun(gone, kept)
    changes.feed(Restarted(1))
    changes.feed(Updated(kept))
    assert changes.feed(CaughtUp(9)) == [ObjectChange("gone", gone)]
    assert changes.gone(gone.subject) == []
    assert changes.subject_at(2) == kept.subject
    assert changes.subject_at(3) == ""
    assert changes.subjects() == [kept.subject]
