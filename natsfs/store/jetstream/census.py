"""What is stored on chunk subjects, whether or not an object owns it, and how many metas there are.

Concurrency: stateless.
"""

from __future__ import annotations

from collections.abc import Mapping

from natsfs.progress import Progress, unheard
from natsfs.store.jetstream.bucket import Bucket
from natsfs.store.model import ChunkSet
from natsfs.store.protocol import StoredMessage, get_next, parse_stored
from natsfs.store.wire import chunk_prefix, chunk_subject, meta_prefix


async def count_chunks(bucket: Bucket, progress: Progress = unheard) -> Mapping[str, int]:
    """`ObjectStore.count_chunks`."""
    prefix = chunk_prefix(bucket.subjects)
    counts = await _count(bucket, f"{prefix}*", progress)
    return {subject.removeprefix(prefix): count for subject, count in counts.items()}


async def count_metas(bucket: Bucket) -> int:
    """`ObjectStore.count_metas`, at the leader: 600 to 700 ms of the server's time for 100,000, so
    this is for servers and buckets that a direct get cannot ask (see `Bucket.survey`)."""
    return sum((await _count(bucket, f"{meta_prefix(bucket.subjects)}*")).values())


async def _count(bucket: Bucket, subjects: str, progress: Progress = unheard) -> dict[str, int]:
    """How many messages are on each of *subjects*: STREAM.INFO tells 100,000 at a time."""
    what, verb = f"what is in bucket {bucket.name!r}", f"STREAM.INFO.{bucket.stream}"
    counts: dict[str, int] = {}
    offset = 0
    progress(0, 0)
    while True:
        wanted = {"subjects_filter": subjects, "offset": offset}
        info = await bucket.api.ask(what, verb, wanted)
        found = info["state"].get("subjects") or {}
        counts.update(found)
        offset += len(found)
        total = info.get("total", 0)
        progress(offset, max(offset, total))
        if not found or offset >= total:
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
