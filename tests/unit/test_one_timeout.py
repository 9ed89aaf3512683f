"""How long a call of the store takes when a server answers some requests and not others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import cast

import pytest
import trio
import trio.testing

from natsfs.config import ServerConfig
from natsfs.errors import NatsfsError, RequestTimeout
from natsfs.store.jetstream.api import Api, Plane
from natsfs.store.jetstream.store import JetStreamStore
from natsfs.store.model import BucketStatus, MetaWrite, ObjectInfo
from natsfs.store.session import Answer, Message, NoResponders, Request

TIMEOUT = 60.0

#: Seconds by which the last attempt and the pauses may exceed that.
SLACK = 1.0


class Server:
    """A session with a server that answers nothing, or to what is published that nobody listens."""

    config = ServerConfig(timeout=TIMEOUT)
    patient = False
    connected = True
    losses = 0
    url = "nats://there"
    server_version = (2, 15, 0)
    max_payload = 1024 * 1024

    def __init__(self, *, denies: bool) -> None:
        self.denies = denies

    async def request(self, request: Request, *, timeout: float | None = None) -> Message:
        (answer,) = await self.exchange([request], timeout=timeout)
        assert isinstance(answer, NatsfsError)
        raise answer

    async def collect(self, request: Request, *, timeout: float | None = None) -> list[Message]:
        return [await self.request(request, timeout=timeout)]

    async def exchange(
        self, requests: Sequence[Request], *, timeout: float | None = None
    ) -> list[Answer]:
        if self.denies and not requests[0].subject.startswith("$JS.API"):
            return [NoResponders("nobody")] * len(requests)
        await trio.sleep(TIMEOUT if timeout is None else timeout)
        return [RequestTimeout("no answer")] * len(requests)


async def commit(store: JetStreamStore) -> None:
    await store.commit([MetaWrite(INFO, 0)])


async def rename(store: JetStreamStore) -> None:
    await store.commit([MetaWrite(INFO, 0), MetaWrite(OTHER, 3)])


async def upload(store: JetStreamStore) -> None:
    draft = store.draft("f")
    await draft.write(bytes(300_000))
    await draft.flush()


async def read(store: JetStreamStore) -> None:
    await store.read(INFO, 0, 10)


INFO = ObjectInfo("f", "b", "$O.b.M.Zg==", nuid="n", size=300_000, chunks=3, max_chunk_size=131072)
STATUS = BucketStatus(
    *("b", "OBJ_b", "", None, -1, "file", 3, False, False, {}, 0, 0, 5, 1), allow_atomic=True
)
OTHER = ObjectInfo("g", "b", "$O.b.M.Zw==", nuid="n")


@pytest.mark.parametrize("denies", [False, True], ids=["silent", "nobody listens"])
@pytest.mark.parametrize("call", [commit, rename, upload, read])
def test_one_timeout(call: Callable[[JetStreamStore], Awaitable[None]], denies: bool) -> None:
    """A5: whatever a call asks to find out what became of an attempt, it ends within one time-out,
    and not after one more for each thing that it asks."""

    async def main() -> float:
        api = Api(cast(Plane, Server(denies=denies)))
        begin = trio.current_time()
        with pytest.raises(NatsfsError):
            await call(JetStreamStore(api, STATUS))
        return trio.current_time() - begin

    duration = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert TIMEOUT / 2 < duration < TIMEOUT + SLACK
