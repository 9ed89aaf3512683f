"""Symbolic links: what text a native link is shown with, and which text becomes a native link.

The only module that knows rules K2 to K5.  Pure: it looks at namespaces and changes nothing.
"""

from __future__ import annotations

import os
import stat
from pathlib import PurePosixPath
from typing import Protocol

from natsfs.store.model import Link, ObjectInfo
from natsfs.tree.names import encode_component
from natsfs.tree.namespace import Namespace
from natsfs.tree.nodes import Directory, Leaf, Node

#: PATH_MAX of Linux, with the NUL; symlink(2) refuses longer targets.
MAX_TARGET = 4096


def path_of(node: Node) -> list[bytes]:
    """The components of the path from the mount's root to *node*, which is part of the tree."""
    parts = []
    while node.parent is not None:
        parts.append(node.name)
        node = node.parent
    return parts[::-1]


def shown_target(namespace: Namespace, bucket: str, directory: Directory, link: Link) -> bytes:
    """The text for a native *link* that is shown in *directory* (K2, K3)."""
    here = path_of(directory)
    if link.bucket != bucket:
        up = [b".."] * (len(here) + 1)
        return b"/".join([*up, encode_component(link.bucket), *_spelled(link.name)])
    there = _object_path(namespace, link.name) if link.name is not None else []
    return os.path.relpath(b"/" + b"/".join(there), b"/" + b"/".join(here))


class Neighbours(Protocol):
    """The buckets that a mount shows beside one of them."""

    def tree(self, name: bytes) -> tuple[str, Namespace | None] | None:
        """The bucket that is shown as *name*, and its tree where that is loaded; None if there is
        no such bucket."""

    async def load(self, name: bytes) -> None:
        """Load the tree of the bucket that is shown as *name*, if there is one and it can be."""


class NoNeighbours:
    """For a mount of one bucket."""

    def tree(self, name: bytes) -> None:
        """There is none."""

    async def load(self, name: bytes) -> None:
        """There is nothing to load."""


def native_link(
    namespace: Namespace,
    bucket: str,
    root: PurePosixPath,
    directory: Directory,
    target: bytes,
    place: tuple[bytes, ...] = (),
    neighbours: Neighbours = NoNeighbours(),  # noqa: B008  (stateless)
) -> Link | None:
    """The native link that *target*, given to symlink(2) in *directory*, stands for (K4).

    The mount's directory is *root*; from there *place* leads to the *bucket*'s own.  None where
    *target* stands for no link: it leaves the mount, or names nothing, a directory or another link
    (K5), or what is in a bucket that is not loaded.
    """
    path = _lexical(root, [*place, *path_of(directory)], target)
    if path is None:
        return None
    tree: Namespace | None = namespace
    inside = path[len(place) :]
    if path[: len(place)] != list(place):
        name, inside = (path[0], path[1:]) if path else (b"", [])
        bucket, tree = neighbours.tree(name) or ("", None)
    if not inside:
        return Link(bucket) if bucket else None
    node = None if tree is None else _walk(tree.root, inside)
    if isinstance(node, Leaf) and node.info is not None and _is_plain(node.info):
        return Link(bucket, node.info.name)
    return None


def neighbour_of(
    root: PurePosixPath, place: tuple[bytes, ...], directory: Directory, target: bytes
) -> bytes | None:
    """The name of the other bucket that *target*, given in *directory*, leads into; see
    `native_link`, which has to know that bucket's tree."""
    path = _lexical(root, [*place, *path_of(directory)], target)
    if not path or path[: len(place)] == list(place) or len(path) == 1:
        return None
    return path[0]


def _lexical(root: PurePosixPath, here: list[bytes], target: bytes) -> list[bytes] | None:
    """*target*, given at the path *here*, as a path from the mount's root, by its letters alone;
    None if it leads outside."""
    if target.startswith(b"/"):
        top = os.fsencode(root)
        path = os.path.normpath(target)
        if path != top and not path.startswith(top.rstrip(b"/") + b"/"):
            return None
        parts = path[len(top) :].split(b"/")
        found: list[bytes] = []
    else:
        found = here
        parts = target.split(b"/")
    for part in parts:
        if part == b"..":
            if not found:
                return None
            found.pop()
        elif part not in (b"", b"."):
            found.append(part)
    return found


def _walk(node: Node | None, path: list[bytes]) -> Node | None:
    for part in path:
        node = node.children.get(part) if isinstance(node, Directory) else None
    return node


def _is_plain(info: ObjectInfo) -> bool:
    mode = info.metadata.get("mode", "")
    try:
        kind = stat.S_IFMT(int(mode, 8)) if mode else 0
    except ValueError:
        kind = 0
    return info.link is None and (kind in (0, stat.S_IFREG) or bool(info.size))


def _object_path(namespace: Namespace, name: str) -> list[bytes]:
    node = namespace.resolve(name)
    return _spelled(name) if node is None else path_of(node)


def _spelled(name: str | None) -> list[bytes]:
    return [] if name is None else [encode_component(part) for part in name.split("/")]
