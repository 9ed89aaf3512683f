"""The namespace: every object has one path, and whoever obeys its changes knows the tree.

`Trial` feeds a namespace with metas of a hostile alphabet, in any order, mixed with what this mount
does itself.  Beside it stands a model of two things: the newest meta of each subject, and a kernel
that has looked up every name there is, believes it for ever, and forgets what it is told to forget.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from natsfs.store.model import ObjectInfo
from natsfs.store.wire import meta_subject
from natsfs.tree.names import MAX_COMPONENT, encode_component
from natsfs.tree.namespace import Namespace
from natsfs.tree.nodes import (
    ROOT_MARKER,
    Change,
    Directory,
    EntryChange,
    Hardlink,
    Leaf,
    Node,
    NodeChange,
    component_text,
    info_of,
    is_displaced,
    walk,
)
from tests.unit.metas import LONG, everything, grave, hard_link, is_hard, meta, path_of

COMPONENTS = ["a", "b", "a‛", "", ".", "..", "‛", "é", "é‛", "‛C3‛A9", "／", LONG]
#: Names that programs create, as the kernel passes them.
CREATED = [b"a", b"b", b"c", "a‛".encode(), "é".encode(), "é‛".encode(), "．".encode()]

names = st.lists(st.sampled_from(COMPONENTS), min_size=1, max_size=3).map("/".join).filter(bool)


def check_directory(directory: Directory) -> None:
    """The bookkeeping of one directory agrees with its entries."""
    for name, child in directory.children.items():
        assert child.parent is directory
        assert child.name == name
        assert 0 < len(name) <= MAX_COMPONENT
        assert name not in (b".", b"..")
        assert not set(b"/\0") & set(name)
        if not is_displaced(child):
            assert name == encode_component(component_text(child))
    kinds = [isinstance(child, Directory) for child in directory.children.values()]
    assert directory.subdirectories == sum(kinds)
    for component, waiting in directory.displaced.items():
        assert waiting
        assert len(set(waiting)) == len(waiting)
        for node in waiting:
            assert directory.children.get(node.name) is node
            assert node.name != component
            assert encode_component(component_text(node)) == component


def check_object(namespace: Namespace, info: ObjectInfo) -> None:
    """The object *info* is in the tree, once, and found by its name."""
    node = namespace.find(info.subject)
    assert node is not None
    assert info_of(node) == info
    found = namespace.resolve(info.name)
    assert found is not None
    if isinstance(found, Leaf):
        assert found.object_name == info.name
    else:
        found_info = info_of(found)
        assert found_info is not None
        assert found_info.name == info.name


def check_tree(namespace: Namespace, live: Iterable[ObjectInfo]) -> None:
    """N1: the tree shows the objects *live*, each once, and nothing else."""
    live = list(live)
    nodes = everything(namespace)
    assert len(set(nodes)) == len(nodes)
    for node in nodes:
        if isinstance(node, Directory):
            check_directory(node)
    shown = [info.subject for node in nodes if (info := info_of(node)) is not None]
    assert sorted(shown) == sorted(info.subject for info in live)
    assert sorted(namespace.subjects()) == sorted(shown)
    assert len(namespace) == len(shown)
    for info in live:
        check_object(namespace, info)


class Kernel:
    """What a kernel knows that looked everything up before a change."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._names = self._look_up()
        self._attributes = self._stat()

    def check(self, changes: Sequence[Change], *, own: Iterable[EntryChange] = ()) -> None:
        """A1: what is different now is in *changes*, or the kernel did it (*own*)."""
        entries = [change for change in changes if isinstance(change, EntryChange)]
        told = {(change.parent, change.name) for change in (*entries, *own)}
        now = self._look_up()
        for key in self._names.keys() | now.keys():
            if key not in told and key[0] in self._attributes:
                assert self._names.get(key) is now.get(key), f"{key} changed untold"
        self._check_nodes(changes)
        assert all(change.gone is None or change.gone.parent is None for change in entries)

    def _check_nodes(self, changes: Sequence[Change]) -> None:
        told = {change.node for change in changes if isinstance(change, NodeChange)}
        for node, seen in self._stat().items():
            before = self._attributes.get(node)
            if before is not None and before != seen:
                assert node in told, f"{node} changed untold"

    def _look_up(self) -> dict[tuple[Directory, bytes], Node]:
        return {
            (directory, name): self._namespace.primary(child)
            for directory in everything(self._namespace)
            if isinstance(directory, Directory)
            for name, child in directory.children.items()
        }

    def _stat(self) -> dict[Node, tuple[int, int]]:
        found: dict[Node, tuple[int, int]] = {}
        for node in everything(self._namespace):
            info = info_of(node)
            if self._namespace.primary(node) is node:
                found[node] = (info.revision if info else 0, self._links(node))
        return found

    def _links(self, node: Node) -> int:
        if not isinstance(node, Leaf) or isinstance(node, Hardlink):
            return 0
        return len(self._namespace.links_to(node))


