"""Operations on mappings of what is open."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import Any

from tests.model.descriptors import Descriptors
from tests.model.looking import brief


class Mappings(Descriptors):
    """Mappings live within one operation, each."""

    def do_map_write(self, slot: int, offset: int, text: str) -> Any:
        """Write through a shared mapping, which is synced and unmapped."""

        def change(view: mmap.mmap, descriptor: int) -> Any:
            done = _put(view, offset, text)
            view.flush()
            return [done, brief(os.pread(descriptor, len(view), 0))]

        return self._mapped(slot, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, change)

    def do_map_late(self, slot: int, offset: int, text: str) -> Any:
        """Write through a shared mapping after the descriptor was closed."""

        def change(view: mmap.mmap, descriptor: int) -> Any:
            os.fstat(descriptor)
            self.do_close(slot)
            return _put(view, offset, text)

        return self._mapped(slot, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, change)

    def do_map_private(self, slot: int, offset: int, text: str) -> Any:
        """Write through a private mapping, of which the file hears nothing."""

        def change(view: mmap.mmap, descriptor: int) -> Any:
            done = _put(view, offset, text)
            return [done, brief(bytes(view)), brief(os.pread(descriptor, len(view), 0))]

        return self._mapped(slot, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE, change)

    def do_map_beside(self, slot: int, offset: int, text: str) -> Any:
        """A shared mapping shows what is written to the descriptor meanwhile."""

        def change(view: mmap.mmap, descriptor: int) -> Any:
            before = brief(bytes(view))
            os.pwrite(descriptor, text.encode(), offset % len(view))
            return [before, brief(bytes(view))]

        return self._mapped(slot, mmap.MAP_SHARED, mmap.PROT_READ, change)

    def do_map_read(self, slot: int, private: bool) -> Any:
        kind = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
        return self._mapped(slot, kind, mmap.PROT_READ, lambda view, _: brief(bytes(view)))

    def _mapped(
        self, slot: int, kind: int, protection: int, action: Callable[[mmap.mmap, int], Any]
    ) -> Any:
        def act(descriptor: int) -> Any:
            size = os.fstat(descriptor).st_size
            if not size:
                return "empty"
            with mmap.mmap(descriptor, size, kind, protection) as view:
                return action(view, descriptor)

        return self._with(slot, act)


def _put(view: mmap.mmap, offset: int, text: str) -> int:
    """Write *text* into a mapping, as much as fits behind *offset* modulo its size."""
    start = offset % len(view)
    data = text.encode()[: len(view) - start]
    view[start : start + len(data)] = data
    return len(data)
