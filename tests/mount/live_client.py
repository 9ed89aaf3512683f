"""nats-py that stays connected, and makes the changes of `random_changes` as a client of its kind.

`foreign.ForeignClient` starts a process for each call, which takes longer than what is measured
here.  nats-py runs in a thread with a loop of its own; every call waits for its acknowledgement.
"""

from __future__ import annotations

import asyncio
import json
import threading
from base64 import urlsafe_b64encode
from collections.abc import Coroutine
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TypeVar

import nats
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.object_store import ObjectStore

from .coherence import WORK
from .random_changes import Change

T = TypeVar("T")

#: Seconds for one call.
TIMEOUT = 30.0

#: What it can do; nats-py has neither renames nor links.
KINDS = ("create", "overwrite", "unlink", "mkdir", "rmdir", "chmod", "utime")


class LiveClient:
    """A `Maker` that is no mount; a context manager."""

    def __init__(self, url: str, bucket: str) -> None:
        self._url = url
        self._bucket = bucket
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        #: What each object's metadata says, because a put of nats-py forgets it.
        self._metadata: dict[str, dict[str, str]] = {}
        self._connection: Client | None = None

    def make(self, change: Change) -> None:
        """Make *change* below `WORK`."""
        self._call(self._make(change))

    def show(self, sentinel: str) -> None:
        """Make something with this name."""
        self._call(self._store.put(sentinel, b""))

    async def _make(self, change: Change) -> None:
        name = f"{WORK}/{change.path}"
        marker = f"{name}/"
        match change.what:
            case "create" | "overwrite":
                await self._store.put(name, change.body)
                # A file that is overwritten keeps its mode, but not its time.
                self._metadata.get(name, {}).pop("mtime", None)
                await self._describe(name)
            case "unlink":
                await self._store.delete(name)
                self._metadata.pop(name, None)
            case "mkdir":
                await self._store.put(marker, b"")
            case "rmdir":
                await self._store.delete(marker)
                self._metadata.pop(marker, None)
            case _:
                await self._note(change, name, marker)

    async def _note(self, change: Change, name: str, marker: str) -> None:
        try:
            await self._store.get_info(name)
        except nats.js.errors.NotFoundError:
            name = marker
        noted = self._metadata.setdefault(name, {})
        if change.what == "chmod":
            kind = 0o040000 if name == marker else 0o100000
            noted["mode"] = f"{kind | change.number:07o}"
        else:
            noted["mtime"] = rfc_3339(change.number)
        await self._describe(name)

    async def _describe(self, name: str) -> None:
        """Write the metadata of *name* into its meta."""
        metadata = self._metadata.get(name)
        if not metadata:
            return
        encoded = urlsafe_b64encode(name.encode()).decode()
        subject = f"$O.{self._bucket}.M.{encoded}"
        message = await self._stream.get_last_msg(f"OBJ_{self._bucket}", subject)
        meta = json.loads(message.data or b"")
        meta["metadata"] = metadata
        rollup = {"Nats-Rollup": "sub"}
        await self._stream.publish(subject, json.dumps(meta).encode(), headers=rollup)

    def __enter__(self) -> LiveClient:
        self._thread.start()
        self._call(self._connect())
        for name in ("sentinels/", f"{WORK}/"):
            self._call(self._store.put(name, b""))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection is not None:
            self._call(self._connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _connect(self) -> None:
        self._connection = await nats.connect(self._url)
        self._stream: JetStreamContext = self._connection.jetstream(timeout=TIMEOUT)
        self._store: ObjectStore = await self._stream.object_store(self._bucket)

    def _call(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(TIMEOUT)


def rfc_3339(nanoseconds: int) -> str:
    """A time as object metadata has it."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
