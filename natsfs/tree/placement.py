"""Who is shown under which name in one directory.

Several entries can want one name: an object `a` beside objects `a/…`, two subjects that hold metas
of one name, names that a path cannot spell (N1, N3, N4).  Who gets it does not depend on who came
first, so that an entry has the same path in every mount and after every remount:

- a directory before a leaf, a leaf of this mount that is not stored yet before one that is, and
  then by meta subject;
- the next one in this order is shown with a quote behind the name, unless something is called so;
- all others, and where that does not fit, by a hash of what tells them from each other.

A name of an entry's own always wins over one that is made up for another.

Pure and synchronous, as `namespace`, whose business it is to call this after every change.
"""

from __future__ import annotations

from collections.abc import Sequence

from natsfs.tree.names import (
    MAX_COMPONENT,
    QUOTE,
    encode_component,
    hashed,
    is_canonical,
)
from natsfs.tree.nodes import (
    Change,
    Directory,
    EntryChange,
    Leaf,
    Node,
    component_text,
    forget_displaced,
    free_name,
    info_of,
    is_displaced,
)

_QUOTE = QUOTE.encode()


def stands_alone(directory: Directory, component: bytes, text: str) -> bool:
    """Whether a new entry *text*, whose own name is *component*, is shown so whatever else is in
    *directory*, and changes nothing for any other."""
    if component in directory.children or directory.displaced:
        return False
    return len(component) <= MAX_COMPONENT and is_canonical(text)


def adopt(directory: Directory, node: Node) -> list[Change]:
    """Find a name in *directory* for *node*, which has none yet, and for whom it displaces."""
    component = encode_component(component_text(node))
    node.name = b""
    waiting = directory.displaced.setdefault(component, [])
    waiting.append(node)
    if _changes_nothing(directory, node, component, waiting[0]):
        return _show_displaced(directory, node, component, first=False)
    return arrange(directory, component)


def _changes_nothing(directory: Directory, node: Node, component: bytes, first: Node) -> bool:
    """Whether *node* comes after the owner of *component* and the *first* of those that want it,
    so that all others are shown as they are: there may be thousands of them."""
    owner = directory.children.get(component)
    if owner is None or first is node or not (_is_stored(node) and _is_stored(first)):
        return False
    return max(_rank(owner), _rank(first)) < _rank(node) and not is_displaced(owner)


def displace(directory: Directory, node: Node) -> list[Change]:
    """*node* has just lost its name to one that a program gave to another entry."""
    component = encode_component(component_text(node))
    forget_displaced(directory, node)
    if not _is_stored(node):
        return _create_elsewhere(directory, node, component)
    node.name = b""
    directory.displaced.setdefault(component, []).append(node)
    return arrange(directory, component)


def arrange_after(directory: Directory, name: bytes, component: bytes) -> list[Change]:
    """An entry that wanted *component* and was shown as *name* has gone: others may have these."""
    changes = arrange(directory, component)
    if name != component:
        return [*changes, *arrange(directory, name)]
    return [*changes, *_arrange_base(directory, component)]


def arrange(directory: Directory, component: bytes) -> list[Change]:
    """Show all entries of *directory* that want *component* as they are to be shown."""
    occupant = directory.children.get(component)
    owner = occupant if occupant is not None and not is_displaced(occupant) else None
    rest = _ranked(directory.displaced.pop(component, ()))
    winner = _winner(component, owner, rest)
    changes: list[Change] = []
    if winner is not None and winner is not owner:
        rest = [node for node in rest if node is not winner]
        if owner is not None:
            rest = _ranked([*rest, owner])
        elif occupant is not None and occupant not in (winner, *rest):
            # A name that was made up for somebody else, who gets another one.
            changes += _evict(directory, occupant)
        changes += _show(directory, winner, component)
    if stored := [node for node in rest if _is_stored(node)]:
        directory.displaced[component] = stored
    for place, node in enumerate(rest):
        if not place or not _is_hashed(directory, node, component):
            changes += _show_displaced(directory, node, component, first=not place)
    if winner is not None and owner is None:
        changes += _arrange_base(directory, component)
    return changes


