"""When metas expire, and how long one may live that is written again.

A bucket with a TTL (`max_age`) drops every message when it is that old; a message may have a life
of its own (`Nats-TTL`).  Chunks are older than their meta, and a meta that is written again is as
young as can be: without a life of its own it would outlive its chunks, and be an entry with a size
and no data (protocol.md 1.7).

Pure and synchronous.
"""

from __future__ import annotations

from natsfs.store.model import EVER, ObjectInfo

_NS = 1_000_000_000


def expiry_ns(info: ObjectInfo, max_age_ns: int) -> int | None:
    """When the server drops the meta *info* by itself, in nanoseconds since the epoch of its clock;
    None for never.  *max_age_ns* is the bucket's TTL, 0 for none."""
    if info.ttl == EVER:
        return None
    lives = [life for life in (info.ttl * _NS, max_age_ns) if life > 0]
    return info.time_ns + min(lives) if lives else None


def lease(info: ObjectInfo, max_age_ns: int, now_ns: int) -> int | None:
    """The `MetaWrite.ttl` with which *info*, as it was read, may be written again: what is left of
    its life, at least a second; None where nothing depends on it.

    Objects without bytes of their own begin a new life in a bucket with a TTL, as touched files
    would in a directory that is swept by age.
    """
    ends = expiry_ns(info, max_age_ns)
    if ends is None or not (info.chunks or info.ttl):
        return None
    # Rounded down: better a second without the bytes' last one than the other way round.
    return max(1, (ends - now_ns) // _NS)
