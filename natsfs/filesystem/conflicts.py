"""Two hosts that write one file: the only module that knows what a conflict is and who gives way.

A commit is in conflict when the version that it would replace is not the one that its file was made
from: a foreign version came in between, and nobody here has seen what it would lose (A4).  Changes
of metadata alone make no new version, and a deleted version is nothing that could be lost.

What was only appended is never in conflict; it goes behind whatever came in between (`appending`).

Concurrency: everything here is atomic.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count

from natsfs.config import ConflictPolicy
from natsfs.errors import ConflictError
from natsfs.filesystem.attributes import with_times
from natsfs.filesystem.state import Mounted, now_ns
from natsfs.handles import OpenFile
from natsfs.store.model import MetaWrite, ObjectInfo
from natsfs.store.wire import meta_subject
from natsfs.tree.names import MAX_COMPONENT, encode_component
from natsfs.tree.nodes import Leaf, component_text

#: Bytes of a host's name in the name of a version that is kept: of 255 the most is for the file's.
LONGEST_HOST = 48

#: Bytes of what counts as an extension, which a name that has to be shortened keeps.
LONGEST_EXTENSION = 16


class SupersededError(Exception):
    """What was appended has to go behind *version*, which came in between."""

    def __init__(self, version: ObjectInfo) -> None:
        super().__init__(version.name)
        self.version = version


class Conflicts:
    """Judges commits."""

    def __init__(self, mounted: Mounted) -> None:
        self._m = mounted

    def check(self, file: OpenFile, other: ObjectInfo | None, *, appended: bool) -> bool:
        """Whether a commit of *file* that replaces *other* is in conflict with it and goes on.
        What an attempt before has stored, whose answer was lost, is in nobody's way.

        *appended* says that nothing but appending was done to the bytes.

        Errors: `SupersededError` (*appended*), `ConflictError` (this mount gives way, as to what a
        rename has put there whose answer was lost).
        """
        if other is not None and file.yields and other.nuid == file.yields:
            raise ConflictError(
                f"{other.name!r} is not stored: a rename, which nobody heard the answer to, has "
                "put another file in its place"
            )
        if other is None or other.nuid == file.replaces or other.nuid in file.tried:
            return False
        if appended and other.link is None:
            raise SupersededError(other)
        if self._m.conflict.policy is ConflictPolicy.FAIL:
            raise ConflictError(
                f"{other.name!r} is not stored: another client stored version {other.nuid} since "
                f"it was opened here; the {file.size} bytes of this host go when it is closed"
            )
        return True

    def kept(self, leaf: Leaf, other: ObjectInfo) -> list[MetaWrite]:
        """What has to be stored together with a version of *leaf* that is in conflict with *other*
        and replaces it."""
        if self._m.conflict.policy is not ConflictPolicy.KEEP:
            return []
        parent = leaf.parent
        assert parent is not None
        host, component = self._m.conflict.host, encode_component(component_text(leaf))
        shown = kept_name(component, host, now_ns(), lambda name: name in parent.children)
        name = parent.child_name(shown)
        subject = meta_subject(self._m.store.bucket, name)
        info = replace(with_times(other), name=name, subject=subject)
        return [self._m.rewrite(info, self._m.namespace.last_revision(subject))]

    def give_way(self, file: OpenFile) -> None:
        """Show the version that came in between; who has *file* open goes on with what it wrote."""
        file.refused = True
        leaf, other = file.leaf, file.leaf.info
        if leaf.parent is None or other is None:
            return  # the other version has the name already
        directory, changed = leaf.parent, leaf.parent.changed
        self._m.namespace.supersede(leaf)
        leaf.info = file.base
        self._m.notifier.changed(self._m.namespace.apply(other))
        # For the directory, the name was there all the time.
        directory.changed, directory.attributes = changed, None
        successor = self._m.namespace.find(other.subject)
        leaf.successor = successor if isinstance(successor, Leaf) else None


def kept_name(
    component: bytes,
    host: str,
    at_ns: int,
    taken: Callable[[bytes], bool],
    word: str = "conflict",
) -> bytes:
    """The name under which the version of *component* is kept that *host* replaced at *at_ns*: one
    that is not *taken*, of at most 255 bytes, with the extension left visible.  *word* says why it
    is kept."""
    host = re.sub(r"[^A-Za-z0-9._-]", "_", host)[:LONGEST_HOST] or "unknown"
    when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at_ns // 10**9))
    for number in count(1):
        ending = f".{word}-{host}-{when}" + (f"-{number}" if number > 1 else "")
        name = _shortened(component, MAX_COMPONENT - len(ending)) + ending.encode()
        if not taken(name):
            return name
    raise AssertionError("unreachable: some number is free")


def _shortened(component: bytes, limit: int) -> bytes:
    """*component* in at most *limit* bytes of whole characters, cut in front of its extension."""
    if len(component) <= limit:
        return component
    stem, dot, extension = component.rpartition(b".")
    if not stem or len(extension) > LONGEST_EXTENSION:
        stem, dot, extension = component, b"", b""
    cut = stem[: limit - len(dot + extension)]
    return cut.decode(errors="ignore").encode() + dot + extension
