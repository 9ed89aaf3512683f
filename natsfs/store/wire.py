"""What natsfs and the other Object Store clients agree on: subjects, meta messages, digests, times.

Pure: bytes in, values out, no I/O.  The facts come from protocol.md 1.1 to 1.4.  Reading is as
tolerant as the clients in the wild demand; writing is as strict as the strictest of their readers.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from natsfs.errors import InvalidArgument, MalformedMeta, NameTooLongError
from natsfs.store.foreign_json import (
    MAX_NAME,
    Unreadable,
    as_text,
    dump,
    load,
    read_count,
    read_flag,
    read_object,
    read_text,
)
from natsfs.store.model import NOTHING, Link, ObjectInfo
from natsfs.store.usual import UsualMeta, read_usual

#: What the names of the streams of object buckets begin with.
STREAM_PREFIX = "OBJ_"

#: Bytes of a meta subject.  A server reads at most 4,096 bytes of control line and drops the
#: connection over a longer one (protocol.md 1.1, seen with 4,136).  `HPUB`, a reply subject with
#: a custom inbox prefix and two lengths fit into the 236 bytes left over.
MAX_SUBJECT = 3860

#: Bytes of a bucket name: the server's limit of 255 for a stream name, less the prefix.
MAX_BUCKET = 255 - len(STREAM_PREFIX)

_BUCKET = re.compile(r"[A-Za-z0-9_-]+")
# Narrower than a subject token: a nuid from a foreign meta ends up in purge filters and file names.
_NUID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NUID_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_NUID_LENGTH = 22
_NUIDS = len(_NUID_ALPHABET) ** _NUID_LENGTH
_DIGEST = re.compile(r"(?i:sha-256)=(?:([0-9A-Fa-f]{64})|([A-Za-z0-9+/_-]{43})=?)")
# Of the last character two bits are no part of the digest, and zero as every encoder has them.
_USUAL_DIGEST = re.compile(r"SHA-256=[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]=")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))")
_IN_META = frozenset({"name", "description", "headers", "metadata", "options", "bucket", "nuid"})
_KNOWN = _IN_META | {"size", "mtime", "chunks", "digest", "deleted"}


# -- names and subjects ---------------------------------------------------------------------------


def check_bucket_name(bucket: str) -> str:
    """*bucket* itself.  Errors: `InvalidArgument` unless it is 1 to 251 of `A-Za-z0-9_-`."""
    if not _BUCKET.fullmatch(bucket) or len(bucket) > MAX_BUCKET:
        raise InvalidArgument(
            f"{bucket!r} is no bucket name: 1 to {MAX_BUCKET} letters, digits, '_' or '-'"
        )
    return bucket


def stream_name(bucket: str) -> str:
    """The stream of *bucket*.  Errors: as `check_bucket_name`."""
    return STREAM_PREFIX + check_bucket_name(bucket)


def bucket_of(stream: str) -> str | None:
    """The bucket that *stream* holds, or None when it is no object bucket's."""
    bucket = stream.removeprefix(STREAM_PREFIX)
    return bucket if bucket != stream and _BUCKET.fullmatch(bucket) else None


def meta_prefix(bucket: str) -> str:
    """What the meta subjects of *bucket* begin with; `>` or `*` after it matches all of them."""
    return f"$O.{check_bucket_name(bucket)}.M."


def meta_subject(bucket: str, name: str) -> str:
    """The standard meta subject of *name*, as Go, Rust, .NET and nats-py compute it.

    Errors: `InvalidArgument` (an empty name, one that is not Unicode text, or a bad bucket),
    `NameTooLongError` (the subject would exceed `MAX_SUBJECT`).
    """
    if not name:
        raise InvalidArgument("an object name cannot be empty")
    try:
        token = base64.urlsafe_b64encode(name.encode()).decode("ascii")
    except UnicodeEncodeError:
        raise InvalidArgument(f"object name {name!r} cannot be encoded as UTF-8") from None
    subject = meta_prefix(bucket) + token
    if len(subject) > MAX_SUBJECT:
        raise NameTooLongError(f"object name of {len(name.encode())} bytes: {name[:64]!r}…")
    return subject


def chunk_prefix(bucket: str) -> str:
    """What the chunk subjects of *bucket* begin with."""
    return f"$O.{check_bucket_name(bucket)}.C."


def chunk_subject(bucket: str, nuid: str) -> str:
    """The subject of all chunks of the version *nuid*.

    Errors: `InvalidArgument` for a nuid that is not one plain token: `>` would name every chunk
    of the bucket.
    """
    if not _NUID.fullmatch(nuid):
        raise InvalidArgument(f"{nuid!r} is no nuid")
    return chunk_prefix(bucket) + nuid


def new_nuid() -> str:
    """The name of a new version: 22 characters, 131 bits that nobody can guess."""
    # One number and its digits: a choice for each of them asks the kernel 22 times, for 45 µs.
    number = secrets.randbelow(_NUIDS)
    digits = []
    for _ in range(_NUID_LENGTH):
        number, digit = divmod(number, len(_NUID_ALPHABET))
        digits.append(_NUID_ALPHABET[digit])
    return "".join(digits)


