"""`natsfs meta`: what an object says besides its bytes, shown and changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from natsfs.cli.commands import Command, Group, store_options
from natsfs.cli.connection import take
from natsfs.cli.objects import object_json
from natsfs.cli.output import print_json, print_pairs, printable
from natsfs.cli.stores import with_manager
from natsfs.cli.target import object_of, target_of
from natsfs.config import TreeConfig
from natsfs.errors import NotFoundError, UsageError
from natsfs.filesystem.attributes import of_directory, of_object
from natsfs.store.base import ObjectStoreManager
from natsfs.store.model import ObjectInfo
from natsfs.upkeep.metadata import change_meta

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON")


@click.group(cls=Group)
def meta() -> None:
    """Show or change the description, the headers and the metadata of an object.

    SOURCE is BUCKET/NAME, or a path in a mount. Modes, owners and times of files are metadata, too:
    mode, uid, gid, mtime and so on, as rclone spells them.
    """


@meta.command("get", cls=Command)
@click.argument("source")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@_JSON
@store_options
def get(source: str, keys: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Show what SOURCE says, or the values of the metadata KEYs alone, one a line."""
    embedded: Path | None = options["embedded"]
    target = target_of(source, take(options))

    async def work(manager: ObjectStoreManager) -> ObjectInfo:
        return await object_of(await manager.bind(target.bucket), target)

    info = with_manager(work, target.server, embedded)
    missing = [key for key in keys if key not in info.metadata]
    if missing:
        raise NotFoundError(f"object {info.name!r} has no metadata {', '.join(missing)}")
    if as_json:
        print_json({key: info.metadata[key] for key in keys} if keys else _as_json(info))
    elif keys:
        for key in keys:
            click.echo(printable(info.metadata[key]))
    else:
        print_pairs(_pairs(info))


@meta.command("set", cls=Command)
@click.argument("source")
@click.argument("pairs", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--description", metavar="TEXT", help="What it is; '' for nothing")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Add; repeatable")
@click.option("--unset", multiple=True, metavar="KEY", help="Drop this metadata; repeatable")
@click.option("--unset-header", multiple=True, metavar="NAME", help="Drop this header; repeatable")
@click.option(
    "--revision",
    type=click.IntRange(1),
    metavar="N",
    help="Only if that is the revision of the object, which `natsfs stat` shows",
)
@_JSON
@store_options
def set_(
    source: str, pairs: tuple[str, ...], revision: int | None, as_json: bool, **options: Any
) -> None:
    """Set metadata of SOURCE, and leave all else as it is: bytes, times, other metadata, and fields
    that natsfs does not know.

    What another client changes at the same moment is kept. A --header given once or more replaces
    all values of that name.
    """
    edit = Edit(
        metadata=dict(_pair(text, "metadata") for text in pairs),
        unset=frozenset(options.pop("unset")),
        headers=_headers(options.pop("headers")),
        unset_headers=frozenset(options.pop("unset_header")),
        description=options.pop("description"),
    )
    if edit == Edit():
        raise UsageError("nothing is to be changed; write KEY=VALUE, --description or --header")
    embedded: Path | None = options["embedded"]
    target = target_of(source, take(options))

    async def work(manager: ObjectStoreManager) -> ObjectInfo:
        store = await manager.bind(target.bucket)
        return await change_meta(
            store, lambda: object_of(store, target), edit.applied, expected=revision
        )

    info = with_manager(work, target.server, embedded)
    if as_json:
        print_json(object_json(info))


@dataclass(frozen=True, slots=True)
class Edit:
    """What is to be changed."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    unset: frozenset[str] = frozenset()
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unset_headers: frozenset[str] = frozenset()
    description: str | None = None

    def applied(self, info: ObjectInfo) -> ObjectInfo:
        """*info* with the changes.  Errors: `UsageError` (mounts would not understand a value)."""
        changed = replace(
            info,
            description=info.description if self.description is None else self.description,
            metadata=_merged(info.metadata, self.metadata, self.unset),
            headers=_merged(info.headers, self.headers, self.unset_headers),
        )
        new = set(_problems(changed)) - set(_problems(info))
        if new:
            raise UsageError(
                f"mounts would not understand {', '.join(sorted(new))}: mode is octal, uid and gid "
                "are numbers, times are RFC 3339"
            )
        return changed


def _merged(
    old: Mapping[str, Any], new: Mapping[str, Any], without: Iterable[str]
) -> dict[str, Any]:
    kept = {key: value for key, value in old.items() if key not in set(without)}
    return {**kept, **new}


def _problems(info: ObjectInfo) -> list[str]:
    """The metadata that means something to mounts, and does not."""
    tree = TreeConfig()
    if info.name.endswith("/"):
        return of_directory(info, 0, tree)[1]
    return of_object(info, tree)[1]


def _headers(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        name, value = _pair(text, "--header")
        found[name] = (*found.get(name, ()), value)
    return found


def _pair(text: str, what: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"{what} {text!r} is no KEY=VALUE")
    return key, value


def _as_json(info: ObjectInfo) -> dict[str, Any]:
    shown = object_json(info)
    return {key: shown[key] for key in ("name", "revision", "description", "headers", "metadata")}


def _pairs(info: ObjectInfo) -> list[tuple[str, str]]:
    return [
        ("Description", info.description),
        *(
            (f"Header {name}", value)
            for name, values in sorted(info.headers.items())
            for value in values
        ),
        *((f"Metadata {key}", value) for key, value in sorted(info.metadata.items())),
    ]
