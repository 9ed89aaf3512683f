"""What a mount counts: its requests and how long they take, bytes, failures.

The only module that knows the Prometheus client, and only once somebody asks for what Prometheus
reads: it takes as long to import as a mount takes for the rest of its beginning.

Concurrency: whatever is counted is counted at once; nothing waits.
"""

from __future__ import annotations

import errno
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from prometheus_client.core import Metric

#: What Prometheus is told that `Metrics.rendered` is.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Seconds: from what the tree answers by itself to the time-out of a request.
BOUNDS = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)

#: Where bytes go: between programs and the mount, between the mount and the server, from the cache.
WAYS = ("read", "written", "fetched", "stored", "cached")


class Counted(TypedDict):
    """The requests of one kind since the mount began.

    *counts* says how many took up to each of `BOUNDS`, and in the last place how many there were;
    *seconds* is their sum.
    """

    counts: list[int]
    seconds: float
    failures: int


class Count:
    """A number that grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, amount: int = 1) -> None:
        """Count *amount* more."""
        self.value += amount


class _Timer:
    """How long requests of one kind took."""

    __slots__ = ("_counts", "seconds")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def counts(self) -> list[int]:
        """How many took up to each of `BOUNDS`, and how many there were."""
        return list(accumulate(self._counts))


class Metrics:
    """The counters of one mount."""

    def __init__(self) -> None:
        self.read, self.written, self.fetched, self.stored, self.cached = (Count() for _ in WAYS)
        self.reconnects = Count()
        self._troubles = Count()
        self._timers: dict[str, _Timer] = {}
        self._failed: dict[tuple[str, int], Count] = {}
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self._labels: list[tuple[str, dict[str, str]]] = []

    def took(self, operation: str, seconds: float) -> None:
        """A request has been answered."""
        timer = self._timers.get(operation)
        if timer is None:
            timer = self._timers[operation] = _Timer()
        timer.observe(seconds)

    def failed(self, operation: str, number: int, *, trouble: bool) -> None:
        """A request was answered with errno *number*; *trouble* if somebody has to hear of it."""
        # One for each write: the kernel asks for capabilities, and there are none.
        failed = self._failed.get((operation, number))
        if failed is None:
            failed = self._failed[operation, number] = Count()
        failed.inc()
        if trouble:
            self._troubles.inc()

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show what *value* gives whenever somebody asks."""
        self._gauges.append((name, text, value))

    def label(self, name: str, labels: dict[str, str]) -> None:
        """Show *labels*, which say what all this is about."""
        self._labels.append((name, labels))

    def rendered(self) -> bytes:
        """Everything as Prometheus reads it."""
        from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415

        registry = CollectorRegistry()
        registry.register(_Collector(self._families))
        return generate_latest(registry)

    # -- for those who show it --------------------------------------------------------------------

    @property
    def troubles(self) -> int:
        """How many requests failed for a reason that the log has."""
        return self._troubles.value

    def bytes(self) -> dict[str, int]:
        """The bytes that went each of `WAYS`."""
        counts = (self.read, self.written, self.fetched, self.stored, self.cached)
        return {way: count.value for way, count in zip(WAYS, counts, strict=True)}

    def operations(self) -> dict[str, Counted]:
        """The requests by what was asked for."""
        found = {
            name: Counted(counts=timer.counts(), seconds=timer.seconds, failures=0)
            for name, timer in self._timers.items()
        }
        for (operation, _), count in self._failed.items():
            if operation in found:
                found[operation]["failures"] += count.value
        return found

    @property
    def reconnected(self) -> int:
        """How often a lost connection was made again."""
        return self.reconnects.value

    # -- as Prometheus has it ---------------------------------------------------------------------

    def _families(self) -> Iterator[Metric]:
        from prometheus_client import core  # noqa: PLC0415

        yield self._requests()
        yield self._failures()
        yield core.CounterMetricFamily(
            "natsfs_troubles",
            "Requests that failed for a reason that the log has as a warning or worse",
            value=self.troubles,
        )
        moved = core.CounterMetricFamily(
            "natsfs_bytes",
            "Bytes: read and written by programs, fetched from and stored on the server, found in "
            "the local cache",
            labels=["way"],
        )
        for way, value in self.bytes().items():
            moved.add_metric([way], value)
        yield moved
        yield core.CounterMetricFamily(
            "natsfs_reconnects", "Connections made after one was lost", value=self.reconnected
        )
        for name, text, gauge in self._gauges:
            yield core.GaugeMetricFamily(name, text, value=gauge())
        for name, labels in self._labels:
            yield core.InfoMetricFamily(name, "What the mount is", value=labels)

    def _requests(self) -> Metric:
        from prometheus_client.core import HistogramMetricFamily  # noqa: PLC0415
        from prometheus_client.utils import floatToGoString  # noqa: PLC0415

        found = HistogramMetricFamily(
            "natsfs_request_seconds",
            "Requests of the kernel, by how long they took",
            labels=["operation"],
        )
        bounds = [
            floatToGoString(bound)  # type: ignore[no-untyped-call]
            for bound in (*BOUNDS, float("inf"))
        ]
        for operation, timer in self._timers.items():
            buckets = list(zip(bounds, timer.counts(), strict=True))
            found.add_metric([operation], buckets, timer.seconds)
        return found

    def _failures(self) -> Metric:
        from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415

        found = CounterMetricFamily(
            "natsfs_request_failures",
            "Requests that were answered with an error, part of every day included",
            labels=["operation", "errno"],
        )
        for (operation, number), count in self._failed.items():
            name = errno.errorcode.get(number, str(number))
            found.add_metric([operation, name], count.value)
        return found


class _Collector:
    """What a registry of Prometheus asks."""

    def __init__(self, families: Callable[[], Iterator[Metric]]) -> None:
        self.collect = families
