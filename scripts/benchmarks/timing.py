"""How long something takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import mean, median

MIB = 1 << 20


def seconds(work: Callable[[], object]) -> float:
    """How long *work* takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def rate(size: int, work: Callable[[], object]) -> float:
    """Megabytes in a second when *work* moves *size* bytes."""
    return size / seconds(work) / 1e6


def per_mib(spent: float, size: int) -> float:
    """Milliseconds for a MiB when *size* bytes took *spent* seconds."""
    return spent / size * MIB * 1e3


def latency(reads: Sequence[float]) -> dict[str, float]:
    """The median shows a read that costs a request; the mean includes what reading ahead costs."""
    return {"median": 1e6 * median(reads), "mean": 1e6 * mean(reads)}
