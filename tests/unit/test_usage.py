"""Sums by directory, from the metas alone."""

from __future__ import annotations

from natsfs.store.model import ObjectInfo
from natsfs.upkeep.usage import Usage, usage_by_directory


def an_object(name: str, size: int = 1, *, deleted: bool = False) -> ObjectInfo:
    return ObjectInfo(name, "b", name, size=size, chunks=1 if size else 0, deleted=deleted)


def test_every_directory_above_counts() -> None:
    """R1: an object counts for each directory that it lies in."""
    found = usage_by_directory([an_object("a/b/f", 3), an_object("a/g", 4), an_object("h", 5)])
    assert found == {"": Usage(3, 12, 3), "a/": Usage(2, 7, 2), "a/b/": Usage(1, 3, 1)}


def test_depth() -> None:
    """R1: what lies deeper than is shown counts for what is shown."""
    objects = [an_object("a/b/c/f", 3)]
    assert list(usage_by_directory(objects, depth=0)) == [""]
    assert list(usage_by_directory(objects, depth=2)) == ["", "a/", "a/b/"]
    assert usage_by_directory(objects, depth=2)["a/b/"] == Usage(1, 3, 1)


def test_below_a_directory() -> None:
    """R1: names are relative to the directory that is asked for; an object can be one, too."""
    assert usage_by_directory([an_object("a/b/f", 3)], "a") == {
        "": Usage(1, 3, 1),
        "b/": Usage(1, 3, 1),
    }
    assert usage_by_directory([an_object("a", 3)], "a") == {"": Usage(1, 3, 1)}


def test_markers_and_graves() -> None:
    """N4: what describes a directory shows it and counts for nothing, the deleted does neither."""
    objects = [an_object("a/", 0), an_object("x/f", 9, deleted=True)]
    assert usage_by_directory(objects) == {"": Usage(), "a/": Usage()}


def test_empty_components() -> None:
    """N2: names that no path can spell are summed up all the same."""
    found = usage_by_directory([an_object("/f", 1), an_object("a//g", 2), an_object("a/", 5)])
    assert found == {
        "": Usage(3, 8, 3),
        "/": Usage(1, 1, 1),
        "a/": Usage(2, 7, 2),
        "a//": Usage(1, 2, 1),
    }