def _arrange_base(directory: Directory, component: bytes) -> list[Change]:
    """*component* has got an owner, or lost one: where it is a quoted name, the one who would be
    shown so has to be asked."""
    base = component.removesuffix(_QUOTE)
    return arrange(directory, base) if base != component and base in directory.displaced else []


def _winner(component: bytes, owner: Node | None, waiting: list[Node]) -> Node | None:
    """Who is to have *component* itself.  *waiting* are in order."""
    if len(component) > MAX_COMPONENT:
        return None
    first = next((node for node in waiting if is_canonical(component_text(node))), None)
    if owner is not None and encode_component(component_text(owner)) != component:
        return owner  # It is on its way here: its meta does not have the new name yet.
    able = [node for node in (first, owner) if node is not None]
    return _ranked(able)[0] if able else None


def _ranked(nodes: Sequence[Node]) -> list[Node]:
    """*nodes* in order.  One alone needs no rank, which for a directory takes its whole path: a
    path of many directories would be spelled once for each of them."""
    return sorted(nodes, key=_rank) if len(nodes) > 1 else list(nodes)


def _rank(node: Node) -> tuple[bool, bool, str]:
    return not isinstance(node, Directory), _is_stored(node), key_of(node)


def _is_stored(node: Node) -> bool:
    return isinstance(node, Directory) or info_of(node) is not None


def _show_displaced(
    directory: Directory, node: Node, component: bytes, *, first: bool
) -> list[Change]:
    if not _is_stored(node):
        return _create_elsewhere(directory, node, component)
    quoted = component + _QUOTE
    if first and len(quoted) <= MAX_COMPONENT and not _is_owned(directory, quoted, node):
        return _show(directory, node, quoted)
    for name in hashed(component, key_of(node)):
        if not _is_taken(directory, name, node):
            return _show(directory, node, name)
    raise AssertionError("unreachable: there are names without end")


def _is_hashed(directory: Directory, node: Node, component: bytes) -> bool:
    """Whether *node* is shown by a hash already, which is the same whoever comes or goes: of
    thousands that want one name each would be hashed for each of the others."""
    made_up = node.name not in (b"", component, component + _QUOTE) and _is_stored(node)
    return made_up and directory.children.get(node.name) is node


def _create_elsewhere(directory: Directory, node: Node, component: bytes) -> list[Change]:
    """*node* will be created under the name that it is shown as from now on."""
    return _show(directory, node, free_name(directory, component, key_of(node)))


def _evict(directory: Directory, node: Node) -> list[Change]:
    component = encode_component(component_text(node))
    previous, node.name = node.name, b""
    del directory.children[previous]
    return [EntryChange(directory, previous), *arrange(directory, component)]


def _is_owned(directory: Directory, name: bytes, node: Node) -> bool:
    """Whether *name* is the own name of an entry other than *node*."""
    holder = directory.children.get(name)
    return holder is not None and holder is not node and not is_displaced(holder)


def _is_taken(directory: Directory, name: bytes, node: Node) -> bool:
    return directory.children.get(name, node) is not node


def _show(directory: Directory, node: Node, name: bytes) -> list[Change]:
    """Let *node* be shown as *name*; who was shown so gets another name by the caller's doing."""
    previous = node.name
    if previous == name and directory.children.get(name) is node:
        return []
    if previous and directory.children.get(previous) is node:
        del directory.children[previous]
    directory.children[name] = node
    node.name = name
    return [EntryChange(directory, shown) for shown in (previous, name) if shown]


def key_of(node: Node) -> str:
    """What tells *node* from all others, in every mount, for as long as its object lives."""
    if isinstance(node, Directory):
        return node.prefix
    assert isinstance(node, Leaf)
    return node.info.subject if node.info is not None else node.object_name
