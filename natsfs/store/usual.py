"""Metas as the clients of today write them, read at the speed of C.

A large bucket is hundreds of thousands of metas that differ in nothing but their values.  What is
in any other way unusual (an unknown field, a link, a value of another type, text that is no
UTF-8) is not read here: `natsfs.store.wire` has the tolerance for it, and takes six times as long.

Pure.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from natsfs.store.foreign_json import MAX_INT, MAX_NAME

_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]


class UsualOptions(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """`options` without a link."""

    max_chunk_size: _Count | None = None
    link: None = None


class UsualMeta(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of ADR-20, each of its own type or null.  *mtime* and *bucket* say nothing."""

    name: _Name
    bucket: str | None = None
    nuid: str | None = None
    size: _Count | None = None
    chunks: _Count | None = None
    options: UsualOptions | None = None
    mtime: str | None = None
    digest: str | None = None
    deleted: bool | None = None
    description: str | None = None
    headers: dict[str, list[str]] | None = None
    metadata: dict[str, str] | None = None


_decoder = msgspec.json.Decoder(UsualMeta)


def read_usual(payload: bytes | bytearray | memoryview) -> UsualMeta | None:
    """What *payload* says, None where it is unusual or no JSON at all."""
    try:
        return _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeError):
        return None
