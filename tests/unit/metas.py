"""Metas as the watch brings them, and where a namespace shows them."""

from __future__ import annotations

from dataclasses import replace

from natsfs.store.model import Link, ObjectInfo
from natsfs.store.wire import meta_subject
from natsfs.tree.namespace import Namespace
from natsfs.tree.nodes import Node, info_of, walk

#: A component that is too long to be shown.
LONG = "x" * 300


def is_hard(info: ObjectInfo) -> bool:
    """What `attributes.is_hard_link` is to a mount."""
    return info.link is not None and "hardlink" in info.metadata


def meta(name: str, revision: int = 1, *, size: int = 0, subject: str = "") -> ObjectInfo:
    """A meta as the watch brings it.  By default the subject is the standard one."""
    return ObjectInfo(
        name=name,
        bucket="b",
        subject=subject or meta_subject("b", name),
        nuid=f"nuid{revision}",
        size=size,
        revision=revision,
        time_ns=revision * 1000,
    )


def grave(info: ObjectInfo, revision: int) -> ObjectInfo:
    """The tombstone of *info*."""
    return ObjectInfo(
        info.name, "b", info.subject, deleted=True, revision=revision, time_ns=revision * 1000
    )


def hard_link(name: str, target: str, revision: int) -> ObjectInfo:
    """A further name of *target*."""
    plain = meta(name, revision)
    return replace(plain, link=Link("b", target), metadata={"hardlink": "true"})


def everything(namespace: Namespace) -> list[Node]:
    """The root and all nodes below it."""
    return [namespace.root, *walk(namespace.root)]


def path_of(node: Node) -> bytes:
    """Where *node* is shown."""
    parts = []
    while node.parent is not None:
        parts.append(node.name)
        node = node.parent
    return b"/".join(reversed(parts))


def paths(namespace: Namespace) -> dict[str, bytes]:
    """Where each object is shown, by its name, or by its subject where that is not the standard
    one."""
    found = {}
    for node in everything(namespace):
        info = info_of(node)
        if info is not None:
            standard = info.subject == meta_subject("b", info.name)
            found[info.name if standard else info.subject] = path_of(node)
    return found