# -- digests --------------------------------------------------------------------------------------


def render_digest(sha256: bytes) -> str:
    """The digest in the only form that .NET and Rust, which compare text, take for equal."""
    return "SHA-256=" + base64.urlsafe_b64encode(sha256).decode("ascii")


def _usual_digest(text: str) -> str:
    """The digest *text* as `render_digest` has it, if it is one."""
    if _USUAL_DIGEST.fullmatch(text):
        return text
    sha256 = parse_digest(text)
    return render_digest(sha256) if sha256 else text


def parse_digest(text: str) -> bytes | None:
    """The 32 bytes of a digest in any form in the wild (protocol.md 1.1): either case of prefix,
    URL-safe or standard base64, padded or not, or hex.  None for anything else."""
    match = _DIGEST.fullmatch(text)
    if match is None:
        return None
    hexadecimal, encoded = match.groups()
    if hexadecimal is not None:
        return bytes.fromhex(hexadecimal)
    return binascii.a2b_base64(encoded.replace("-", "+").replace("_", "/") + "=")


#: What an object without bytes must carry: Java refuses to read it otherwise (protocol.md 1.6).
EMPTY_DIGEST = render_digest(hashlib.sha256().digest())


# -- times ----------------------------------------------------------------------------------------


def render_time(time_ns: int) -> str:
    """RFC 3339 in UTC with nine decimals: the only form of which every client reads every digit
    that it can hold."""
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    return f"{_render_second(seconds)}.{fraction:09}Z"


@lru_cache(maxsize=256)
def _render_second(seconds: int) -> str:
    """Cached, because most of the times of one meta are of one second, and of the same as those of
    the next; rendering it takes ten times as long as the rest."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}".rjust(19, "0")


def parse_time(text: str) -> int | None:
    """Nanoseconds since the epoch of an RFC 3339 time, with up to nine decimals kept; None when
    *text* is none.  Go's zero time, of the year 1, is negative."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    date, clock, fraction, sign, hours, minutes = match.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}+00:00")
    except ValueError:
        return None
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    offset = (int(hours) * 3600 + int(minutes) * 60) * (-1 if sign == "-" else 1) if sign else 0
    seconds = since.days * 86_400 + since.seconds - offset
    return seconds * 1_000_000_000 + int((fraction or "")[:9].ljust(9, "0"))


# -- reading a meta message -----------------------------------------------------------------------


def parse_info(
    subject: str, payload: bytes, *, bucket: str, revision: int, time_ns: int, ttl: int = 0
) -> ObjectInfo:
    """The meta message that *bucket* holds on *subject*.

    Absent and null fields have their empty value; headers may be plain strings; `mtime` and
    `bucket` are not looked at, because the first is the message's time by definition and the
    second is another bucket's in links of nats.js.  Values of metadata and headers that are no text
    become their JSON text.  Lone surrogates become U+FFFD, as in Go.

    Top-level fields without a name here go to `extra` as they are.  Unknown fields of `options`
    go to `extra["options"]`, those of its link to `extra["options"]["link"]`; `render_info` puts
    all of them back (M6).

    Errors: `MalformedMeta`, whatever the payload.
    """
    usual = read_usual(payload)
    if usual is not None and (not usual.nuid or _NUID.fullmatch(usual.nuid)):
        return _usual_info(usual, subject, bucket, revision, time_ns, ttl)
    try:
        return _unusual_info(load(payload), subject, bucket, revision, time_ns, ttl)
    except Unreadable as error:
        raise MalformedMeta(f"meta on {subject}: {error}") from None


def _usual_info(
    meta: UsualMeta, subject: str, bucket: str, revision: int, time_ns: int, ttl: int
) -> ObjectInfo:
    """By position: naming the seventeen arguments takes a third of the time again."""
    headers = meta.headers
    return ObjectInfo(
        meta.name,
        bucket,
        subject,
        meta.nuid or "",
        meta.size or 0,
        meta.chunks or 0,
        (meta.options.max_chunk_size or 0) if meta.options is not None else 0,
        meta.digest or "",
        bool(meta.deleted),
        None,
        meta.description or "",
        _frozen({k: tuple(v) for k, v in headers.items()}) if headers else NOTHING,
        _frozen(meta.metadata) if meta.metadata else NOTHING,
        NOTHING,
        revision,
        time_ns,
        ttl,
    )


