"""A tree as bytes, and back: what lets the next mount begin where this one was.

One frame for each directory, whose packed entries come back as they are, without being looked at;
then one for all metas that are kept as nodes, one for tombstones, and a `Summary`.  A frame is its
length and msgpack.

A tree may be rendered in steps, with changes in between: whatever becomes different is newer than
the revision that the snapshot is of, and comes again when that is gone on from.  What goes without
being told shows in the number of metas (`Summary.metas`).

Pure and synchronous.
"""

from __future__ import annotations

import heapq
import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec

from natsfs.store.model import NOTHING, Link, ObjectInfo
from natsfs.tree.names import encode_component, is_canonical
from natsfs.tree.namespace import Namespace
from natsfs.tree.nodes import Directory, Leaf, Node, called, info_of, is_displaced, walk_directories
from natsfs.tree.packed import Standard, facts_of, key_of
from natsfs.tree.placement import adopt

#: How many of the newest metas a summary names.
NEWEST = 100

#: Bytes of the length of a frame.
_LENGTH = 4


#: How deep a directory of a snapshot may be.  Each has its whole path, so that a tree of a few
#: metas and thousands of levels, which no program makes, would take longer than to be loaded.
MAX_DEPTH = 200


class Damaged(Exception):
    """The bytes are no snapshot."""


class TooDeep(Exception):
    """A tree that a snapshot is no good for."""


@dataclass(slots=True)
class Summary:
    """Of the metas in a snapshot that are not newer than its *revision*: their number, tombstones
    included, and revision, subject and time of the *newest*."""

    revision: int
    metas: int = 0
    newest: list[tuple[int, str, int]] = field(default_factory=list)


class _Folder(msgspec.Struct, array_like=True, gc=False):
    prefix: str
    changed: tuple[int, int]
    records: dict[bytes, bytes]
    keys: bytes


class _Meta(msgspec.Struct, array_like=True):
    name: str
    bucket: str
    subject: str
    nuid: str
    size: int
    chunks: int
    max_chunk_size: int
    digest: str
    link: tuple[str, str | None] | None
    description: str
    headers: dict[str, tuple[str, ...]]
    metadata: dict[str, str]
    extra: str
    revision: int
    time_ns: int
    ttl: int


class _Rest(msgspec.Struct, array_like=True):
    metas: list[_Meta]
    graves: dict[str, int]
    standard: tuple[str, str] | None
    summary: Summary


_encode = msgspec.msgpack.Encoder().encode
_folder = msgspec.msgpack.Decoder(_Folder).decode
_rest = msgspec.msgpack.Decoder(_Rest).decode


def render(namespace: Namespace, revision: int) -> Iterator[bytes]:
    """The snapshot of *namespace*, which knows everything up to *revision*, piece by piece.

    Errors: `TooDeep`.
    """
    writer = _Writer(namespace, revision)
    for directory in _holding(namespace.root):
        yield _frame(writer.folder(directory))
    yield _frame(writer.rest())


def restore(namespace: Namespace, data: bytes | memoryview) -> Summary:
    """Fill the empty *namespace* with the snapshot *data*.  Errors: `Damaged`."""
    try:
        return _restore(namespace, memoryview(data))
    except Damaged:
        raise
    except Exception as error:  # whatever it is, it costs the time of loading and not the mount
        raise Damaged(repr(error)) from error


def _restore(namespace: Namespace, data: memoryview) -> Summary:
    frames = list(_frames(data))
    if not frames:
        raise Damaged("there is nothing in it")
    rest = _rest(frames[-1])
    namespace.index.standard = Standard(*rest.standard) if rest.standard else None
    for frame in frames[:-1]:
        rest.metas += _restore_folder(namespace, _folder(frame))
    changed = {directory: directory.changed for directory in walk_directories(namespace.root)}
    for meta in rest.metas:
        namespace.apply(_info(meta))
    for directory, known in changed.items():
        directory.changed = known
    for subject, grave in rest.graves.items():
        namespace.graves.put(subject, grave)
    return rest.summary


def _holding(root: Directory) -> list[Directory]:
    """The directories with an object in them or somewhere below, parents first.  Others are there
    for as long as the mount is that has seen their last object go (N5)."""
    directories = list(walk_directories(root))
    holding: set[Directory] = set()
    for directory in reversed(directories):
        own = directory.marker is not None or len(directory.children) > directory.subdirectories
        if own or directory in holding:
            holding.add(directory)
            if directory.parent is not None:
                holding.add(directory.parent)
    return [directory for directory in directories if directory in holding]


