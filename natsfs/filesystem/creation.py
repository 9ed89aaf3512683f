"""open(2) with O_CREAT: new files, and names that turn out to be taken.

Concurrency: the name is reserved until the file has its place in the tree, which follows the claim
without another await.
"""

from __future__ import annotations

import os
import stat

from natsfs.errors import ExistsError
from natsfs.filesystem.appearance import attributes_of
from natsfs.filesystem.claims import Claims
from natsfs.filesystem.entries import Entries
from natsfs.filesystem.files import Files, new_file
from natsfs.filesystem.naming import Naming, both
from natsfs.filesystem.state import Mounted
from natsfs.handles import SUPERUSER, Caller, FileHandle
from natsfs.tree.nodes import Directory, Leaf, Node


class Creation:
    """Makes files."""

    def __init__(
        self, mounted: Mounted, entries: Entries, naming: Naming, files: Files, claims: Claims
    ) -> None:
        self._m = mounted
        self._entries = entries
        self._naming = naming
        self._files = files
        self._claims = claims

    async def create(
        self,
        parent: Directory,
        name: bytes,
        mode: int,
        flags: int,
        uid: int,
        gid: int,
        caller: Caller = SUPERUSER,
    ) -> tuple[FileHandle, Node]:
        """Open *name*, making it if it does not exist.  With O_EXCL it succeeds for one of any
        number of mounts, at once (A3).

        Errors: `ExistsError` (O_EXCL), `NameTooLongError`, those of `Files.open` and, with O_EXCL,
        of `Claims.claim`.
        """
        object_name = self._naming.check_name(parent, name)
        async with self._m.reservations.hold(lambda: both(object_name)):
            claim = None
            if flags & os.O_EXCL and name not in parent.children:
                claim = await self._claims.claim(object_name)
            if name in parent.children:
                return self._open(parent, name, flags, caller)
            attributes = new_file(
                attributes_of(self._m, parent), stat.S_IFREG | stat.S_IMODE(mode), uid, gid
            )
            handle, leaf = self._files.create(parent, name, attributes, flags, caller)
            if claim is not None:
                self._claims.own(leaf, claim)
            return handle, leaf

    def _open(
        self, parent: Directory, name: bytes, flags: int, caller: Caller
    ) -> tuple[FileHandle, Node]:
        """Another client was faster than the kernel's lookup."""
        if flags & os.O_EXCL:
            raise ExistsError(f"entry {name!r} exists")
        node = self._entries.meant(self._entries.entry(parent, name))
        assert isinstance(node, Leaf | Directory)
        handle, _ = self._files.open(node, flags, caller)
        return handle, node