def _unusual_info(
    fields: Mapping[str, Any], subject: str, bucket: str, revision: int, time_ns: int, ttl: int
) -> ObjectInfo:
    options = read_object(fields, "options")
    link_fields = read_object(options, "link")
    return ObjectInfo(
        name=_name(fields),
        bucket=bucket,
        subject=subject,
        nuid=_nuid(fields),
        size=read_count(fields, "size"),
        chunks=read_count(fields, "chunks"),
        max_chunk_size=read_count(options, "max_chunk_size"),
        digest=read_text(fields, "digest"),
        deleted=read_flag(fields, "deleted"),
        link=None if options.get("link") is None else _link(link_fields),
        description=read_text(fields, "description"),
        headers=_frozen({k: _values(v) for k, v in read_object(fields, "headers").items()}),
        metadata=_frozen({k: as_text(v) for k, v in read_object(fields, "metadata").items()}),
        extra=_extra(fields, options, link_fields),
        revision=revision,
        time_ns=time_ns,
        ttl=ttl,
    )


def _name(fields: Mapping[str, Any]) -> str:
    name = read_text(fields, "name")
    if not name:
        raise Unreadable("no name")
    if len(name) > MAX_NAME:
        raise Unreadable(f"a name of {len(name)} characters")
    return name


def _nuid(fields: Mapping[str, Any]) -> str:
    nuid = read_text(fields, "nuid")
    if nuid and not _NUID.fullmatch(nuid):
        raise Unreadable("nuid is not one plain token")
    return nuid


def _link(fields: Mapping[str, Any]) -> Link:
    bucket = read_text(fields, "bucket")
    if not _BUCKET.fullmatch(bucket):
        raise Unreadable("link to no bucket")
    return Link(bucket, read_text(fields, "name") or None)


def _values(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(map(as_text, value)) if isinstance(value, list) else (as_text(value),)


def _extra(
    fields: Mapping[str, Any], options: Mapping[str, Any], link: Mapping[str, Any]
) -> Mapping[str, Any]:
    extra = {k: v for k, v in fields.items() if k not in _KNOWN}
    inner = {k: v for k, v in options.items() if k not in ("max_chunk_size", "link")}
    innermost = {k: v for k, v in link.items() if k not in ("bucket", "name")}
    if innermost:
        inner["link"] = innermost
    if inner:
        extra["options"] = inner
    return _frozen(extra)


def _frozen(mapping: dict[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(mapping) if mapping else NOTHING


# -- writing a meta message -----------------------------------------------------------------------


def complete(info: ObjectInfo, bucket: str) -> ObjectInfo:
    """*info* with everything that a stored meta needs: its bucket, a subject, a nuid (Go calls a
    meta without one bad, links included), and the digest of an object without bytes.

    Errors: those of `meta_subject`, where *info* has no subject yet.
    """
    bare = info.size == 0 and not info.deleted and info.link is None
    digest = EMPTY_DIGEST if bare else info.digest
    if info.subject and info.nuid and (info.bucket, info.digest) == (bucket, digest):
        return info
    return replace(
        info,
        bucket=bucket,
        subject=info.subject or meta_subject(bucket, info.name),
        nuid=info.nuid or new_nuid(),
        digest=digest,
    )


def render_info(info: ObjectInfo, mtime_ns: int) -> bytes:
    """The payload for *info*, which is `complete`: fields of the types that Go's strict decoder
    wants, all of those that Rust and nats-py require, and unknown ones before them: in Go, where
    case does not count and the last field wins, an unknown `Name` must not win over `name`.

    *mtime_ns* is always written: Rust and nats.js show it, and an empty one makes Go refuse the
    meta (protocol.md 1.4).

    Errors: `InvalidArgument` (no name or nuid, or text that UTF-8 cannot hold).
    """
    if not info.name or not info.nuid:
        raise InvalidArgument(f"incomplete meta: name {info.name!r}, nuid {info.nuid!r}")
    fields = {key: value for key, value in info.extra.items() if key not in _KNOWN}
    fields["name"] = info.name
    if info.description:
        fields["description"] = info.description
    if info.headers:
        fields["headers"] = {key: list(values) for key, values in info.headers.items()}
    if info.metadata:
        fields["metadata"] = dict(info.metadata)
    if options := _render_options(info):
        fields["options"] = options
    fields["bucket"], fields["nuid"], fields["size"] = info.bucket, info.nuid, info.size
    fields["mtime"], fields["chunks"] = render_time(mtime_ns), info.chunks
    if info.digest:
        fields["digest"] = _usual_digest(info.digest)
    if info.deleted:
        fields["deleted"] = True
    try:
        return dump(fields).encode()
    except UnicodeEncodeError:
        raise InvalidArgument(f"meta of {info.name!r} cannot be encoded as UTF-8") from None


def _render_options(info: ObjectInfo) -> dict[str, Any]:
    unknown = dict(info.extra.get("options", NOTHING))
    unknown_of_link = unknown.pop("link", NOTHING)
    options: dict[str, Any] = {}
    if info.link is not None:
        name = {} if info.link.name is None else {"name": info.link.name}
        options["link"] = {"bucket": info.link.bucket, **name, **unknown_of_link}
    if info.max_chunk_size:
        options["max_chunk_size"] = info.max_chunk_size
    return unknown | options