class _Writer:
    def __init__(self, namespace: Namespace, revision: int) -> None:
        self._namespace = namespace
        self._summary = Summary(revision)
        self._newest: list[tuple[int, str, int]] = []
        self._metas: list[_Meta] = []
        self._keys: set[int] = set()

    def folder(self, directory: Directory) -> _Folder:
        """The packed entries of *directory*; what cannot be packed is kept for `rest`."""
        records = dict(directory.children.records())
        keys = array("Q")
        newest: list[tuple[int, int, bytes]] = []
        for component, record in records.items():
            revision, time_ns, nuid = facts_of(record)
            keys.append(key_of(nuid))
            newest.append((revision, time_ns, component))
        prefix = directory.prefix
        if prefix.count("/") > MAX_DEPTH:
            raise TooDeep(f"a directory is more than {MAX_DEPTH} levels deep")
        self._count(newest, prefix)
        for node in (directory, *directory.children.nodes()):
            self._add_node(node, prefix, records, keys)
        return _Folder(prefix, directory.changed, records, keys.tobytes())

    def rest(self) -> _Rest:
        """Everything that is in no folder."""
        graves = self._namespace.graves.revisions()
        self._summary.metas += sum(r <= self._summary.revision for r in graves.values())
        self._summary.newest = sorted(self._newest, reverse=True)
        standard = self._namespace.index.standard
        rule = None if standard is None else (standard.bucket, standard.prefix)
        return _Rest(self._metas, graves, rule, self._summary)

    def _count(self, found: list[tuple[int, int, bytes]], prefix: str) -> None:
        old = [entry for entry in found if entry[0] <= self._summary.revision]
        self._summary.metas += len(old)
        for revision, time_ns, component in heapq.nlargest(NEWEST, old):
            self._note(revision, self._namespace.index.subject(prefix, component), time_ns)

    def _note(self, revision: int, subject: str, time_ns: int) -> None:
        heapq.heappush(self._newest, (revision, subject, time_ns))
        if len(self._newest) > NEWEST:
            heapq.heappop(self._newest)

    def _add_node(
        self, node: Node, prefix: str, records: dict[bytes, bytes], keys: array[int]
    ) -> None:
        """A leaf that looks like any other goes back to those that are packed."""
        info = info_of(node)
        if info is None or (isinstance(node, Directory) and node.prefix != prefix):
            return  # A subdirectory has a folder of its own.
        if info.revision <= self._summary.revision:
            self._summary.metas += 1
            self._note(info.revision, info.subject, info.time_ns)
        record = self._packed(node, prefix, info)
        key = key_of(info.nuid)
        if record is None or key in self._keys or self._namespace.index.has_key(key):
            self._metas.append(_meta(info))
            return
        self._keys.add(key)
        records[node.name] = record
        keys.append(key)

    def _packed(self, node: Node, prefix: str, info: ObjectInfo) -> bytes | None:
        text = info.name.removeprefix(prefix)
        standard = self._namespace.index.standard
        if type(node) is not Leaf or standard is None or is_displaced(node):
            return None
        if prefix + text != info.name or not text or not is_canonical(text):
            return None
        return standard.pack(info) if encode_component(text) == node.name else None


def _restore_folder(namespace: Namespace, folder: _Folder) -> list[_Meta]:
    """Put back what *folder* has; gives the metas of versions that others have as well."""
    directory, index = namespace.root, namespace.index
    for text in folder.prefix.split("/")[:-1]:
        directory = called(directory, text, Directory) or _make(directory, text)
    directory.changed = folder.changed
    keys, records = array("Q"), folder.records
    keys.frombytes(folder.keys)
    if len(keys) != len(records) or any(name in directory.children for name in records):
        raise ValueError("a directory does not agree with itself")
    twice = []
    if index.has_any(keys):
        own = {key: name for key, name in zip(keys, records, strict=True) if not index.has_key(key)}
        infos = ((name, index.unpacked(directory, name, records[name])) for name in records)
        twice = [_meta(info) for name, info in infos if own.get(key_of(info.nuid)) != name]
        records, keys = {name: records[name] for name in own.values()}, array("Q", own)
    index.restore(directory, records, keys)
    return twice


def _make(parent: Directory, text: str) -> Directory:
    child = Directory(parent, b"", text)
    parent.subdirectories += 1
    adopt(parent, child)
    return child


def _frame(value: _Folder | _Rest) -> bytes:
    data = _encode(value)
    return len(data).to_bytes(_LENGTH) + data


def _frames(data: memoryview) -> Iterator[memoryview]:
    while data:
        end = _LENGTH + int.from_bytes(data[:_LENGTH])
        if len(data) < end:
            raise Damaged("it is cut short")
        yield data[_LENGTH:end]
        data = data[end:]


def _meta(info: ObjectInfo) -> _Meta:
    return _Meta(
        name=info.name,
        bucket=info.bucket,
        subject=info.subject,
        nuid=info.nuid,
        size=info.size,
        chunks=info.chunks,
        max_chunk_size=info.max_chunk_size,
        digest=info.digest,
        link=None if info.link is None else (info.link.bucket, info.link.name),
        description=info.description,
        headers=dict(info.headers),
        metadata=dict(info.metadata),
        extra=json.dumps(dict(info.extra)),
        revision=info.revision,
        time_ns=info.time_ns,
        ttl=info.ttl,
    )


def _info(meta: _Meta) -> ObjectInfo:
    return ObjectInfo(
        name=meta.name,
        bucket=meta.bucket,
        subject=meta.subject,
        nuid=meta.nuid,
        size=meta.size,
        chunks=meta.chunks,
        max_chunk_size=meta.max_chunk_size,
        digest=meta.digest,
        link=None if meta.link is None else Link(*meta.link),
        description=meta.description,
        headers=_frozen(meta.headers),
        metadata=_frozen(meta.metadata),
        extra=_frozen(json.loads(meta.extra)),
        revision=meta.revision,
        time_ns=meta.time_ns,
        ttl=meta.ttl,
    )


def _frozen(mapping: dict[str, Any]) -> Any:
    return MappingProxyType(mapping) if mapping else NOTHING
