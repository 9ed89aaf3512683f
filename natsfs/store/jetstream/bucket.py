"""What one bucket is called and what its stream can do, shared by the parts of a store.

Concurrency: `status` is replaced as a whole, by `refresh`; it may be out of date at any time, so it
decides what to try and never what to believe.
"""

from __future__ import annotations

from natsfs.errors import ReadOnlyError
from natsfs.store.jetstream.api import Api
from natsfs.store.model import BucketStatus, ObjectInfo
from natsfs.store.protocol import StoredMessage
from natsfs.store.streams import parse_status
from natsfs.store.wire import bucket_of, parse_info


class Bucket:
    """One bucket's names, and its stream as last described."""

    def __init__(self, api: Api, status: BucketStatus) -> None:
        self.api = api
        self.status = status
        self.name = status.bucket
        self.stream = status.stream

    @property
    def subjects(self) -> str:
        """The bucket whose name is in the subjects: a mirror keeps its origin's (protocol.md
        2.3)."""
        return bucket_of(self.status.mirror or "") or self.name

    async def refresh(self) -> BucketStatus:
        """Ask for the stream as it is now.  Errors: `BucketNotFoundError`."""
        info = await self.api.ask(f"bucket {self.name!r}", f"STREAM.INFO.{self.stream}")
        self.status = parse_status(info)
        return self.status

    def check_writable(self) -> None:
        """Errors: `ReadOnlyError` for a mirror, whose subjects nobody may publish to here."""
        if self.status.mirror is not None:
            raise ReadOnlyError(f"bucket {self.name!r} mirrors {self.status.mirror}")

    async def last_info(self, subject: str) -> ObjectInfo:
        """The meta on *subject*, from the leader.  Errors: `NotFoundError`, `MalformedMeta`."""
        return self.parse(await self.api.last_on(self.stream, subject))

    def parse(self, message: StoredMessage) -> ObjectInfo:
        """The meta in *message*.  Errors: `MalformedMeta`."""
        return parse_info(
            message.subject,
            bytes(message.data),
            bucket=self.name,
            revision=message.sequence,
            time_ns=message.time_ns,
        )