class Trial(RuleBasedStateMachine):
    """A bucket, a namespace that hears of it, and a mount that changes both."""

    def __init__(self) -> None:
        super().__init__()
        self.namespace = Namespace(is_hard)
        #: The newest meta that the namespace was given on each subject, tombstones included.
        self.known: dict[str, ObjectInfo] = {}
        self.history: list[ObjectInfo] = []
        self.revision = 0

    def stamp(self) -> int:
        self.revision += 1
        return self.revision

    def apply(self, info: ObjectInfo) -> None:
        """The watch delivers *info*."""
        kernel = Kernel(self.namespace)
        known = self.known.get(info.subject)
        news = known is None or known.revision < info.revision
        changes = self.namespace.apply(info)
        if news:
            self.known[info.subject] = info
            self.history.append(info)
        else:
            assert changes == []
        kernel.check(changes)

    def live(self) -> list[ObjectInfo]:
        return [info for info in self.known.values() if not info.deleted]

    def leaves(self, *, committed: bool) -> list[Leaf]:
        return [
            node
            for node in walk(self.namespace.root)
            if isinstance(node, Leaf)
            and not isinstance(node, Hardlink)
            and (node.info is not None) is committed
            and not self.namespace.links_to(node)
        ]

    def directories(self) -> list[Directory]:
        return [node for node in everything(self.namespace) if isinstance(node, Directory)]

    # -- what the bucket says ---------------------------------------------------------------------

    @rule(name=names, size=st.sampled_from([0, 0, 7]))
    def foreign_put(self, name: str, size: int) -> None:
        self.apply(meta(name, self.stamp(), size=size))

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def foreign_delete(self, data: st.DataObject) -> None:
        self.apply(grave(data.draw(st.sampled_from(self.live())), self.stamp()))

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def foreign_metadata(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(self.live()))
        self.apply(replace(old, revision=self.stamp(), description="new"))

    @rule(name=names, other=names)
    def metas_out_of_order(self, name: str, other: str) -> None:
        early, late = self.stamp(), self.stamp()
        self.apply(meta(other, late, size=1))
        self.apply(meta(name, early))

    @precondition(lambda self: self.history)
    @rule(data=st.data())
    def stale_meta(self, data: st.DataObject) -> None:
        info = data.draw(st.sampled_from(self.history))
        if info.subject in self.known:
            self.apply(info)

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        subject = data.draw(st.sampled_from(self.live())).subject
        kernel = Kernel(self.namespace)
        changes = self.namespace.vanish(subject)
        del self.known[subject]
        self.history = [info for info in self.history if info.subject != subject]
        kernel.check(changes)

    # -- what this mount does ---------------------------------------------------------------------

    @rule(data=st.data(), name=st.sampled_from(CREATED))
    def create(self, data: st.DataObject, name: bytes) -> None:
        directory = data.draw(st.sampled_from(self.directories()))
        if name not in directory.children and not self.namespace.has_links:
            self.namespace.place(Leaf(None, b"", None), directory, name)

    @precondition(lambda self: self.leaves(committed=False))
    @rule(data=st.data(), size=st.integers(0, 3))
    def commit(self, data: st.DataObject, size: int) -> None:
        leaf = data.draw(st.sampled_from(self.leaves(committed=False)))
        name = leaf.object_name
        info = meta(name, self.stamp(), size=size)
        if self.namespace.find(info.subject) is not None:
            return
        self.namespace.confirm(leaf, info)
        self.known[info.subject] = info
        self.apply(info)

    @rule(data=st.data(), name=st.sampled_from(CREATED))
    def mkdir(self, data: st.DataObject, name: bytes) -> None:
        parent = data.draw(st.sampled_from(self.directories()))
        marker = parent.child_name(name) + "/"
        info = meta(marker, self.stamp())
        if name in parent.children or marker == ROOT_MARKER or self.namespace.find(info.subject):
            return
        child = Directory(None, b"", "")
        self.namespace.confirm(child, info)
        self.namespace.place(child, parent, name)
        self.known[info.subject] = info
        self.apply(info)

    @precondition(lambda self: self.leaves(committed=True))
    @rule(data=st.data())
    def unlink(self, data: st.DataObject) -> None:
        leaf = data.draw(st.sampled_from(self.leaves(committed=True)))
        assert leaf.info is not None
        assert leaf.parent is not None
        kernel = Kernel(self.namespace)
        own = EntryChange(leaf.parent, leaf.name)
        tombstone = grave(leaf.info, self.stamp())
        self.namespace.bury(tombstone)
        changes = self.namespace.detach(leaf)
        self.known[tombstone.subject] = tombstone
        kernel.check(changes, own=[own])
        self.apply(tombstone)

    @rule(data=st.data())
    def rmdir(self, data: st.DataObject) -> None:
        directory = data.draw(st.sampled_from(self.directories()))
        if directory.parent is None or directory.children:
            return
        kernel = Kernel(self.namespace)
        own = EntryChange(directory.parent, directory.name)
        if directory.marker is not None:
            tombstone = grave(directory.marker, self.stamp())
            self.namespace.bury(tombstone)
            self.known[tombstone.subject] = tombstone
        kernel.check(self.namespace.retire(directory), own=[own])

    @precondition(lambda self: self.leaves(committed=True))
    @rule(data=st.data(), name=st.sampled_from(CREATED))
    def rename(self, data: st.DataObject, name: bytes) -> None:
        leaf = data.draw(st.sampled_from(self.leaves(committed=True)))
        directory = data.draw(st.sampled_from(self.directories()))
        target = directory.child_name(name)
        subject = meta_subject("b", target)
        taken = name in directory.children or self.namespace.find(subject) is not None
        if taken or self.namespace.has_links:
            return
        assert leaf.info is not None
        assert leaf.parent is not None
        kernel = Kernel(self.namespace)
        own = [EntryChange(leaf.parent, leaf.name), EntryChange(directory, name)]
        arrived = replace(leaf.info, name=target, subject=subject, revision=self.stamp())
        departed = grave(leaf.info, self.stamp())
        changes = self.namespace.detach(leaf)
        if name in directory.children:  # what was displaced has it now
            self.namespace.place(leaf, directory, b"free")
            arrived = replace(arrived, name=directory.child_name(b"free"))
            own.append(EntryChange(directory, b"free"))
        else:
            self.namespace.place(leaf, directory, name)
        self.namespace.confirm(leaf, arrived)
        self.namespace.bury(departed)
        self.known |= {arrived.subject: arrived, departed.subject: departed}
        kernel.check([*changes, NodeChange(leaf)], own=own)
        self.apply(departed)
        self.apply(arrived)

    @precondition(lambda self: self.leaves(committed=True))
    @rule(data=st.data(), size=st.integers(1, 3))
    def foreign_put_on_an_open_file(self, data: st.DataObject, size: int) -> None:
        leaf = data.draw(st.sampled_from(self.leaves(committed=True)))
        assert leaf.info is not None
        seen = leaf.info
        self.namespace.supersede(leaf)
        assert leaf.parent is None
        assert leaf.info == seen
        stamp = self.stamp()
        info = replace(seen, revision=stamp, nuid=f"nuid{stamp}", size=size)
        changes = self.namespace.apply(info)
        assert any(isinstance(change, EntryChange) for change in changes)
        self.known[info.subject] = info
        assert self.namespace.find(info.subject) is not leaf

    # -- what must hold ---------------------------------------------------------------------------

    @invariant()
    def tree_shows_the_bucket(self) -> None:
        check_tree(self.namespace, self.live())
        for subject, info in self.known.items():
            assert self.namespace.last_revision(subject) == info.revision


