"""What a mount counts: its requests and how long they take, bytes, failures.

The only module that knows the Prometheus client.  An observation costs 0.6 µs and a count 0.25, on
the machine on which a request that does nothing costs 45 µs of Python; a request takes one
observation, and one that moves bytes a count besides.

Concurrency: whatever is counted is counted at once; nothing waits.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypedDict

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

#: What Prometheus is told that `Metrics.rendered` is.
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4

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


class Metrics:
    """The counters of one mount."""

    def __init__(self) -> None:
        # A second time series for each would say when it was created, which is when the mount was.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "natsfs_request_seconds",
            "Requests of the kernel, by how long they took",
            ["operation"],
            buckets=BOUNDS,
            registry=self._registry,
        )
        self._failures = Counter(
            "natsfs_request_failures",
            "Requests that were answered with an error, part of every day included",
            ["operation", "errno"],
            registry=self._registry,
        )
        self._troubles = Counter(
            "natsfs_troubles",
            "Requests that failed for a reason that the log has as a warning or worse",
            registry=self._registry,
        )
        moved = Counter(
            "natsfs_bytes",
            "Bytes: read and written by programs, fetched from and stored on the server, found in "
            "the local cache",
            ["way"],
            registry=self._registry,
        )
        self.read, self.written, self.fetched, self.stored, self.cached = map(moved.labels, WAYS)
        self.reconnects = Counter(
            "natsfs_reconnects", "Connections made after one was lost", registry=self._registry
        )
        self._timers: dict[str, Histogram] = {}
        self._failed: dict[tuple[str, int], Counter] = {}

    def took(self, operation: str, seconds: float) -> None:
        """A request has been answered."""
        timer = self._timers.get(operation)
        if timer is None:
            timer = self._timers[operation] = self._requests.labels(operation)
        timer.observe(seconds)

    def failed(self, operation: str, number: int, *, trouble: bool) -> None:
        """A request was answered with errno *number*; *trouble* if somebody has to hear of it."""
        # One for each write: the kernel asks for capabilities, and there are none.
        failed = self._failed.get((operation, number))
        if failed is None:
            name = errno.errorcode.get(number, str(number))
            failed = self._failed[operation, number] = self._failures.labels(operation, name)
        failed.inc()
        if trouble:
            self._troubles.inc()

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Show what *value* gives whenever somebody asks."""
        Gauge(name, text, registry=self._registry).set_function(value)

    def label(self, name: str, labels: dict[str, str]) -> None:
        """Show *labels*, which say what all this is about."""
        Info(name, "What the mount is", registry=self._registry).info(labels)

    def rendered(self) -> bytes:
        """Everything as Prometheus reads it."""
        return generate_latest(self._registry)

    # -- for those who show it --------------------------------------------------------------------

    @property
    def troubles(self) -> int:
        """How many requests failed for a reason that the log has."""
        return _value(self._troubles)

    def bytes(self) -> dict[str, int]:
        """The bytes that went each of `WAYS`."""
        counters = (self.read, self.written, self.fetched, self.stored, self.cached)
        return dict(zip(WAYS, map(_value, counters), strict=True))

    def operations(self) -> dict[str, Counted]:
        """The requests by what was asked for."""
        found = {name: Counted(counts=[], seconds=0.0, failures=0) for name in self._timers}
        for sample in (s for family in self._requests.collect() for s in family.samples):
            counted = found[sample.labels["operation"]]
            if sample.name.endswith("_bucket"):
                counted["counts"].append(int(sample.value))
            elif sample.name.endswith("_sum"):
                counted["seconds"] = sample.value
        for sample in (s for family in self._failures.collect() for s in family.samples):
            if sample.labels["operation"] in found:
                found[sample.labels["operation"]]["failures"] += int(sample.value)
        return found

    @property
    def reconnected(self) -> int:
        """How often a lost connection was made again."""
        return _value(self.reconnects)


def _value(counter: Counter) -> int:
    (family,) = counter.collect()
    return int(family.samples[0].value)
