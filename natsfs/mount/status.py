"""What a mount says of itself on its control socket."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from natsfs.config import MountConfig, ServerConfig
from natsfs.control import CacheStatus, LeftBehind, MalformedEntry, MountStatus, server_status
from natsfs.data.cache import BlockCache
from natsfs.filesystem import Filesystem, Served
from natsfs.metrics import Metrics
from natsfs.store.session import Session


class Status:
    """Answers the control socket."""

    def __init__(
        self,
        config: MountConfig,
        server: ServerConfig,
        session: Session,
        served: Served,
        cache: BlockCache,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._server = server
        self._session = session
        self._served = served
        self._cache = cache
        self._metrics = metrics
        self._since = time.monotonic()

    def running(self) -> Mapping[str, Filesystem]:
        """The filesystems in use, by the names of their buckets."""
        return self._served.running()

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._session.connected

    @property
    def uptime(self) -> float:
        """Seconds since the mount began."""
        return time.monotonic() - self._since

    @property
    def labels(self) -> dict[str, str]:
        """What tells this mount from others."""
        return {
            "source": self._config.source or self._config.bucket,
            "directory": str(self._config.directory),
        }

    async def answer(self) -> MountStatus:
        running = self._served.running()
        mounted = [filesystem.mounted for filesystem in running.values()]
        left = [one for filesystem in running.values() for one in filesystem.recovery.left]
        status = MountStatus(
            source=self.labels["source"],
            directory=self.labels["directory"],
            bucket=self._config.bucket,
            pid=os.getpid(),
            uptime=self.uptime,
            connection="connected" if self.connected else "disconnected",
            read_only=self._served.read_only,
            objects=sum(len(one.namespace) for one in mounted),
            pending=sum(filesystem.pending_bytes() for filesystem in running.values()),
            left=LeftBehind(files=len(left), bytes=sum(one.size for one in left)),
            journal=sum(len(one.journal) for one in mounted),
            errors=self._metrics.troubles,
            reconnects=self._metrics.reconnected,
            cache=self._cache_status(),
            server=server_status(self._server),
            malformed=[
                MalformedEntry(name=subject, reason=event.reason)
                for one in mounted
                for subject, event in one.malformed.items()
            ],
        )
        if not self._config.bucket:
            status["buckets"] = sorted(running)
        return status

    def _cache_status(self) -> CacheStatus:
        usage = self._cache.usage()
        return CacheStatus(used=usage.used, limit=usage.limit, paused=usage.paused)
