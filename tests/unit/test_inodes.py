"""Inode numbers and lookup counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsfs.errors import StaleVersion
from natsfs.tree.inodes import ROOT_INO, InodeTable, Numbered


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