class Twins(Trial):
    """Two subjects may hold metas of one name, because clients encode names differently."""

    @rule(name=names, size=st.sampled_from([0, 7]))
    def foreign_put_under_another_subject(self, name: str, size: int) -> None:
        self.apply(meta(name, self.stamp(), size=size, subject=meta_subject("b", name) + "#2"))

    @rule(name=names, other=names)
    def foreign_name_moves_on_its_subject(self, name: str, other: str) -> None:
        self.apply(meta(name, self.stamp(), subject=meta_subject("b", other)))


class Links(Trial):
    """Files may have several names, or be deleted while they have bytes that nobody else has.

    What a mount does to files with several names is proved in tests/fs, where its locks are.
    """

    @rule(name=names, primary=names)
    def foreign_hard_link(self, name: str, primary: str) -> None:
        if not self.leaves(committed=False):
            self.apply(hard_link(name, primary, self.stamp()))

    @precondition(lambda self: self.leaves(committed=True))
    @rule(data=st.data(), tombstone=st.booleans())
    def foreign_delete_of_a_dirty_file(self, data: st.DataObject, tombstone: bool) -> None:
        leaf = data.draw(st.sampled_from(self.leaves(committed=True)))
        if self.namespace.has_links:
            return
        assert leaf.info is not None
        where, subject = path_of(leaf), leaf.info.subject
        departed = grave(leaf.info, self.stamp()) if tombstone else None
        self.namespace.unset(leaf, departed)
        assert path_of(leaf) == where
        if departed is None:
            del self.known[subject]
            self.history = [info for info in self.history if info.subject != subject]
        else:
            self.known[subject] = departed
            self.apply(departed)


