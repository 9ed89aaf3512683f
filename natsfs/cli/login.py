"""Who one is to a server: options, URLs, environment and context become fields of `ServerConfig`.

A login given in one place wins whole: it is never mixed with half of another.  The places are, in
this order, options, the URL, the environment, the context.  Here natsfs differs from the `nats`
command, which lets the `user` of a context win over `--creds`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from natsfs.cli.contexts import Context
from natsfs.cli.references import expanded, literal, nsc_profile, resolved, scheme_of
from natsfs.cli.source import Servers
from natsfs.errors import UsageError

#: What a credentials file looks like.
_CREDS = """-----BEGIN NATS USER JWT-----
{jwt}
------END NATS USER JWT------
-----BEGIN USER NKEY SEED-----
{seed}
------END USER NKEY SEED------
"""


class LoginOptions(Protocol):
    """What the command line says of a login."""

    @property
    def user(self) -> str | None: ...
    @property
    def password_file(self) -> Path | None: ...
    @property
    def creds(self) -> Path | None: ...
    @property
    def nkey(self) -> Path | None: ...


def login_of(
    options: LoginOptions,
    environ: Mapping[str, str],
    servers: Servers,
    context: Context | None,
) -> dict[str, Any]:
    """The first of: *options*, the URL of *servers*, *environ*, *context*; within one: user,
    credentials file, nkey, JWT.

    Errors: `UsageError`.
    """
    if options.user:
        return _user(options.user, _password(options, environ))
    if options.creds:
        return {"creds": options.creds.absolute()}
    if options.nkey:
        return {"nkey": options.nkey.absolute()}
    return (
        _in_url(servers)
        or _ambient(options, environ)
        or (_of_context(context, environ) if context else {})
    )


def file_of(given: Path | None, environ: Mapping[str, str], variable: str) -> Path | None:
    """A file named by an option or by *variable*, absolute: a daemon works in the root directory.

    Errors: `UsageError` (the variable names no readable file).
    """
    if given is None and environ.get(variable):
        given = Path(environ[variable]).expanduser()
        if not given.is_file():
            raise UsageError(f"{variable} names {given}, which is no file")
    return given.absolute() if given is not None else None


def file_of_context(context: Context, name: str, environ: Mapping[str, str]) -> Path | None:
    """The file that the field *name* of *context* names.  Errors: `UsageError`."""
    value = context.get(name)
    if not value:
        return None
    if scheme_of(value) not in ("", "file"):
        raise UsageError(f"the context {context.name!r}: {name} has to be the path of a file")
    path = expanded(value, environ)
    if not path.is_file():
        raise UsageError(f"the context {context.name!r}: {name} names {path}, which is no file")
    return path


def _in_url(servers: Servers) -> dict[str, Any]:
    if servers.token:
        return {"token": servers.token}
    return _user(servers.user, servers.password) if servers.user else {}


def _ambient(options: LoginOptions, environ: Mapping[str, str]) -> dict[str, Any]:
    if user := environ.get("NATS_USER"):
        return _user(user, _password(options, environ))
    if token := environ.get("NATS_TOKEN"):
        return {"token": token}
    if creds := file_of(None, environ, "NATS_CREDS"):
        return {"creds": creds}
    if nkey := file_of(None, environ, "NATS_NKEY"):
        return {"nkey": nkey}
    return _by_jwt(environ.get("NATS_JWT", ""), environ.get("NATS_SEED", ""))


def _of_context(context: Context, environ: Mapping[str, str]) -> dict[str, Any]:
    """Errors: `UsageError`, which names the field."""
    if found := _in_url(context.servers()):
        return found
    token = _secret(context, "token", environ)
    more = {"token": token} if token else {}
    if context.get("user"):
        password = _secret(context, "password", environ)
        return {"user": context.get("user"), "password": password}
    if context.get("creds"):
        # A token may go with it, for servers that ask another one who somebody is.
        return more | _kept(context, "creds", environ)
    if context.get("nsc"):
        return more | {"creds": Path(nsc_profile(context.get("nsc")).creds)}
    if context.get("nkey"):
        return more | _kept(context, "nkey", environ)
    secrets = (_secret(context, name, environ) for name in ("user_jwt", "user_seed"))
    return more | _by_jwt(*secrets)


def _kept(context: Context, name: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """What the field *name* refers to: a file, which is read for each connection, or a text."""
    if scheme_of(context.get(name)) in ("", "file"):
        return {name: file_of_context(context, name, environ)}
    try:
        return {f"{name}_text": resolved(context.get(name), environ)}
    except UsageError as exc:
        raise UsageError(f"the context {context.name!r}: {name}: {exc}") from None


def _secret(context: Context, name: str, environ: Mapping[str, str]) -> str:
    try:
        return literal(context.get(name), environ)
    except UsageError as exc:
        raise UsageError(f"the context {context.name!r}: {name}: {exc}") from None


def _by_jwt(jwt: str, seed: str) -> dict[str, Any]:
    if not jwt:
        return {}
    return {"creds_text": _CREDS.format(jwt=jwt, seed=seed)} if seed else {"bearer": jwt}


def _user(user: str, password: str | None) -> dict[str, Any]:
    """A user without a password is a token, as the `nats` command has it."""
    return {"token": user} if password is None else {"user": user, "password": password}


def _password(options: LoginOptions, environ: Mapping[str, str]) -> str | None:
    if options.password_file is None:
        return environ.get("NATS_PASSWORD")
    try:
        lines = options.password_file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read {options.password_file}: {exc}") from None
    if not lines:
        raise UsageError(f"{options.password_file} is empty; its first line is the password")
    return lines[0]
