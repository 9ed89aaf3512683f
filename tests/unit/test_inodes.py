"""Inode numbers and lookup counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsfs.errors import StaleVersion
from natsfs.tree.inodes import ROOT_INO, InodeTable, Numbered, is_root, root_of, slot_of


def test_numbers_are_unique_and_stay() -> None:
    """M7: a node gets one number, no other node ever gets it, and forgetting does not change it."""
    table = InodeTable(Numbered())
    one, other = Numbered(), Numbered()
    ino = table.remember(one)
    assert table.number(one) == ino
    assert table.remember(other) != ino
    table.forget(ino, 1)
    assert table.number(one) == ino
    assert table.remember(one) == ino
    assert table.remember(Numbered()) not in (ino, table.number(other), ROOT_INO)


def test_unknown_numbers() -> None:
    """M7: a number that the kernel was not given, or gave back, is ESTALE."""
    root = Numbered()
    table = InodeTable(root)
    node = Numbered()
    ino = table.number(node)
    for unknown in (ino, 0, 99):
        with pytest.raises(StaleVersion):
            table.get(unknown)
    table.remember(node)
    assert table.get(ino) is node
    table.forget(ino, 1)
    with pytest.raises(StaleVersion):
        table.get(ino)
    table.forget(ROOT_INO, 1000)
    assert table.get(ROOT_INO) is root


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-3, 2)).filter(lambda s: s[1] != 0)))
def test_counts(steps: list[tuple[int, int]]) -> None:
    """M7: the table holds exactly the nodes with more lookups than forgets, and the root."""
    table = InodeTable(Numbered())
    nodes = [Numbered() for _ in range(4)]
    counts = [0] * 4
    for index, change in steps:
        if change > 0:
            for _ in range(change):
                table.remember(nodes[index])
            counts[index] += change
        else:
            table.forget(table.number(nodes[index]), -change)
            counts[index] = max(0, counts[index] + change)
    assert [node.lookups for node in nodes] == counts
    assert len(table) == 1 + sum(count > 0 for count in counts)


def test_slots() -> None:
    """M7: trees in one mount number their nodes apart, and leave the roots of others alone."""
    tables = [InodeTable(Numbered(), slot) for slot in (0, 1, 7)]
    nodes = [Numbered() for _ in tables]
    numbers = [table.remember(node) for table, node in zip(tables, nodes, strict=True)]
    assert numbers[0] == 2
    assert [slot_of(number) for number in numbers] == [0, 1, 7]
    roots = [root_of(slot) for slot in (0, 1, 7)]
    assert roots[0] == ROOT_INO
    assert all(map(is_root, roots))
    assert not any(map(is_root, numbers))
    for table, node in zip(tables[1:], nodes[1:], strict=True):
        assert table.holds(node.ino)
        assert not tables[0].holds(node.ino)
        assert tables[0].remember(node) == node.ino
        assert len(tables[0]) == 2
        table.forget(node.ino, 1)
        table.forget(root_of(table.slot), 1)
        assert len(table) == 1
