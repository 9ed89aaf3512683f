"""What SOURCE means to commands that look into a bucket: a bucket, the objects below a prefix of
names, or a directory in a mount, whose process tells which bucket and server that is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from natsfs.cli.connection import ConnectionOptions, server_config, server_of_mount
from natsfs.cli.mountpoint import located, mount_above
from natsfs.cli.places import control_directory
from natsfs.cli.source import check_bucket, parse_source
from natsfs.config import ServerConfig
from natsfs.control import ask, socket_path
from natsfs.errors import NotFoundError, UsageError
from natsfs.store.base import ObjectStore
from natsfs.store.model import ObjectInfo
from natsfs.tree.names import decode_component


@dataclass(frozen=True, slots=True)
class Target:
    """What to look at and where."""

    bucket: str
    prefix: str
    server: ServerConfig

    def covers(self, name: str) -> bool:
        """Whether the object *name* is the one of that name, or below it."""
        below = self.prefix if self.prefix.endswith("/") or not self.prefix else f"{self.prefix}/"
        return name == self.prefix or name.startswith(below)


def target_of(source: str, options: ConnectionOptions) -> Target:
    """What *source* names.  Errors: `UsageError`."""
    path = located(source)
    mount = mount_above(path) if "://" not in source else None
    if mount is not None:
        return _mounted(path, mount.directory, options)
    if source.startswith(("/", "./", "../", "~")) or source in (".", ".."):
        raise UsageError(f"{source} is in no natsfs mount; `natsfs status` lists those there are")
    wanted = parse_source(source, prefix_allowed=True)
    server = server_config(options, os.environ, wanted.servers)
    return Target(wanted.bucket, wanted.prefix, server)


def is_bare(source: str) -> bool:
    """Whether *source* names a bucket and no server."""
    return "://" not in source and mount_above(located(source)) is None


def _mounted(path: Path, directory: Path, options: ConnectionOptions) -> Target:
    """The bucket behind a mount: its process tells the server, the caller brings the secrets."""
    try:
        status = ask(socket_path(control_directory(), directory), "status")
    except OSError as exc:
        raise UsageError(
            f"the mount on {directory} does not answer: {exc.strerror or exc}; it may have died or "
            "belong to another user"
        ) from None
    server = server_of_mount(options, os.environ, status["server"])
    names = [decode_component(os.fsencode(part)) for part in path.relative_to(directory).parts]
    if status["bucket"]:
        return Target(status["bucket"], "/".join(names), server)
    if not names:
        raise UsageError(
            f"{directory} shows all buckets; name a directory in it, or use `natsfs bucket list`"
        )
    return Target(check_bucket(names[0]), "/".join(names[1:]), server)


async def object_of(
    store: ObjectStore, target: Target, *, show_deleted: bool = False
) -> ObjectInfo:
    """The object that *target* names, or the one that describes the directory of that name.

    Errors: `UsageError` (it names a bucket), `NotFoundError`, those of `ObjectStore.get_info`.
    """
    name = named_object(target)
    marker = f"{name.rstrip('/')}/"
    for candidate in dict.fromkeys((name, marker)):
        try:
            return await store.get_info(candidate, show_deleted=show_deleted)
        except NotFoundError:
            continue
    raise NotFoundError(
        f"bucket {target.bucket!r} has no object {name!r}; `natsfs ls` lists those there are, and "
        "what is below a directory"
    )


def named_object(target: Target) -> str:
    """The name of the object in *target*.  Errors: `UsageError`."""
    if not target.prefix:
        raise UsageError(
            f"that is the bucket {target.bucket!r}, and an object in it is needed: BUCKET/NAME; "
            f"`natsfs bucket info {target.bucket}` shows the bucket"
        )
    return target.prefix
