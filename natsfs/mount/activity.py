"""What a mount is doing, for `natsfs top` and for Prometheus."""

from __future__ import annotations

import time

import trio

from natsfs import __version__
from natsfs.control import Activity, Upload
from natsfs.data.cache import BlockCache
from natsfs.filesystem import Filesystem
from natsfs.metrics import BOUNDS, Metrics
from natsfs.mount.status import Status
from natsfs.store.session import Session

#: Files that are told of: more fit on no screen, and the loop waits for them.
MOST_UPLOADS = 100

#: The order in which they are told.
_STATES = ("storing", "open", "waiting")


class Active:
    """Answers the control socket, and shows what is not counted but measured."""

    def __init__(self, status: Status, metrics: Metrics, cache: BlockCache) -> None:
        self._status = status
        self._metrics = metrics
        for name, text, value in (
            (
                "pending_bytes",
                "Bytes that programs wrote and the server does not have",
                self._pending,
            ),
            ("pending_files", "Files that have them", self._unsaved),
            ("journal_files", "Files in the journal", self._journal),
            ("purges_pending", "Versions that wait to be freed", self._purges),
            ("open_handles", "Open files and directories", self._handles),
            ("objects", "Objects in the tree", self._objects),
            ("cache_used_bytes", "Bytes in the cache directory", lambda: cache.usage().used),
            ("cache_limit_bytes", "Bound of the cache", lambda: cache.usage().limit),
            ("connected", "Whether there is a connection", lambda: float(status.connected)),
            ("uptime_seconds", "Seconds since the mount began", lambda: status.uptime),
        ):
            metrics.gauge(f"natsfs_{name}", text, value)
        metrics.label("natsfs_mount", {**status.labels, "version": __version__})

    async def answer(self) -> Activity:
        """What has been done since the mount began."""
        return Activity(
            time=time.monotonic(),
            status=await self._status.answer(),
            bounds=list(BOUNDS),
            operations=self._metrics.operations(),
            bytes=self._metrics.bytes(),
            uploads=self._uploads(),
        )

    def _uploads(self) -> list[Upload]:
        found = [
            Upload(
                bucket=bucket,
                name=file.name,
                bytes=file.size,
                stored=file.stored,
                state=file.state,
            )
            for bucket, filesystem in self._status.running().items()
            for file in filesystem.unsaved_files()
        ]
        found.sort(key=lambda one: (_STATES.index(one["state"]), -one["bytes"]))
        return found[:MOST_UPLOADS]

    # -- gauges -----------------------------------------------------------------------------------

    def _running(self) -> list[Filesystem]:
        return list(self._status.running().values())

    def _pending(self) -> int:
        return sum(filesystem.pending_bytes() for filesystem in self._running())

    def _unsaved(self) -> int:
        return sum(len(filesystem.unsaved_files()) for filesystem in self._running())

    def _journal(self) -> int:
        return sum(len(filesystem.mounted.journal) for filesystem in self._running())

    def _purges(self) -> int:
        return sum(len(filesystem.mounted.purger) for filesystem in self._running())

    def _handles(self) -> int:
        return sum(len(filesystem.handles) for filesystem in self._running())

    def _objects(self) -> int:
        return sum(len(filesystem.mounted.namespace) for filesystem in self._running())


async def count_reconnects(session: Session, metrics: Metrics) -> None:
    """Count the connections that are made after one was lost, until cancelled."""
    connected = session.connected
    while True:
        await session.changed()
        if session.connected and not connected:
            metrics.reconnects.inc()
        connected = session.connected
        await trio.lowlevel.checkpoint()
