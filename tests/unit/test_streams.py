"""Bucket settings as stream configurations, stream descriptions as buckets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from natsfs.errors import InvalidArgument, ServerRefused
from natsfs.store.model import AccountLimits, BucketConfig, Placement
from natsfs.store.streams import clock_ahead, parse_account, parse_status, stream_config

INFO: dict[str, Any] = {
    "config": {
        "name": "OBJ_b",
        "description": "d",
        "max_age": 1_500_000_000,
        "max_bytes": 1000,
        "storage": "memory",
        "num_replicas": 3,
        "compression": "s2",
        "allow_direct": True,
        "allow_atomic": True,
        "sealed": True,
        "metadata": {"_nats.ver": "2.15.1", "k": "v"},
    },
    "created": "2026-11-21T04:33:00.000000001Z",
    "state": {"messages": 5, "bytes": 100, "last_seq": 9},
}


def test_least_config() -> None:
    """A bucket has what the Object Store needs, and nothing that an old server does not know."""
    assert stream_config(BucketConfig("b")) == {
        "name": "OBJ_b",
        "subjects": ["$O.b.C.>", "$O.b.M.>"],
        "retention": "limits",
        "discard": "new",
        "storage": "file",
        "num_replicas": 1,
        "max_bytes": -1,
        "max_age": 0,
        "allow_rollup_hdrs": True,
        "allow_direct": True,
    }


def test_full_config() -> None:
    """Every setting has its field."""
    config = BucketConfig(
        "b",
        description="d",
        ttl=1.5,
        placement=Placement("c1", ("ssd",)),
        compression=True,
        metadata={"k": "v"},
    )
    stream = stream_config(config, allow_atomic=True, allow_msg_ttl=True)
    assert stream["max_age"] == 1_500_000_000
    assert stream["placement"] == {"cluster": "c1", "tags": ["ssd"]}
    assert (stream["compression"], stream["metadata"]) == ("s2", {"k": "v"})
    assert (stream["description"], stream["allow_atomic"], stream["allow_msg_ttl"]) == (
        "d",
        True,
        True,
    )


def test_creation() -> None:
    """Every creation is unlike any other, and the bucket's own metadata do not show it."""
    config = BucketConfig("b", metadata={"k": "v"})
    stream = stream_config(config, creation="x")
    assert stream != stream_config(config, creation="y")
    assert parse_status({**INFO, "config": stream}).metadata == {"k": "v"}


@pytest.mark.parametrize("ttl", [None, 0.1, 60.0, 1e6])
def test_creation_without_metadata(ttl: float | None) -> None:
    """A3: a server before 2.10 tells two creations apart by a window that none of its limits and no
    user notices."""
    config = BucketConfig("b", ttl=ttl)
    x, again, y = (
        stream_config(config, creation=creation, has_metadata=False) for creation in "xxy"
    )
    assert x == again != y
    window = min(ttl or 120, 120) * 1_000_000_000
    assert 0.99 * window <= x["duplicate_window"] <= window


@pytest.mark.parametrize(
    "change",
    [
        {"bucket": "a.b"},
        {"storage": "tape"},
        {"replicas": 0},
        {"replicas": 6},
        {"max_bytes": -2},
        {"ttl": 0.01},
    ],
    ids=str,
)
def test_bad_settings(change: dict[str, Any]) -> None:
    """Settings out of their bounds are refused before the server sees them."""
    with pytest.raises(InvalidArgument):
        stream_config(replace(BucketConfig("b"), **change))


def test_status() -> None:
    """A description of the server, field for field; the server's own metadata is left out."""
    status = parse_status(INFO)
    assert (status.bucket, status.stream, status.description) == ("b", "OBJ_b", "d")
    assert (status.ttl, status.max_bytes, status.storage, status.replicas) == (
        1.5,
        1000,
        "memory",
        3,
    )
    assert (status.sealed, status.compression, status.metadata) == (True, True, {"k": "v"})
    assert (status.size, status.messages, status.last_revision) == (100, 5, 9)
    assert status.created_ns % 1_000_000_000 == 1
    assert (status.allow_atomic, status.allow_msg_ttl, status.allow_direct) == (True, False, True)
    assert status.mirror is None


def test_status_of_an_old_stream() -> None:
    """Fields that an old server leaves out mean what they meant then."""
    status = parse_status({**INFO, "config": {"name": "OBJ_b", "mirror": {"name": "OBJ_origin"}}})
    assert (status.ttl, status.max_bytes, status.sealed, status.compression) == (
        None,
        -1,
        False,
        False,
    )
    assert status.allow_direct is False
    assert status.mirror == "OBJ_origin"


@pytest.mark.parametrize(
    "info", [{}, {**INFO, "config": {"name": "KV_b"}}, {**INFO, "state": None}], ids=str
)
def test_no_status(info: dict[str, Any]) -> None:
    """What describes no bucket is refused."""
    with pytest.raises(ServerRefused):
        parse_status(info)


@pytest.mark.parametrize(
    ("asked", "ahead"), [(100, 0), (150, 0), (200, 0), (90, -10), (230, 30)], ids=str
)
def test_clocks(asked: int, ahead: int) -> None:
    """M3: a clock that may show the same as ours is not corrected for the way of its answer."""
    assert clock_ahead(asked, 100, 200) == ahead


def test_account() -> None:
    """M8: an account has limits of its own or a tier for each number of replicas."""

    def usage(storage: int, limit: int) -> dict[str, Any]:
        limits = {"max_storage": limit, "max_memory": -1}
        return {"storage": storage, "memory": 1, "limits": limits}

    assert parse_account(usage(10, 100)) == AccountLimits(10, 100, 1, -1)
    tiers = {"R1": usage(10, 100), "R3": usage(5, 50)}
    assert parse_account({"tiers": tiers, **usage(0, 0)}) == AccountLimits(15, 150, 2, -1)
    tiers["R3"] = usage(5, -1)
    assert parse_account({"tiers": tiers}).storage_limit == -1
    with pytest.raises(ServerRefused):
        parse_account({})
