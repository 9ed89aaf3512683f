"""The namespace: which path an object gets, and who has to give way."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsfs.store.model import ObjectInfo
from natsfs.store.wire import meta_subject
from natsfs.tree.names import MAX_COMPONENT
from natsfs.tree.namespace import Namespace
from natsfs.tree.nodes import (
    Directory,
    EntryChange,
    Leaf,
    NodeChange,
    walk,
)
from tests.unit.metas import LONG, grave, is_hard, meta, path_of, paths


def applied(metas: Iterable[ObjectInfo]) -> Namespace:
    """A namespace that was given *metas* in this order."""
    namespace = Namespace(is_hard)
    for info in metas:
        namespace.apply(info)
    return namespace


plain = st.lists(
    st.sampled_from(["a", "b", "", ".", "..", "‛", "é", "／", LONG]), min_size=1, max_size=3
)


@given(st.lists(plain.map("/".join).filter(bool), unique=True, max_size=8), st.randoms())
def test_order_of_arrival(found: list[str], order: random.Random) -> None:
    """N1: where no two entries need another name for the same reason, the paths do not depend on
    the order in which a mount heard of the objects, so that every mount shows the same."""
    metas = [meta(name, number) for number, name in enumerate(found, 1)]
    shuffled = order.sample(metas, len(metas))
    assert paths(applied(metas)) == paths(applied(shuffled))


@given(st.permutations(["é", "é/x", "é‛", "a", "a/x", "a‛", "a‛/x", "a‛‛", LONG, LONG + "/x"]))
def test_every_claim_at_once(order: list[str]) -> None:
    """N3: a directory keeps its name against an object, and an object its own against a quoted
    one, whoever came first."""
    shown = paths(applied(meta(name, number) for number, name in enumerate(order, 1)))
    for name in ("é/x", "é‛", "a/x", "a‛/x"):
        assert shown[name] == name.encode()
    assert shown["é"].startswith("é‛".encode())
    assert len(set(shown.values())) == len(order)


def test_objects_beside_directories() -> None:
    """N3: an object beside a directory is shown next to it, and gets its name back from it."""
    namespace = applied([meta("a", 1), meta("a/b", 2)])
    assert paths(namespace) == {"a": "a‛".encode(), "a/b": b"a/b"}
    changes = namespace.apply(grave(meta("a/b"), 3))
    directory = namespace.root.children[b"a"]
    assert changes == [EntryChange(directory, b"b", gone=changes[0].gone)]  # type: ignore[arg-type, union-attr]
    assert paths(namespace) == {"a": "a‛".encode()}
    changes = namespace.detach(directory)
    assert set(changes) == {
        EntryChange(namespace.root, "a‛".encode()),
        EntryChange(namespace.root, b"a"),
    }
    assert paths(namespace) == {"a": b"a"}


def test_markers() -> None:
    """N5: a marker makes a directory; with its deletion that goes as soon as it is empty."""
    namespace = applied([meta("d/", 1), meta("d/f", 2)])
    directory = namespace.root.children[b"d"]
    assert namespace.find(meta_subject("b", "d/")) is directory
    assert namespace.apply(grave(meta("d/"), 3)) == [NodeChange(directory)]
    assert path_of(directory) == b"d"
    changes = namespace.apply(grave(meta("d/f"), 4))
    assert changes[-1] == EntryChange(namespace.root, b"d", directory)
    assert namespace.root.children == {}


def test_implied_directories() -> None:
    """N5: a directory that was never marked stays when its last file goes."""
    namespace = applied([meta("d/f", 1)])
    namespace.apply(grave(meta("d/f"), 2))
    assert list(namespace.root.children) == [b"d"]
    namespace.apply(meta("d/", 3))
    directory = namespace.root.children[b"d"]
    assert namespace.apply(grave(meta("d/"), 4)) == [EntryChange(namespace.root, b"d", directory)]
    assert namespace.root.children == {}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("d/", "d/／"),
        ("/", "／/／"),
        ("d//", "d/／/／"),
        ("./", "．/／"),
        ("../x", "．．/x"),
    ],
)
def test_content_under_a_markers_name(name: str, path: str) -> None:
    """N2: an object with content whose name ends in a slash is a file, and not hidden."""
    assert paths(applied([meta(name, size=1)])) == {name: path.encode()}


def test_root_marker() -> None:
    """N5: the marker of the bucket's own directory is "./"."""
    namespace = applied([meta("./", 3)])
    assert namespace.root.marker == meta("./", 3)
    assert namespace.resolve("./") is namespace.root
    namespace.apply(grave(meta("./"), 4))
    assert namespace.root.marker is None


