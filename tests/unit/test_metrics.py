"""Counters, what becomes of two looks at them, and how that is shown."""

from __future__ import annotations

import errno
from typing import Any

import prometheus_client
import pytest
from rich.console import Console

from natsfs.cli.activity import rates_between
from natsfs.cli.screen import screen
from natsfs.control import Activity, Operation, Upload
from natsfs.metrics import BOUNDS, CONTENT_TYPE, Metrics


def activity(time: float, metrics: Metrics, uploads: list[Upload] | None = None) -> Activity:
    status: Any = {
        "directory": "/mnt/" + "long" * 30,
        "source": "nats://h:4222/b",
        "connection": "connected",
        "uptime": 3700.0,
        "pending": 5,
        "errors": metrics.troubles,
        "reconnects": 0,
        "cache": {"used": 1, "limit": 2, "paused": ""},
    }
    operations = {name: Operation(**counted) for name, counted in metrics.operations().items()}
    return Activity(
        time=time,
        status=status,
        bounds=list(BOUNDS),
        operations=operations,
        bytes=metrics.bytes(),
        uploads=uploads or [],
    )


def test_requests_are_counted() -> None:
    """E: each request is in the first bound that it did not exceed and in all after it."""
    metrics = Metrics()
    for seconds in (0.00004, 0.002, 100.0):
        metrics.took("read", seconds)
    metrics.failed("read", errno.ENOENT, trouble=False)
    metrics.failed("read", errno.EIO, trouble=True)
    found = metrics.operations()["read"]
    assert (found["counts"][0], found["counts"][-2], found["counts"][-1]) == (1, 2, 3)
    assert found["counts"] == sorted(found["counts"])
    assert len(found["counts"]) == len(BOUNDS) + 1
    assert found["seconds"] == pytest.approx(100.00204)
    assert (found["failures"], metrics.troubles) == (2, 1)


def test_rendered() -> None:
    """E: Prometheus gets counters, gauges as they are now, and who that is."""
    metrics, value = Metrics(), [1.0]
    metrics.took("read", 0.002)
    metrics.fetched.inc(7)
    metrics.gauge("natsfs_pending_bytes", "what waits", lambda: value[0])
    metrics.label("natsfs_mount", {"source": 'a"b'})
    value[0] = 2.0
    text = metrics.rendered().decode()
    assert 'natsfs_request_seconds_bucket{le="0.0025",operation="read"} 1.0' in text
    assert 'natsfs_request_seconds_bucket{le="0.001",operation="read"} 0.0' in text
    assert 'natsfs_bytes_total{way="fetched"} 7.0' in text
    assert "natsfs_pending_bytes 2.0" in text
    assert 'natsfs_mount_info{source="a\\"b"} 1.0' in text
    assert 'natsfs_request_seconds_bucket{le="+Inf",operation="read"} 1.0' in text
    assert 'natsfs_request_seconds_sum{operation="read"} 0.002' in text
    assert "_created" not in text
    assert CONTENT_TYPE == prometheus_client.CONTENT_TYPE_PLAIN_0_0_4


def test_rendered_as_the_client_renders() -> None:
    """E: Prometheus reads what its own histograms and counters would show."""
    metrics, registry = Metrics(), prometheus_client.CollectorRegistry()
    timer = prometheus_client.Histogram(
        *("natsfs_request_seconds", "Requests of the kernel, by how long they took"),
        labelnames=["operation"],
        buckets=BOUNDS,
        registry=registry,
    )
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    for seconds in (*BOUNDS, 0.0003, 100.0):
        metrics.took("read", seconds)
        timer.labels("read").observe(seconds)
    theirs = prometheus_client.generate_latest(registry).decode()
    assert theirs.strip()
    assert metrics.rendered().decode().startswith(theirs)


def test_two_mounts_count_apart() -> None:
    """E: what one mount counts is not another's."""
    one, other = Metrics(), Metrics()
    one.read.inc(5)
    one.took("read", 1.0)
    assert (other.bytes()["read"], other.operations()) == (0, {})


def test_rates() -> None:
    """E: rates are those between two looks, and totals those since the mount began."""
    metrics = Metrics()
    metrics.took("write", 0.5)
    before = activity(10.0, metrics)
    for _ in range(98):
        metrics.took("read", 0.0002)
    metrics.took("read", 0.02)
    metrics.took("read", 0.02)
    metrics.failed("read", errno.EIO, trouble=True)
    metrics.fetched.inc(300)
    metrics.cached.inc(100)
    rates = rates_between(before, activity(12.0, metrics))
    read, write = rates.operations
    assert (read.name, read.per_second, read.total, read.failures) == ("read", 50.0, 100, 1)
    assert read.mean == pytest.approx((98 * 0.0002 + 0.04) / 100)
    assert (read.p50, read.p99) == (0.00025, 0.025)
    assert (write.name, write.per_second, write.total) == ("write", 0.0, 1)
    assert (write.mean, write.p50) == (None, None)
    assert (rates.requests, rates.cached) == (50.0, 0.25)
    assert (rates.bytes["fetched"], rates.bytes["read"]) == (150.0, 0.0)


def test_nothing_happened() -> None:
    """E: a mount at rest has no rates, and dividing by nothing is no trouble."""
    same = activity(10.0, Metrics())
    rates = rates_between(same, same)
    assert (rates.requests, rates.cached, list(rates.operations)) == (0.0, None, [])


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_screen_fits(width: int) -> None:
    """E: no line of `top` is wider than the screen, however long names are, nor obeyed by it."""
    metrics = Metrics()
    for number in range(30):
        metrics.took(f"operation{number}", 0.1)
    name = "\x1b[2J" + "an/object/" * 30
    upload = Upload(bucket="b", name=name, bytes=1000, stored=500, state="storing")
    waiting = Upload(bucket="b", name="w", bytes=0, stored=None, state="waiting")
    empty = activity(1.0, Metrics())
    looks = rates_between(empty, activity(2.0, metrics, [upload, waiting] * 20))
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(screen(looks, width, 13))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width
    assert "\x1b[2J" not in captured.get()
    if width >= 80:
        assert len(lines) <= 13 + 10
        assert "storing" in captured.get()
        assert "50%" in captured.get()
