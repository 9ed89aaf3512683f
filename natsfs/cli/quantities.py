"""Sizes and durations as people write and read them."""

from __future__ import annotations

import re

import click

_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4, "P": 1024**5}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:i?B)?", re.IGNORECASE)

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")


class Size(click.ParamType[int]):
    """A number of bytes: `4096`, `64M`, `1.5GiB`.  K, M, G, T and P are powers of 1024, with or
    without B or iB, as the `nats` command has them."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(str(value).strip())
        if found is None:
            self.fail(f"{value!r} is not a size; write 4096, 64M or 1.5G", param, ctx)
        return int(float(found[1]) * _UNITS[found[2].upper()])


class Duration(click.ParamType[float]):
    """A number of seconds: `90`, `90s`, `10m`, `1h30m`, `7d`, `250ms`."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float | int):
            return float(value)
        text = str(value).strip()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        if not text or _DURATION_PART.sub("", text):
            self.fail(f"{value!r} is not a duration; write 90s, 10m, 1h30m or 7d", param, ctx)
        return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(text))


class Octal(click.ParamType[int]):
    """Permission bits: `022`, `0644`, `755`."""

    name = "octal"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        if not re.fullmatch(r"(0o?)?[0-7]{1,4}", str(value)):
            self.fail(f"{value!r} is not an octal mode; write 022 or 0644", param, ctx)
        return int(str(value), 8)


class Address(click.ParamType[tuple[str, int]]):
    """Where to listen: `HOST:PORT`, `[::1]:9100`, or `:9100` for this host alone."""

    name = "address"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]/]*):(\d{1,5})", str(value))
        if found is None or not 0 < int(found[2]) < 65536:
            self.fail(f"{value!r} is not an address; write 127.0.0.1:9100", param, ctx)
        return found[1].strip("[]") or "127.0.0.1", int(found[2])


def shown_size(size: int) -> str:
    """*size* bytes in at most five characters and a unit; "unlimited" for -1."""
    if size < 0:
        return "unlimited"
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def shown_duration(seconds: float | None) -> str:
    """*seconds* in the two largest units that matter; "never" for None or 0."""
    if not seconds:
        return "never"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    rest, parts = int(seconds), []
    for unit in ("d", "h", "m", "s"):
        number, rest = divmod(rest, int(_SECONDS[unit]))
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts[:2])
