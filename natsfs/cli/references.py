"""Secrets that a context of the `nats` command names instead of containing them.

`env://NAME`, `data:;base64,…`, `file://PATH`, and what the programs `nsc` and `op` (of 1Password)
know.  Nothing here shows what a secret says, also not when its program fails: only what that wrote
to standard error.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natsfs.cli.places import home_directory
from natsfs.cli.secrecy import conceal_variable
from natsfs.errors import UsageError

SCHEMES = ("file", "env", "data", "nsc", "op")

#: Seconds for a program to tell a secret: `op` may have to ask its owner.
PATIENCE = 60.0

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True, slots=True)
class Profile:
    """What `nsc` knows of a user: a credentials file, and servers; empty for nothing."""

    creds: str
    urls: str


def scheme_of(reference: str) -> str:
    """The scheme that *reference* begins with, in lower case; empty for a path."""
    found = _SCHEME.match(reference)
    return found[1].lower() if found else ""


def expanded(path: str, environ: Mapping[str, str]) -> Path:
    """*path* absolute, with variables and a `~` in front as the `nats` command reads them: a
    variable that is not set is empty."""
    text = _VARIABLE.sub(lambda found: environ.get(found[1] or found[2], ""), path)
    text = text.removeprefix("file://")
    if text == "~" or text.startswith("~/"):
        text = f"{home_directory(environ)}{text[1:]}"
    return Path(text).absolute()


def resolved(reference: str, environ: Mapping[str, str]) -> str:
    """The secret that *reference* stands for, which has one of `SCHEMES`, without the end of its
    last line.

    Errors: `UsageError`.
    """
    return _resolve(reference, environ).rstrip("\r\n")


def literal(value: str, environ: Mapping[str, str]) -> str:
    """*value*, or the secret that it stands for.  Errors: `UsageError`."""
    return resolved(value, environ) if scheme_of(value) in SCHEMES else value


def _resolve(reference: str, environ: Mapping[str, str]) -> str:
    match scheme_of(reference):
        case "file":
            return _read(expanded(reference, environ))
        case "env":
            return _variable(reference.partition("://")[2], environ)
        case "data":
            return _inline(reference)
        case "nsc":
            return _read(Path(nsc_profile(reference).creds))
        case _:
            return _told("op", "read", reference)


def nsc_profile(reference: str) -> Profile:
    """What `nsc` knows of `nsc://OPERATOR/ACCOUNT/USER`.  Errors: `UsageError`."""
    told = _told("nsc", "generate", "profile", reference.removeprefix("nsc://"))
    try:
        answer: Any = json.loads(told)
        creds = str(answer.get("user_creds") or "")
        urls = ",".join((answer.get("operator") or {}).get("service") or ())
    except (ValueError, AttributeError, TypeError):
        raise UsageError("`nsc generate profile` gave no JSON that natsfs understands") from None
    return Profile(creds, urls)


def _variable(name: str, environ: Mapping[str, str]) -> str:
    conceal_variable(name)
    if not environ.get(name):
        raise UsageError(f"env://{name} names a variable that is not set; set it")
    return environ[name]


def _inline(reference: str) -> str:
    head, _, data = reference.partition(",")
    try:
        if not head.endswith(";base64"):
            raise UsageError("a data: reference is to have the form data:;base64,…")
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise UsageError("a data: reference is no text in base64") from None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read {path}: {getattr(exc, 'strerror', exc)}") from None


def _told(program: str, *arguments: str) -> str:
    """What *program* prints.  Errors: `UsageError`."""
    found = shutil.which(program)
    if found is None:
        raise UsageError(f"there is no program {program!r} on the PATH, which the context needs")
    try:
        done = subprocess.run(
            [found, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise UsageError(f"`{program}` did not answer within {PATIENCE:g} s") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot run {found}: {exc}") from None
    except subprocess.CalledProcessError as exc:
        said = " ".join((exc.stderr or "").split()) or f"it exited with {exc.returncode}"
        raise UsageError(f"`{program} {arguments[0]}` failed: {said}") from None
    return done.stdout
