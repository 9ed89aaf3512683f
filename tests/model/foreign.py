"""nats-py as the other client: in a thread of its own, connected once.

A process for each change, as the tests across clients have it, would take longer than all the
operations that are compared.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

import nats
from nats.aio.client import Client
from nats.js.object_store import ObjectStore

#: Seconds that one change may take.
TIMEOUT = 30.0


class NatsPy:
    """A context manager: nats-py on one bucket."""

    def __init__(self, url: str, bucket: str) -> None:
        self._url = url
        self._bucket = bucket
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def put(self, name: str, body: bytes) -> None:
        """Store an object, and return when it is stored."""
        self._do(self._store.put(name, body))

    def delete(self, name: str) -> None:
        """Delete an object."""
        self._do(self._store.delete(name))

    def __enter__(self) -> NatsPy:
        self._thread.start()
        self._client: Client = self._do(nats.connect(self._url))
        self._store: ObjectStore = self._do(self._client.jetstream().object_store(self._bucket))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._do(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT)
        self._loop.close()

    def _do(self, what: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(TIMEOUT)
