"""The entries of a directory by name, of which those that nobody has asked for are not nodes yet.

`Children` is a mapping of names to nodes like any other.  Whoever takes an entry out of it that is
kept as a packed meta (`packed`) makes it a node by that; names and numbers of entries make none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Generic, TypeVar, overload

NodeT = TypeVar("NodeT")
Default = TypeVar("Default")


class Children(MutableMapping[bytes, NodeT], Generic[NodeT]):
    """Names and nodes of one directory."""

    __slots__ = ("_held", "_unpack")

    def __init__(self) -> None:
        self._held: dict[bytes, NodeT | bytes] = {}
        self._unpack: Callable[[bytes, bytes], NodeT] | None = None

    # -- as a mapping -----------------------------------------------------------------------------

    def __getitem__(self, name: bytes) -> NodeT:
        held = self._held[name]
        return self._made(name, held) if isinstance(held, bytes) else held

    @overload
    def get(self, name: bytes, default: None = None, /) -> NodeT | None: ...
    @overload
    def get(self, name: bytes, default: NodeT | Default, /) -> NodeT | Default: ...
    def get(self, name: bytes, default: object = None, /) -> object:
        """As in any mapping."""
        held = self._held.get(name)
        if held is None:
            return default
        return self._made(name, held) if isinstance(held, bytes) else held

    def __setitem__(self, name: bytes, node: NodeT) -> None:
        self.get(name)  # What is replaced has to be known as a node by then.
        self._held[name] = node

    def __delitem__(self, name: bytes) -> None:
        self.get(name)
        del self._held[name]

    def __contains__(self, name: object) -> bool:
        return name in self._held

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    # -- packed entries ---------------------------------------------------------------------------

    def fold(self, records: dict[bytes, bytes], unpack: Callable[[bytes, bytes], NodeT]) -> None:
        """Have entries under names that nobody has, each with a packed meta.  *unpack* is to make
        the node of one, and to `unfold` that."""
        self._held.update(records)
        if self._unpack is None:
            self._unpack = unpack

    def unfold(self, name: bytes, node: NodeT) -> None:
        """*node* is what the packed entry *name* has become."""
        self._held[name] = node

    def record(self, name: bytes) -> bytes | None:
        """The packed meta of the entry *name*, None where it is a node or nothing."""
        held = self._held.get(name)
        return held if isinstance(held, bytes) else None

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Names and metas of all packed entries."""
        return ((name, held) for name, held in self._held.items() if isinstance(held, bytes))

    def nodes(self) -> Iterator[NodeT]:
        """The entries that are nodes."""
        return (held for held in self._held.values() if not isinstance(held, bytes))

    def _made(self, name: bytes, record: bytes) -> NodeT:
        assert self._unpack is not None
        return self._unpack(name, record)
