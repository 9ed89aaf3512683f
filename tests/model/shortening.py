"""Makes a list of operations short that ends in a difference.

By leaving operations out and doing the rest again.  Hypothesis could do it, too, but by drawing
anew: a difference that depends on timing as well makes it give up, and what an operation is then
called with depends on what is there.  A recorded list means the same each time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tests.model.sides import Difference, Operation

#: Seconds that may be spent on it: a difference that is waited for takes as long each time.
PATIENCE = 90.0


def shortened(found: Difference, replay: Callable[[Sequence[Operation]], None]) -> Difference:
    """The difference that the shortest list found ends in; *found* itself if it does not come
    again."""
    kept = found.operations
    deadline = time.monotonic() + PATIENCE
    size = len(kept)
    while size and time.monotonic() < deadline:
        start = 0
        while start < len(kept) and time.monotonic() < deadline:
            rest = kept[:start] + kept[start + size :]
            try:
                replay(rest)
            except Difference as again:
                kept, found = rest, again
            else:
                start += size
        size //= 2
    return found
