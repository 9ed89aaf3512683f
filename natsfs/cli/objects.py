"""How commands show an object: as JSON, and where a link leads."""

from __future__ import annotations

import os
from typing import Any

from natsfs.cli.output import printable, rfc3339
from natsfs.filesystem.attributes import symlink_text
from natsfs.store.model import ObjectInfo


def object_json(info: ObjectInfo) -> dict[str, Any]:
    """*info* for programs."""
    link = info.link and {"bucket": info.link.bucket, "name": info.link.name}
    return {
        "name": info.name,
        "bucket": info.bucket,
        "size": info.size,
        "chunks": info.chunks,
        "nuid": info.nuid,
        "digest": info.digest,
        "deleted": info.deleted,
        "link": link,
        "description": info.description,
        "headers": {name: list(values) for name, values in info.headers.items()},
        "metadata": dict(info.metadata),
        "revision": info.revision,
        "time": rfc3339(info.time_ns),
    }


def arrow(info: ObjectInfo) -> str:
    """What follows the name of a link; nothing for what is none."""
    target = link_target(info)
    return "" if target is None else f" -> {target}"


def link_target(info: ObjectInfo) -> str | None:
    """Where a link leads, by bucket and object; where a symlink points, by its text.  Printable."""
    if info.link is not None:
        inside = info.link.bucket == info.bucket
        return printable(
            "/".join(filter(None, ("" if inside else info.link.bucket, info.link.name)))
        )
    text = symlink_text(info)
    return None if text is None else printable(os.fsdecode(text))
