"""How a bucket is configured as a stream, and how a stream's description reads as a bucket.

Pure: values in, values out.  Protocol facts: protocol.md 1.2 (what each client creates), 2.5
(`allow_atomic`), 2.9 (account tiers).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

from natsfs.errors import InvalidArgument, ServerRefused
from natsfs.store.model import AccountLimits, BucketConfig, BucketStatus
from natsfs.store.wire import bucket_of, chunk_prefix, meta_prefix, parse_time, stream_name

#: Metadata keys that the server adds to every stream by itself (protocol.md 1.2).
SERVER_METADATA = "_nats."

#: The metadata key that makes a creation unlike every other.  JetStream takes creating an equal
#: stream for a success and says `did_create` in both cases (seen on 2.15.1); with a value of its
#: own in it, the second creation is refused (10058) and a repeated one is not.
CREATION = "natsfs.creation"

#: Seconds for which a stream remembers message ids by default, and never longer than messages live.
DUPLICATE_WINDOW = 120.0

#: What natsfs gives the streams of buckets that it creates, and other clients do not, or not all:
#: all-or-nothing renames, tombstones that expire, reads past the leader, compare-and-set with
#: replacement.  None of them changes how another client sees the bucket.
FEATURES = ("allow_rollup_hdrs", "allow_direct", "allow_msg_ttl", "allow_atomic")

#: The first servers that know them, where there are others.
FEATURES_SINCE = {"allow_msg_ttl": (2, 11, 0), "allow_atomic": (2, 12, 0)}

#: The replicas that a stream may have: JetStream's own bound (StreamMaxReplicas).
MAX_REPLICAS = 5


def stream_config(
    config: BucketConfig,
    *,
    allow_atomic: bool = False,
    allow_msg_ttl: bool = False,
    creation: str = "",
    has_metadata: bool = True,
) -> dict[str, Any]:
    """The configuration for STREAM.CREATE.

    *creation* identifies this one: it stands in the metadata under `CREATION`, so that nobody
    creates the same bucket at the same time.  Before 2.10 streams have no metadata (*has_metadata*
    is False); there it makes the duplicate window up to 1 % shorter, which nobody else notices.
    *allow_atomic* needs server 2.12, *allow_msg_ttl* 2.11; before, a strict server refuses the
    field and another ignores it.

    Errors: `InvalidArgument` (the bucket's name, or a setting out of its bounds).
    """
    _check(config)
    stream: dict[str, Any] = {
        "name": stream_name(config.bucket),
        "subjects": [chunk_prefix(config.bucket) + ">", meta_prefix(config.bucket) + ">"],
        "retention": "limits",
        "discard": "new",
        "storage": config.storage,
        "num_replicas": config.replicas,
        "max_bytes": config.max_bytes,
        "max_age": round((config.ttl or 0) * 1_000_000_000),
        "allow_rollup_hdrs": True,
        "allow_direct": True,
    }
    optional: dict[str, Any] = {
        "description": config.description,
        "compression": "s2" if config.compression else "",
        "metadata": dict(config.metadata) | ({CREATION: creation} if creation else {}),
        "placement": _placement(config),
        "allow_atomic": allow_atomic,
        "allow_msg_ttl": allow_msg_ttl,
    }
    if creation and not has_metadata:
        optional["duplicate_window"] = _unlike_others(config, creation)
    return stream | {key: value for key, value in optional.items() if value}


def _unlike_others(config: BucketConfig, creation: str) -> int:
    """A duplicate window, in nanoseconds, that no other *creation* has."""
    window = round(min(config.ttl or DUPLICATE_WINDOW, DUPLICATE_WINDOW) * 1_000_000_000)
    return window - zlib.crc32(creation.encode()) % (window // 100)


def _check(config: BucketConfig) -> None:
    if config.storage not in ("file", "memory"):
        raise InvalidArgument(f"storage {config.storage!r} is neither 'file' nor 'memory'")
    if not 1 <= config.replicas <= MAX_REPLICAS:
        raise InvalidArgument(f"{config.replicas} replicas are not 1 to {MAX_REPLICAS}")
    if config.max_bytes < 1 and config.max_bytes != -1:
        raise InvalidArgument(f"max_bytes {config.max_bytes} is neither positive nor -1")
    # The server's bound: it refuses a max_age under 100 ms as a mistake of units.
    if config.ttl is not None and config.ttl < 0.1:
        raise InvalidArgument(f"ttl {config.ttl} is under 0.1 s")


def _placement(config: BucketConfig) -> dict[str, Any]:
    if config.placement is None:
        return {}
    fields = {"cluster": config.placement.cluster, "tags": list(config.placement.tags)}
    return {key: value for key, value in fields.items() if value}


def parse_status(info: Mapping[str, Any]) -> BucketStatus:
    """The bucket that a STREAM.INFO answer, or one entry of STREAM.LIST, describes.

    Errors: `ServerRefused` when it is no object bucket's, or cannot be read.
    """
    try:
        return _status(info["config"], info["state"], info["created"], info.get("ts", ""))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ServerRefused("stream info", 0, f"unreadable: {error!r}") from None


def _status(
    config: Mapping[str, Any], state: Mapping[str, Any], created: str, now: str
) -> BucketStatus:
    bucket = bucket_of(config["name"])
    if bucket is None:
        raise ServerRefused("stream info", 0, f"{config['name']!r} is no object bucket")
    mirror = config.get("mirror")
    return BucketStatus(
        bucket=bucket,
        stream=config["name"],
        description=config.get("description", ""),
        ttl=config.get("max_age", 0) / 1_000_000_000 or None,
        max_bytes=_positive(config.get("max_bytes", -1)),
        storage=config.get("storage", "file"),
        replicas=config.get("num_replicas", 1),
        sealed=config.get("sealed", False),
        compression=config.get("compression", "none") == "s2",
        metadata=_own_metadata(config.get("metadata") or {}),
        size=state["bytes"],
        messages=state["messages"],
        last_revision=state["last_seq"],
        created_ns=parse_time(created) or 0,
        allow_atomic=config.get("allow_atomic", False),
        allow_msg_ttl=config.get("allow_msg_ttl", False),
        allow_direct=config.get("allow_direct", False),
        mirror=mirror["name"] if mirror else None,
        first_revision=state.get("first_seq", 0),
        asked_ns=parse_time(now) or 0,
        max_message=_positive(config.get("max_msg_size", -1)),
    )


def _positive(limit: int) -> int:
    """*limit*, or -1 for none."""
    return limit if limit > 0 else -1


def _own_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    return {
        key: text
        for key, text in metadata.items()
        if key != CREATION and not key.startswith(SERVER_METADATA)
    }


def clock_ahead(asked_ns: int, begin_ns: int, end_ns: int) -> int:
    """By how much the server's clock, which showed *asked_ns* at some time between two of this
    host's, is ahead of that at least.  What can be the way of its answer is none of it."""
    if asked_ns < begin_ns:
        return asked_ns - begin_ns
    return max(0, asked_ns - end_ns)


def lacking(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Which of `FEATURES` the stream of *config* does not have."""
    return tuple(feature for feature in FEATURES if not config.get(feature))


def parse_account(info: Mapping[str, Any]) -> AccountLimits:
    """The storage that an `$JS.API.INFO` answer describes.

    Accounts with tiers, one for each number of replicas, have no limits of their own: usage and
    limits are then the sums over the tiers, none if one of them has none.

    Errors: `ServerRefused` when it cannot be read.
    """
    try:
        tiers = list((info.get("tiers") or {}).values()) or [info]
        return AccountLimits(
            storage_used=sum(tier["storage"] for tier in tiers),
            storage_limit=_total([tier["limits"]["max_storage"] for tier in tiers]),
            memory_used=sum(tier["memory"] for tier in tiers),
            memory_limit=_total([tier["limits"]["max_memory"] for tier in tiers]),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ServerRefused("account info", 0, f"unreadable: {error!r}") from None


def _total(limits: list[int]) -> int:
    return -1 if min(limits) < 0 else sum(limits)
