"""Following buckets by lists that cannot be trusted: pages that shift, streams without a leader."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from natsfs.config import ServerConfig
from natsfs.errors import BucketNotFoundError
from natsfs.store.jetstream import listing
from natsfs.store.jetstream.api import Api
from natsfs.store.jetstream.listing import BucketsWatcher
from natsfs.store.model import (
    NOTHING,
    BucketCreated,
    BucketDeleted,
    BucketEvent,
    BucketsListed,
)


def stream(bucket: str, second: int = 1) -> dict[str, Any]:
    """The description of a stream that was created in this second of a minute."""
    return {
        "config": {"name": f"OBJ_{bucket}"},
        "state": {"bytes": 0, "messages": 0, "last_seq": 0},
        "created": f"2026-11-25T18:00:{second:02}Z",
    }


class FakeApi:
    """A server with the *streams* that INFO knows, of which LIST shows *listed*, page by page, and
    names others as *missing*.  Nothing is pushed."""

    def __init__(self) -> None:
        self.streams: dict[str, dict[str, Any]] = {}
        self.unlisted: set[str] = set()
        self.missing: list[str] = []
        self.page = 2
        self.session = self
        self.config = ServerConfig(domain="elsewhere")

    @property
    def control(self) -> FakeApi:
        return self

    def event(self, subject: str) -> str:
        return subject

    @asynccontextmanager
    async def subscribe(self, *subjects: str) -> AsyncGenerator[SimpleNamespace, None]:
        yield SimpleNamespace(receive=trio.sleep_forever)

    async def ask(
        self, what: str, verb: str, payload: Mapping[str, Any] = NOTHING
    ) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if verb == "STREAM.LIST":
            listed = [s for name, s in self.streams.items() if name not in self.unlisted]
            start = payload["offset"]
            return {
                "total": len(listed),
                "streams": listed[start : start + self.page],
                "missing": self.missing,
            }
        name = verb.rpartition(".OBJ_")[2]
        if name not in self.streams:
            raise BucketNotFoundError(name)
        return self.streams[name]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    """One with buckets a, b and c."""
    monkeypatch.setattr(listing, "RELIST", 0.0)
    found = FakeApi()
    for bucket in "abc":
        found.streams[bucket] = stream(bucket)
    return found


@asynccontextmanager
async def following(api: FakeApi) -> AsyncIterator[AsyncIterator[BucketEvent]]:
    """What is told after the first list, which told of everything."""
    async with aclosing(BucketsWatcher(cast(Api, api)).events()) as events:
        first = [await anext(events) for _ in range(4)]
        assert [type(event) for event in first] == [BucketCreated] * 3 + [BucketsListed]
        yield events


async def name_of_next(events: AsyncIterator[BucketEvent]) -> str:
    event = await anext(events)
    assert isinstance(event, BucketCreated)
    return event.status.bucket


async def test_a_bucket_that_a_list_leaves_out(api: FakeApi) -> None:
    """B1: a bucket that a list leaves out, because its pages shift, is not taken for deleted."""
    async with following(api) as events:
        api.unlisted = {"b"}
        api.streams["d"] = stream("d")
        assert await name_of_next(events) == "d"
        del api.streams["b"]
        event = await anext(events)
        assert isinstance(event, BucketDeleted)
        assert event.bucket == "b"


async def test_a_bucket_without_a_leader(api: FakeApi) -> None:
    """B1: a bucket that nobody can describe now is not taken for deleted."""
    async with following(api) as events:
        del api.streams["b"]
        api.missing = ["OBJ_b"]
        api.streams["d"] = stream("d")
        assert await name_of_next(events) == "d"
        api.missing = []
        event = await anext(events)
        assert isinstance(event, BucketDeleted)
        assert event.bucket == "b"


async def test_made_again(api: FakeApi) -> None:
    """B1: a bucket that was made again between two lists is told as gone and as new."""
    async with following(api) as events:
        api.streams["b"] = stream("b", 2)
        gone = await anext(events)
        assert isinstance(gone, BucketDeleted)
        assert await name_of_next(events) == gone.bucket == "b"


@pytest.mark.expects_log("a bucket is left out of the list: .*unreadable")
async def test_an_unreadable_description(api: FakeApi) -> None:
    """B1: a stream whose description cannot be read leaves the others as they are."""
    async with following(api) as events:
        api.streams["odd"] = {"config": {"name": "OBJ_odd"}}
        api.streams["other"] = {"config": {"name": "other"}}
        api.streams["d"] = stream("d")
        assert await name_of_next(events) == "d"
