"""How a node looks: its attributes, its link text.

Everything here is computed from the tree when first asked for and kept on the node until its meta
changes.  Pure but for one warning about metadata that cannot be understood (M2).
"""

from __future__ import annotations

import logging
from dataclasses import replace

from natsfs.errors import InvalidArgument, MalformedKnown
from natsfs.filesystem import attributes as attrs
from natsfs.filesystem.attributes import Attributes
from natsfs.filesystem.links import MAX_TARGET, shown_target
from natsfs.filesystem.state import Mounted
from natsfs.store.model import ObjectInfo
from natsfs.tree.nodes import Directory, Leaf, Node

log = logging.getLogger(__name__)


def attributes_of(mounted: Mounted, node: Node) -> Attributes:
    """The attributes of *node* as programs on this mount are to see them now."""
    known = node.attributes
    if isinstance(known, Attributes):
        return known
    if isinstance(node, Directory):
        found, problems = _of_directory(mounted, node)
        meta = node.marker
    else:
        assert isinstance(node, Leaf)
        assert node.info is not None
        found, problems = attrs.of_object(node.info, mounted.tree)
        meta = node.info
        if node.info.link is not None or attrs.SYMLINK_KEY in node.info.metadata:
            found, unusable = _with_text_length(mounted, node, node.info, found)
            problems += unusable
    if problems and meta is not None and meta.subject not in mounted.reported:
        mounted.reported.add(meta.subject)
        log.warning(
            "metadata of %r cannot be used: %s",
            meta.name,
            ", ".join(problems),
            extra={"object": meta.name},
        )
    node.attributes = found
    return found


def link_text(mounted: Mounted, leaf: Leaf) -> bytes:
    """What readlink(2) gives for *leaf*.

    Errors: `InvalidArgument` when it is no symbolic link; `MalformedKnown` when no program could
    use the text, which `attributes_of` tells the log.
    """
    text = _whole_text(mounted, leaf)
    if _is_unusable(text):
        raise MalformedKnown(f"the link {leaf.object_name!r} has a text that no path can be")
    return text


def _whole_text(mounted: Mounted, leaf: Leaf) -> bytes:
    info = leaf.info
    if info is None:
        raise InvalidArgument("not a symbolic link")
    text = attrs.symlink_text(info)
    if text is not None:
        return text
    if info.link is None:
        raise InvalidArgument(f"{info.name!r} is not a symbolic link")
    directory = leaf.parent if leaf.parent is not None else mounted.namespace.root
    return shown_target(mounted.namespace, mounted.store.bucket, directory, info.link)


def _of_directory(mounted: Mounted, directory: Directory) -> tuple[Attributes, list[str]]:
    """A directory was modified when its marker says so, or later, when an entry came or went."""
    revision, changed_ns = directory.changed
    found, problems = attrs.of_directory(directory.marker, changed_ns, mounted.tree)
    if directory.marker is not None and revision > directory.marker.revision:
        found = replace(found, mtime_ns=changed_ns, ctime_ns=changed_ns)
    return found, problems


def _is_unusable(text: bytes) -> bool:
    """Whether symlink(2) would refuse *text*.  The kernel cuts one at a NUL, refuses a long one
    without a word, and takes an empty one for the directory that the link is in."""
    return not 0 < len(text) < MAX_TARGET or b"\0" in text


def _with_text_length(
    mounted: Mounted, leaf: Leaf, info: ObjectInfo, found: Attributes
) -> tuple[Attributes, list[str]]:
    """*found* with the size of a link, and what is wrong with its text."""
    if info.link is None and not attrs.is_symlink(found):
        return found, []
    text = _whole_text(mounted, leaf)
    problems = [f"a link to {text[:40]!r}… ({len(text)} bytes)"] if _is_unusable(text) else []
    return replace(found, size=len(text)), problems