class Unseen(Twins):
    """Nobody looks at the tree between changes, so that most of it stays packed."""

    def apply(self, info: ObjectInfo) -> None:
        known = self.known.get(info.subject)
        changes = self.namespace.apply(info)
        if known is None or known.revision < info.revision:
            self.known[info.subject] = info
            self.history.append(info)
        else:
            assert changes == []

    @rule(name=names, size=st.sampled_from([0, 7]))
    def loaded(self, name: str, size: int) -> None:
        info = meta(name, self.stamp(), size=size)
        if self.namespace.load(info):
            self.known[info.subject] = info
            self.history.append(info)
        else:
            self.apply(info)

    @rule(name=names, size=st.sampled_from([0, 7]))
    def foreign_copy_of_a_version(self, name: str, size: int) -> None:
        versions = [info.nuid for info in self.history if info.nuid]
        if versions:
            self.apply(replace(meta(name, self.stamp(), size=size), nuid=versions[0]))

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def versions_are_found(self, data: st.DataObject) -> None:
        nuid = data.draw(st.sampled_from(self.live())).nuid
        wanted = {info.subject for info in self.live() if info.nuid == nuid}
        assert set(self.namespace.subjects_with(nuid)) == wanted

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def revisions_are_found(self, data: st.DataObject) -> None:
        info = data.draw(st.sampled_from(self.live()))
        assert self.namespace.index.subjects_at({info.revision}) == {info.subject}

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def subjects_are_found(self, data: st.DataObject) -> None:
        info = data.draw(st.sampled_from(self.live()))
        assert info_of(self.namespace.find(info.subject)) == info

    @invariant()
    def tree_shows_the_bucket(self) -> None:
        live = {info.subject: info for info in self.live()}
        assert {info.subject: info for info in self.namespace.index.infos()} == live
        assert sorted(self.namespace.subjects()) == sorted(live)
        assert len(self.namespace) == len(live)
        for subject, info in self.known.items():
            assert self.namespace.last_revision(subject) == info.revision

    def teardown(self) -> None:
        check_tree(self.namespace, self.live())


