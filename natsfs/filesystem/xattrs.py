"""Extended attributes (M4).

The only module that knows how they map to metadata.  `user.KEY` is the metadata key `KEY`, as
rclone has it, so that what other clients put there is seen and copied; keys that mean something
else to natsfs are kept apart by a `user.` in front.  `trusted.KEY` and `security.KEY`, which the
kernel guards, are metadata keys with that name.  Values that are not UTF-8 are quoted.

`user.nats.*` shows what NATS knows of an object.  These attributes are not listed, because `cp -a`
and `rsync -X` copy whatever is listed; they answer when asked for by name.

Concurrency: `get` and `names` are atomic; `put` and `remove` commit what was written to the file
first, then publish a compare-and-set.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from natsfs.errors import (
    InvalidArgument,
    NoAttributeError,
    NoSpaceError,
    NotPermitted,
    NotSupported,
)
from natsfs.filesystem.attributes import SYSTEM_KEYS
from natsfs.filesystem.changes import Changes
from natsfs.filesystem.state import Mounted
from natsfs.store.model import ObjectInfo
from natsfs.tree.names import bytes_of, text_of
from natsfs.tree.nodes import Directory, Leaf, Node

USER = b"user."
GUARDED = (b"trusted.", b"security.")
NATS = b"user.nats."

#: Bytes of all keys and values of one object.  A meta message has to fit into the server's maximum
#: payload, 1 MiB by default, and every watcher of the bucket receives it.
MAX_METADATA = 256 * 1024

#: Bytes of an attribute's name: XATTR_NAME_MAX of Linux, which answers ERANGE for longer ones.
MAX_NAME = 255


class Xattrs:
    """Extended attributes of one mount."""

    def __init__(self, mounted: Mounted, changes: Changes) -> None:
        self._m = mounted
        self._changes = changes

    def get(self, node: Node, name: bytes) -> bytes:
        """The value of *name*.

        Errors: `NoAttributeError`, `NotSupported` (other namespaces), `InvalidArgument` (a
        namespace without a name).
        """
        info = _info(node)
        if name.startswith(NATS):
            return _shown(info, name[len(NATS) :])
        key = _key_of(info.metadata if info is not None else {}, name)
        if info is None or key is None:
            raise NoAttributeError(f"no attribute {name!r}")
        return bytes_of(info.metadata[key])

    def names(self, node: Node) -> list[bytes]:
        """What listxattr(2) gives: only names that getxattr(2) can be asked for.  A foreign client
        may have chosen others, which `user.nats.metadata` shows."""
        info = _info(node)
        metadata = info.metadata if info is not None else {}
        return [name for key in metadata if _is_name(name := _name_of(key))]

    async def put(self, node: Node, name: bytes, value: bytes) -> None:
        """Set *name*.

        Errors: `NotSupported` (other namespaces), `NotPermitted` (what NATS decides),
        `InvalidArgument` (a namespace without a name, a malformed `user.nats` value),
        `NoSpaceError` (`MAX_METADATA`), those of `Changes.edit`.
        """
        if name.startswith(NATS):
            edit = _nats_edit(name[len(NATS) :], value)
        else:
            edit = _setter(name, value)
            if self._has(node, name, value):
                self._m.check_writable()
                return  # as on ext4, where not even the ctime moves
        await self._changes.edit(node, edit)

    def _has(self, node: Node, name: bytes, value: bytes) -> bool:
        try:
            return self.get(node, name) == value
        except NoAttributeError:
            return False

    async def remove(self, node: Node, name: bytes) -> None:
        """Remove *name*.  Errors: `NoAttributeError`, and as `put`."""
        if name.startswith(NATS):
            raise NotPermitted(f"{name!r} cannot be removed")

        def edit(info: ObjectInfo) -> ObjectInfo:
            key = _key_of(info.metadata, name)
            if key is None:
                raise NoAttributeError(f"no attribute {name!r}")
            metadata = {other: text for other, text in info.metadata.items() if other != key}
            return replace(info, metadata=metadata)

        self.get(node, name)
        await self._changes.edit(node, edit)


def _info(node: Node) -> ObjectInfo | None:
    if isinstance(node, Directory):
        return node.marker
    return node.info if isinstance(node, Leaf) else None


def _is_taken(key: str) -> bool:
    """Whether a metadata *key* means something else than the attribute `user.KEY`."""
    return key in SYSTEM_KEYS or key.startswith(("user.", "nats.", "trusted.", "security."))


def _name_of(key: str) -> bytes:
    """The attribute that the metadata *key* is shown as; empty for none."""
    if key in SYSTEM_KEYS:
        return b""
    name = bytes_of(key)
    inner = key.removeprefix("user.")
    return name if name.startswith(GUARDED) or (inner != key and _is_taken(inner)) else USER + name


def _is_name(name: bytes) -> bool:
    return len(USER) < len(name) <= MAX_NAME and b"\0" not in name


def _keys_for(name: bytes) -> tuple[str, str]:
    """The metadata keys that the attribute *name* may have; the first one if it is new.

    Errors: `NotSupported` (other namespaces), `InvalidArgument` (a namespace without a name).
    """
    if not name.startswith((USER, *GUARDED)):
        raise NotSupported(f"{name!r}: only user, trusted and security attributes are kept")
    if name in (USER, *GUARDED):
        raise InvalidArgument(f"{name!r} is a namespace without a name")
    if name.startswith(GUARDED):
        return text_of(name), text_of(name)
    inner, whole = text_of(name[len(USER) :]), text_of(name)
    return (whole, inner) if _is_taken(inner) else (inner, whole)


def _key_of(metadata: Mapping[str, str], name: bytes) -> str | None:
    """The key that is shown as the attribute *name*, if there is one.  Errors: of `_keys_for`."""
    return next((k for k in _keys_for(name) if k in metadata and _name_of(k) == name), None)


def _setter(name: bytes, value: bytes) -> Callable[[ObjectInfo], ObjectInfo]:
    new, _ = _keys_for(name)

    def edit(info: ObjectInfo) -> ObjectInfo:
        key = _key_of(info.metadata, name) or new
        return replace(info, metadata=_checked({**info.metadata, key: text_of(value)}))

    return edit


def _checked(metadata: dict[str, str]) -> dict[str, str]:
    if sum(len(key) + len(value) for key, value in metadata.items()) > MAX_METADATA:
        raise NoSpaceError(f"an object's attributes may have {MAX_METADATA} bytes in all")
    return metadata


# -- user.nats.* ----------------------------------------------------------------------------------

_SHOWN: Mapping[bytes, Callable[[ObjectInfo], str]] = {
    b"digest": lambda info: info.digest,
    b"nuid": lambda info: info.nuid,
    b"chunks": lambda info: str(info.chunks),
    b"chunk_size": lambda info: str(info.max_chunk_size),
    b"bucket": lambda info: info.bucket,
    b"object": lambda info: info.name,
    b"revision": lambda info: str(info.revision),
    b"link": lambda info: _link_text(info),
    b"description": lambda info: info.description,
    b"headers": lambda info: json.dumps({key: list(all_) for key, all_ in info.headers.items()}),
    b"metadata": lambda info: json.dumps(dict(info.metadata)),
}


def _link_text(info: ObjectInfo) -> str:
    if info.link is None:
        return ""
    return info.link.bucket if info.link.name is None else f"{info.link.bucket}/{info.link.name}"


def _shown(info: ObjectInfo | None, what: bytes) -> bytes:
    show = _SHOWN.get(what)
    text = show(info) if show is not None and info is not None else ""
    if not text:
        raise NoAttributeError(f"no attribute {NATS + what!r}")
    return text.encode("utf-8", "replace")


def _nats_edit(what: bytes, value: bytes) -> Callable[[ObjectInfo], ObjectInfo]:
    if what == b"description":
        text = text_of(value)
        return lambda info: replace(info, description=text)
    if what == b"metadata":
        metadata = _checked(_parsed(value, str))
        return lambda info: replace(info, metadata=metadata)
    if what == b"headers":
        headers = {key: tuple(found) for key, found in _parsed(value, list).items()}
        return lambda info: replace(info, headers=headers)
    raise NotPermitted(f"{NATS + what!r} is decided by NATS")


def _parsed(value: bytes, kind: type) -> dict[str, Any]:
    """A JSON object of strings, or of lists of strings."""
    try:
        found = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"not JSON: {error}") from error
    if not isinstance(found, dict) or not all(isinstance(entry, kind) for entry in found.values()):
        raise InvalidArgument("not a JSON object of the right kind")
    if kind is list and not all(
        isinstance(text, str) for entry in found.values() for text in entry
    ):
        raise InvalidArgument("headers are lists of strings")
    return found
