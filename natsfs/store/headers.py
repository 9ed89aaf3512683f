"""Header blocks of NATS messages.

Pure: bytes in, values out, no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from natsfs.errors import InvalidArgument, ServerRefused
from natsfs.store.model import NOTHING

_VERSION = b"NATS/1.0"

_HEADER_NAME = re.compile("[^\r\n: ]+")


@dataclass(frozen=True, slots=True)
class Headers:
    """A header block.  *status* is 0 on a message that has none.

    Of a repeated field the last value counts: the server appends its own fields to those that
    were stored, so that a stored `Nats-Sequence` cannot pose as the real one.
    """

    status: int = 0
    description: str = ""
    fields: Mapping[str, str] = field(default_factory=lambda: NOTHING)


def encode_headers(fields: Mapping[str, str] | Iterable[tuple[str, str]]) -> bytes:
    """The header block of *fields* for HPUB, the blank line included.

    Errors: `InvalidArgument` for a name or value that would break out of its line.
    """
    pairs = fields.items() if isinstance(fields, Mapping) else fields
    lines = [_VERSION.decode()]
    for name, value in pairs:
        if _HEADER_NAME.fullmatch(name) is None or "\r" in value or "\n" in value:
            raise InvalidArgument(f"message header {name!r}: {value!r}")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def parse_headers(block: bytes | bytearray | memoryview) -> Headers:
    """A header block as it came after HMSG; an empty one for a message without headers.

    Lines without a colon are ignored, as Go does.  Errors: `ServerRefused` when it is none.
    """
    block = bytes(block)
    if not block:
        return Headers()
    first, *lines = block.split(b"\r\n")
    if not first.startswith(_VERSION):
        raise ServerRefused("message headers", 0, f"unknown version {bytes(first[:16])!r}")
    status, _, description = first[len(_VERSION) :].strip().partition(b" ")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon:
            fields[name.decode("utf-8", "replace")] = value.strip().decode("utf-8", "replace")
    return Headers(
        int(status) if status.isdigit() and len(status) <= 3 else 0,
        description.strip().decode("utf-8", "replace"),
        MappingProxyType(fields),
    )
