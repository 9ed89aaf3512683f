"""What is stored on chunk subjects, whether or not an object owns it.

Concurrency: stateless.
"""

from __future__ import annotations

from collections.abc import Mapping

from natsfs.store.jetstream.bucket import Bucket
from natsfs.store.model import ChunkSet
from natsfs.store.protocol import StoredMessage, get_next, parse_stored
from natsfs.store.wire import chunk_prefix, chunk_subject


async def count_chunks(bucket: Bucket) -> Mapping[str, int]:
    """`ObjectStore.count_chunks`: STREAM.INFO tells the subjects, 100,000 at a time."""
    what, verb = f"chunks of bucket {bucket.name!r}", f"STREAM.INFO.{bucket.stream}"
    prefix = chunk_prefix(bucket.subjects)
    counts: dict[str, int] = {}
    offset = 0
    while True:
        wanted = {"subjects_filter": f"{prefix}*", "offset": offset}
        info = await bucket.api.ask(what, verb, wanted)
        subjects = info["state"].get("subjects") or {}
        counts.update((subject.removeprefix(prefix), n) for subject, n in subjects.items())
        offset += len(subjects)
        if not subjects or offset >= info.get("total", 0):
            return counts


async def inspect_chunks(bucket: Bucket, nuid: str) -> ChunkSet:
    """`ObjectStore.inspect_chunks`, at the leader."""
    subject = chunk_subject(bucket.subjects, nuid)
    last = await bucket.api.last_on(bucket.stream, subject)
    verb = f"STREAM.MSG.GET.{bucket.stream}"
    first = parse_stored(subject, await bucket.api.ask(subject, verb, get_next(subject)))
    info = await bucket.api.ask(
        subject, f"STREAM.INFO.{bucket.stream}", {"subjects_filter": subject}
    )
    count = (info["state"].get("subjects") or {}).get(subject, 0)
    return ChunkSet(nuid, count, _size(first, last, count), last.time_ns)


def _size(first: StoredMessage, last: StoredMessage, count: int) -> int:
    return len(first.data) * (count - 1) + len(last.data) if count else 0