@pytest.mark.parametrize("machine", [Twins, Links, Unseen])
def test_random_changes(machine: type[Trial]) -> None:
    """N1: after any changes in any order each object has one path, and the kernel was told."""
    run_state_machine_as_test(
        machine, settings=settings(max_examples=100, stateful_step_count=25, deadline=None)
    )


def test_loading_beside_a_directory_without_a_name() -> None:
    """N2: what a bucket holds at its top is not taken for something below a leading slash."""
    infos = [meta(name, number, size=0) for number, name in enumerate(["/a", "b", "/c"], 1)]
    namespace = Namespace(is_hard)
    for info in infos:
        assert namespace.load(info)
    assert shown(namespace) == {
        infos[0].subject: "／/a".encode(),
        infos[1].subject: b"b",
        infos[2].subject: "／/c".encode(),
    }


def shown(namespace: Namespace) -> dict[str, bytes]:
    """The path of every object, by its subject."""
    nodes = [node for node in everything(namespace) if node.parent is not None]
    return {info.subject: path_of(node) for node in nodes if (info := info_of(node)) is not None}


@given(
    st.lists(st.tuples(names, st.sampled_from(["", "#2", "#3"])), unique=True, max_size=12),
    st.data(),
)
@settings(max_examples=300)
def test_order_of_arrival(wanted: list[tuple[str, str]], data: st.DataObject) -> None:
    """N1, N3: objects have the same paths whichever came first, so every mount shows the same."""
    infos = [
        meta(name, number, size=1, subject=meta_subject("b", name) + suffix)
        for number, (name, suffix) in enumerate(wanted, 1)
    ]
    one, other = Namespace(is_hard), Namespace(is_hard)
    for info in infos:
        one.apply(info)
    for info in data.draw(st.permutations(infos)):
        other.apply(info)
    assert shown(one) == shown(other)


@given(st.lists(st.sampled_from(COMPONENTS), max_size=6), st.data())
@settings(max_examples=200)
def test_what_came_and_went(kept: list[str], data: st.DataObject) -> None:
    """N1, N3: objects that are no more leave no trace in the names of others."""
    leaves = st.tuples(st.sampled_from(COMPONENTS), st.sampled_from(["", "#2", "#3"]))
    alive = [(name, "") for name in dict.fromkeys(kept) if name]
    alive += data.draw(st.lists(leaves.filter(lambda leaf: leaf[0]), max_size=4))
    alive = list(dict.fromkeys(alive))
    gone = [
        leaf for leaf in data.draw(st.lists(leaves, max_size=6)) if leaf[0] and leaf not in alive
    ]
    one, other = Namespace(is_hard), Namespace(is_hard)
    everyone = data.draw(st.permutations([*alive, *dict.fromkeys(gone)]))
    for number, (name, suffix) in enumerate(everyone, 1):
        one.apply(meta(name, number, size=1, subject=meta_subject("b", name) + suffix))
    for name, suffix in dict.fromkeys(gone):
        one.vanish(meta_subject("b", name) + suffix)
    for number, (name, suffix) in enumerate(alive, 1):
        other.apply(meta(name, number, size=1, subject=meta_subject("b", name) + suffix))
    assert shown(one) == shown(other)
