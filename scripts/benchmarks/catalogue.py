"""The workloads by name, in the order in which they run and are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .bench import Bench
from .buckets import growth
from .bulk import (
    first_byte,
    four_readers,
    memory_peak,
    random_read,
    reread,
    sequential_read,
    sequential_write,
)
from .race import Contest
from .small import known_name, small_files
from .trees import real_tree

#: A workload: who competes in it, with nothing started yet.  Its docstring says what is measured.
Workload = Callable[[Bench], Contest]

WORKLOADS: Mapping[str, Workload] = {
    "read": sequential_read,
    "reread": reread,
    "write": sequential_write,
    "random": random_read,
    "readers": four_readers,
    "first-byte": first_byte,
    "memory": memory_peak,
    "small": small_files,
    "stat": known_name,
    "tree": real_tree,
    "buckets": growth,
}


def described(workload: Workload) -> str:
    """What a workload measures, in one line."""
    return " ".join((workload.__doc__ or "").split())