def test_object_that_a_prefix_hides_is_resolved() -> None:
    """K2: a name that is an object's and a prefix means the object; with a slash, the directory."""
    namespace = applied([meta("a", 1), meta("a/b", 2), meta("a/", 3)])
    assert namespace.resolve("a") is namespace.find(meta_subject("b", "a"))
    assert namespace.resolve("a/") is namespace.find(meta_subject("b", "a/"))
    assert namespace.resolve("a/c") is None
    assert namespace.resolve("a/b/c") is None


def test_long_components_share_a_prefix() -> None:
    """N4: long names are shown short, unique, and the same in every mount."""
    metas = [meta(f"{LONG}{end}/{leaf}", 1) for end in "12" for leaf in "ab"]
    namespace = applied(metas)
    assert len(namespace.root.children) == 2
    assert all(len(name) <= MAX_COMPONENT for name in namespace.root.children)
    assert paths(namespace) == paths(applied(reversed(metas)))


def test_placed_where_somebody_came_back() -> None:
    """N3: a directory that is renamed onto another takes its name from an object that was hidden
    by that one, too."""
    namespace = applied([meta("a", 1), meta("a/", 2), meta("d/", 3)])
    replaced, moved = namespace.root.children[b"a"], namespace.root.children[b"d"]
    assert isinstance(replaced, Directory)
    namespace.retire(replaced)
    assert paths(namespace)["a"] == b"a"
    namespace.detach(moved)
    changes = namespace.place(moved, namespace.root, b"a")
    assert changes == [EntryChange(namespace.root, "a‛".encode())]
    assert paths(namespace) == {"a": "a‛".encode(), "d/": b"a"}


def test_deep_names() -> None:
    """N1: names of ten thousand components are no problem."""
    name = "/".join(["d"] * 10_000)
    namespace = applied([meta(name, 1, subject="d"), meta(name + "/e", 2, subject="e")])
    assert sum(1 for _ in walk(namespace.root)) == 10_002
    leaf = namespace.resolve(name + "/e")
    assert isinstance(leaf, Leaf)
    assert leaf.object_name == name + "/e"
    assert leaf.parent is not None
    assert len(leaf.parent.prefix) == 2 * 10_000
    assert leaf.parent.within(namespace.root)
    namespace.vanish("e")
    assert namespace.resolve(name + "/e") is None


def seconds_for(count: int) -> float:
    """Processor time to fill, list and empty one directory of *count* files and directories."""
    metas = [meta(f"d/entry {number}{'/x' * (number % 2)}", number + 1) for number in range(count)]
    namespace = Namespace(is_hard)
    started = time.process_time()
    for info in metas:
        namespace.apply(info)
    assert sum(1 for _ in walk(namespace.root)) == 1 + count + count // 2
    for info in metas:
        assert namespace.resolve(info.name) is not None
        namespace.apply(grave(info, info.revision + count))
    return time.process_time() - started


def test_large_directory() -> None:
    """A1: a directory of 100,000 entries takes seconds; each costs what it does in a small one."""
    small = min(seconds_for(5_000) for _ in range(3))
    large = seconds_for(100_000)
    assert large < 20.0
    assert large / 20 < 4 * small


def test_deep_paths_cost_what_they_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """N1: a path of thousands of directories is not spelled out for each of them."""
    spelled = 0
    prefix: property = vars(Directory)["prefix"]

    def counted(directory: Directory) -> str:
        nonlocal spelled
        spelled += 1
        return str(prefix.__get__(directory))

    monkeypatch.setattr(Directory, "prefix", property(counted))
    namespace = Namespace()
    namespace.apply(meta("d/" * 3000 + "x", 1, subject="$O.b.M.deep"))
    assert len(namespace) == 1
    assert spelled < 10
