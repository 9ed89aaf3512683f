"""What a mount did between two looks at its counters.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from natsfs.control import Activity, MountStatus, Operation, Upload

_NOTHING = Operation(counts=[], seconds=0.0, failures=0)


@dataclass(frozen=True, slots=True)
class OperationRate:
    """Requests of one kind: how many a second, and in all since the mount began.

    *mean*, *p50* and *p99* are in seconds; the last two are bounds that half, and 99 of 100, of the
    requests did not exceed, None where there were none or they exceed all bounds.
    """

    name: str
    per_second: float
    mean: float | None
    p50: float | None
    p99: float | None
    failures: int
    total: int


@dataclass(frozen=True, slots=True)
class Rates:
    """*seconds* of the life of a mount.  *bytes* are a second; *cached* is the share that the cache
    had of what was not in memory, None for nothing."""

    seconds: float
    status: MountStatus
    operations: Sequence[OperationRate]
    bytes: Mapping[str, float]
    cached: float | None
    uploads: Sequence[Upload]

    @property
    def requests(self) -> float:
        """Requests a second."""
        return sum(operation.per_second for operation in self.operations)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "seconds": self.seconds,
            "requests_per_second": self.requests,
            "operations": [asdict(operation) for operation in self.operations],
            "bytes_per_second": dict(self.bytes),
            "cache_hit_rate": self.cached,
            "uploads": list(self.uploads),
            "status": self.status,
        }


def rates_between(before: Activity, after: Activity) -> Rates:
    """What was done between two looks, the busiest operations first."""
    seconds = max(after["time"] - before["time"], 1e-6)
    operations = [
        _rate(name, before["operations"].get(name, _NOTHING), now, after["bounds"], seconds)
        for name, now in after["operations"].items()
    ]
    moved = {way: count - before["bytes"].get(way, 0) for way, count in after["bytes"].items()}
    asked = moved["cached"] + moved["fetched"]
    return Rates(
        seconds,
        after["status"],
        sorted(operations, key=lambda one: (-one.per_second, -one.total, one.name)),
        {way: count / seconds for way, count in moved.items()},
        moved["cached"] / asked if asked else None,
        after["uploads"],
    )


def _rate(
    name: str, before: Operation, now: Operation, bounds: Sequence[float], seconds: float
) -> OperationRate:
    earlier = before["counts"] or [0] * len(now["counts"])
    counts = [new - old for new, old in zip(now["counts"], earlier, strict=True)]
    count = counts[-1]
    return OperationRate(
        name,
        count / seconds,
        (now["seconds"] - before["seconds"]) / count if count else None,
        _quantile(counts, bounds, 0.5),
        _quantile(counts, bounds, 0.99),
        now["failures"] - before["failures"],
        now["counts"][-1],
    )


def _quantile(counts: Sequence[int], bounds: Sequence[float], share: float) -> float | None:
    """The first of *bounds* that a *share* of all did not exceed.  *counts* are cumulative."""
    if not counts[-1]:
        return None
    found = (
        bound for bound, count in zip(bounds, counts, strict=False) if count >= share * counts[-1]
    )
    return next(found, None)
