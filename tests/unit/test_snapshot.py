"""Snapshots of a tree: what comes back is what was there, or nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natsfs.store.model import ObjectInfo
from natsfs.tree.namespace import Namespace
from natsfs.tree.nodes import Directory, info_of
from natsfs.tree.snapshot import MAX_DEPTH, Damaged, Summary, TooDeep, render, restore
from tests.unit.metas import grave, hard_link, is_hard, meta
from tests.unit.test_namespace_random import check_tree, names, shown


def again(namespace: Namespace, revision: int = 10**6) -> tuple[Namespace, Summary]:
    """What the next mount knows, and the summary of that."""
    found = Namespace(is_hard)
    return found, restore(found, b"".join(render(namespace, revision)))


@given(
    st.lists(st.tuples(names, st.sampled_from(["", "", "", "#2", "link", "grave"])), max_size=20),
    st.data(),
)
@settings(max_examples=300)
def test_what_comes_back(wanted: list[tuple[str, str]], data: st.DataObject) -> None:
    """N1, N3: every object has the path that it had, whatever was looked at and what was not."""
    namespace = Namespace(is_hard)
    known: dict[str, ObjectInfo] = {}
    for number, (name, kind) in enumerate(wanted, 1):
        info = meta(name, number, size=number % 2)
        if kind == "#2":
            info = replace(info, subject=info.subject + kind)
        elif kind == "link":
            info = hard_link(name, wanted[0][0], number)
        elif kind == "grave":
            info = grave(info, number)
        known[info.subject] = info
        namespace.apply(info)
    for subject in data.draw(st.lists(st.sampled_from(sorted(known)))) if known else ():
        namespace.find(subject)
    found, summary = again(namespace)
    live = [info for info in known.values() if not info.deleted]
    assert len(found) == len(live)
    assert {info.subject: info for info in found.index.infos()} == {i.subject: i for i in live}
    for subject, info in known.items():
        assert found.last_revision(subject) == info.revision
    assert summary.metas == len(known)
    newest = sorted(((i.revision, i.subject, i.time_ns) for i in live), reverse=True)
    assert [tuple(entry) for entry in summary.newest] == newest
    # Not quite what there was: directories whose last object went are gone with the mount (N5).
    fresh = Namespace(is_hard)
    for info in sorted(live, key=lambda info: info.revision):
        fresh.apply(info)
    assert shown(found) == shown(fresh)
    check_tree(found, live)


def test_it_is_of_a_revision() -> None:
    """What is newer than the snapshot comes again and is not counted."""
    namespace = Namespace(is_hard)
    for number in range(1, 11):
        namespace.apply(meta(f"d/{number}", number))
    namespace.apply(grave(meta("e", 1), 11))
    _, summary = again(namespace, 4)
    assert summary.metas == 4
    assert summary.newest[0][0] == 4
    assert again(namespace, 11)[1].metas == 11


def test_times_of_directories() -> None:
    """M2: directories keep the time of their last change."""
    namespace = Namespace(is_hard)
    namespace.apply(meta("d/a", 1))
    namespace.apply(meta("d/b", 2))
    namespace.apply(grave(meta("d/b", 2), 3))
    found, _ = again(namespace)
    for tree in (namespace, found):
        directory = tree.root.children[b"d"]
        assert isinstance(directory, Directory)
        assert directory.changed == (3, 3000)
        assert info_of(directory) is None


def test_changes_between_two_steps() -> None:
    """What moves while a snapshot is rendered is never there twice."""
    namespace = Namespace(is_hard)
    for number, name in enumerate(["a/1", "b/1", "c/1"], 1):
        namespace.apply(meta(name, number))
    pieces = render(namespace, 3)
    begun = [next(pieces), next(pieces)]
    moved = replace(meta("b/2", 4), nuid="nuid3")
    namespace.apply(moved)
    namespace.apply(grave(meta("c/1", 3), 5))
    data = b"".join([*begun, *pieces])
    found = Namespace(is_hard)
    summary = restore(found, data)
    assert summary.revision == 3
    assert found.resolve("b/2") is not None


@pytest.mark.parametrize("cut", [0, 1, 3, 10, -1])
def test_damage(cut: int) -> None:
    """Bytes that are no snapshot are told from one."""
    namespace = Namespace(is_hard)
    namespace.apply(meta("d/a", 1))
    data = b"".join(render(namespace, 1))[:cut]
    with pytest.raises(Damaged):
        restore(Namespace(is_hard), data)


def test_entries_that_are_there_twice() -> None:
    """A directory that comes twice is no tree."""
    namespace = Namespace(is_hard)
    namespace.apply(meta("d/a", 1))
    pieces = list(render(namespace, 1))
    with pytest.raises(Damaged):
        restore(Namespace(is_hard), b"".join([*pieces[:-1], *pieces]))


def test_too_deep() -> None:
    """A6: a tree whose snapshot would be nothing but paths has none."""
    namespace = Namespace(is_hard)
    namespace.apply(meta("d/" * MAX_DEPTH + "x", 1))
    assert b"".join(render(namespace, 1))
    namespace.apply(meta("d/" * (MAX_DEPTH + 1) + "x", 2))
    with pytest.raises(TooDeep):
        list(render(namespace, 2))
