"""How much memory the bytes take that programs wrote and the server does not have.

Concurrency: synchronous.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Bytes for a mount: eight files that are written as fast as they can be.
WRITTEN_BYTES = 64 * 1024 * 1024


@dataclass(slots=True)
class Memory:
    """*held* of *limit* bytes.  It may be more: a file needs a little to go on at all."""

    limit: int = WRITTEN_BYTES
    held: int = 0

    @property
    def full(self) -> bool:
        """Whether a file has to make do with as little as it can."""
        return self.held >= self.limit
