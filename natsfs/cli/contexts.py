"""Contexts of the `nats` command: named connections in files that it, and natsfs, read.

`$XDG_CONFIG_HOME/nats/context/NAME.json`, `~/.config` where that is not set; `nats/context.txt`
beside the directory names the one that is selected.  natsfs never writes there.  What it cannot do
as such a file says is an error, and not overlooked.

The format is that of natscontext in jsm.go.  Go reads names of fields in any case, and takes null
for nothing said.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from natsfs.cli.output import printable
from natsfs.cli.places import home_directory
from natsfs.cli.source import Servers, parse_servers
from natsfs.errors import UsageError

#: Bytes of a context's file at most: real ones have 1 KiB.
LARGEST = 1024 * 1024

#: What is text in a file, and natsfs makes use of.
_TEXTS = (
    *("url", "user", "password", "token", "creds", "nkey", "user_jwt", "user_seed", "nsc"),
    *("cert", "key", "ca", "jetstream_domain", "jetstream_api_prefix", "jetstream_event_prefix"),
    *("inbox_prefix", "socks_proxy", "windows_cert_store"),
)

#: Secrets that a file may contain by itself.
SECRETS = ("password", "token", "user_jwt", "user_seed")

#: How many contexts a message names.
_NAMED = 10


@dataclass(frozen=True, slots=True)
class Context:
    """One context: its fields that say something, by the names that they have in its file."""

    name: str
    path: Path
    texts: Mapping[str, str] = field(repr=False)
    tls_first: bool = False
    #: Whether nobody named it: it is the selected one.
    selected: bool = False

    def get(self, name: str) -> str:
        """The field *name*; empty where it says nothing."""
        return self.texts.get(name, "")

    def servers(self) -> Servers:
        """The servers in `url`, and the login there.  Errors: `UsageError`."""
        if not self.get("url"):
            return Servers()
        try:
            return parse_servers(",".join(url.strip() for url in self.get("url").split(",")))
        except UsageError as exc:
            raise UsageError(f"the context {self.name!r}: {exc}") from None


def chosen_context(
    named: str | None, environ: Mapping[str, str], *, none: bool = False
) -> Context | None:
    """The context that is *named*, or else the one of NATS_CONTEXT, or else the selected one;
    with *none*, only one that is *named*.

    Errors: `UsageError`.
    """
    if named or none:
        return load(named, environ) if named else None
    if environ.get("NATS_CONTEXT"):
        return load(environ["NATS_CONTEXT"], environ)
    name = selected(environ)
    return load(name, environ, chosen=True) if name else None


def load(name: str, environ: Mapping[str, str], *, chosen: bool = False) -> Context:
    """The context *name*, which may also be the path of a file that ends in `.json`.

    Errors: `UsageError`, which shows nothing of what the file says.
    """
    path = Path(name).absolute()
    if name.endswith(".json") and path.is_file():
        return _parsed(path.stem, path, selected=False)
    if not _is_name(name):
        raise UsageError(f"{name!r} cannot be the name of a context, and is no file NAME.json")
    path = _directory(environ) / f"{name}.json"
    if not path.is_file():
        raise UsageError(_unknown(name, environ, chosen))
    return _parsed(name, path, selected=chosen)


def known(environ: Mapping[str, str]) -> list[str]:
    """The names of all contexts."""
    try:
        found = [path for path in _directory(environ).iterdir() if path.suffix == ".json"]
        return sorted(path.stem for path in found if path.is_file() and path.stat().st_size)
    except OSError:
        return []


def selected(environ: Mapping[str, str]) -> str:
    """The name of the context that `nats context select` has selected; empty for none."""
    try:
        return _selection(environ).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def complete_context(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The contexts that begin so, for a shell."""
    return [name for name in known(os.environ) if name.startswith(incomplete)]


def _directory(environ: Mapping[str, str]) -> Path:
    return _configuration(environ) / "context"


def _selection(environ: Mapping[str, str]) -> Path:
    return _configuration(environ) / "context.txt"


def _configuration(environ: Mapping[str, str]) -> Path:
    above = environ.get("XDG_CONFIG_HOME")
    return (Path(above) if above else home_directory(environ) / ".config") / "nats"


def _is_name(name: str) -> bool:
    return bool(name) and ".." not in name and "/" not in name and "\0" not in name


def _unknown(name: str, environ: Mapping[str, str], chosen: bool) -> str:
    there = known(environ)
    near = difflib.get_close_matches(name, there, n=1)
    shown = ", ".join(map(printable, there[:_NAMED])) + (", …" if len(there) > _NAMED else "")
    told = f"there are {shown}" if there else f"there is none in {_directory(environ)}"
    if chosen:
        return (
            f"the selected context {name!r} does not exist; {told}; `nats context select` selects "
            "another one, and --no-context does without"
        )
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"there is no context {name!r}; {hint}{told}"


def _parsed(name: str, path: Path, *, selected: bool) -> Context:
    fields = {str(key).lower(): value for key, value in _content(name, path).items()}
    texts = {key: _text(name, path, key, fields.get(key)) for key in _TEXTS}
    first = fields.get("tls_first")
    if not isinstance(first, bool | None):
        raise UsageError(f"the context {name!r}: tls_first in {path} is to be true or false")
    if texts["windows_cert_store"]:
        raise UsageError(
            f"the context {name!r} uses a certificate store of Windows, which this host has not; "
            "give files in cert, key and ca"
        )
    return Context(name, path, {k: v for k, v in texts.items() if v}, bool(first), selected)


def _content(name: str, path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as exc:
        raise UsageError(
            f"cannot read the context {name!r}: {path}: {exc.strerror}; --no-context does without"
        ) from None
    try:
        content = json.loads(data) if len(data) <= LARGEST else None
    except json.JSONDecodeError as exc:
        raise UsageError(
            f"the context {name!r} is no JSON: {path}, line {exc.lineno}: {exc.msg}; "
            f"`nats context edit {name}` mends it"
        ) from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UsageError(f"the context {name!r} is no JSON object: {path}")
    return content


def _text(name: str, path: Path, key: str, value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        raise UsageError(f"the context {name!r}: {key} in {path} is to be text in quotes")
    return value
