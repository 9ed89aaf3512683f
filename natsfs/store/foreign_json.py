"""JSON from strangers: what may be in it, and how its fields are read without surprises.

Pure.  Whatever the bytes are, only `Unreadable` is raised; and what was read can be written again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

#: How deep the JSON of a meta may nest.  No client goes beyond 4; the bound keeps what was
#: read writable, whatever the depth of the Python stack at that time.
MAX_DEPTH = 64

#: The greatest size that an offset of the kernel can address.
MAX_INT = 2**63 - 1

#: Characters of an object's name.  A subject has room for 2,900 bytes of one, so no client can have
#: put a longer one there; each of its slashes is a directory, which takes a kilobyte.
MAX_NAME = 32 * 1024

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)

_SURROGATE = re.compile("[\ud800-\udfff]")


class Unreadable(Exception):
    """Why bytes are not the JSON that was hoped for."""


def load(payload: bytes) -> dict[str, Any]:
    """The JSON object in *payload*: finite numbers only, lone surrogates and bytes that are no
    UTF-8 replaced by U+FFFD as Go does, at most `MAX_DEPTH` levels.  Errors: `Unreadable`."""
    try:
        text = payload.decode("utf-8", "replace")
        fields = json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise Unreadable(f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise Unreadable(f"no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Unreadable("no JSON object")
    cleaned: dict[str, Any] = _cleaned(fields, MAX_DEPTH)
    return cleaned


def _refuse(constant: str) -> None:
    raise Unreadable(f"{constant} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise Unreadable(f"{text} is out of range")
    return number


def _cleaned(value: Any, depth: int) -> Any:
    """*value* without lone surrogates, which no UTF-8 can hold, to *depth* levels."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict | list) and depth == 0:
        raise Unreadable(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {_cleaned(k, depth): _cleaned(v, depth - 1) for k, v in value.items()}
    if isinstance(value, list):
        return [_cleaned(item, depth - 1) for item in value]
    return value


def read_object(fields: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object under *key*, empty when absent or null.  Errors: `Unreadable`."""
    value = fields.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Unreadable(f"{key} is no object")
    return value


def read_text(fields: Mapping[str, Any], key: str) -> str:
    """The string under *key*, empty when absent or null.  Errors: `Unreadable`."""
    value = fields.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unreadable(f"{key} is no string")
    return value


def read_count(fields: Mapping[str, Any], key: str) -> int:
    """The whole number from 0 to `MAX_INT` under *key*, 0 when absent or null.

    Errors: `Unreadable`, also for `true` and for 1.0, which Go refuses as well.
    """
    value = fields.get(key)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise Unreadable(f"{key} is no whole number")
    if not 0 <= value <= MAX_INT:
        raise Unreadable(f"{key} is out of range")
    return value


def read_flag(fields: Mapping[str, Any], key: str) -> bool:
    """The truth value under *key*, false when absent or null.  Errors: `Unreadable`."""
    value = fields.get(key)
    if value is not None and not isinstance(value, bool):
        raise Unreadable(f"{key} is neither true nor false")
    return bool(value)


def as_text(value: Any) -> str:
    """*value* where text is wanted: null is the empty string, as Go decodes it, and what is no
    text becomes its JSON text."""
    if value is None:
        return ""
    return value if isinstance(value, str) else dump(value)


def dump(value: Any) -> str:
    """Compact JSON that keeps Unicode as it is.  Errors: `ValueError` for NaN and infinities."""
    return _ENCODER.encode(value)
