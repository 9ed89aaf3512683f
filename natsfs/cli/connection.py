"""Which server, and as whom: options, URLs and environment become one `ServerConfig`.

Names and order of preference are those of the `nats` command: what is said on the command line,
then what stands in the URL, then NATS_URL, NATS_USER, NATS_PASSWORD, NATS_TOKEN, NATS_CREDS,
NATS_NKEY, NATS_CA, NATS_CERT and NATS_KEY.  A login given in one place wins whole: it is never
mixed with half of another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from natsfs.cli.quantities import Duration
from natsfs.cli.source import Servers, parse_servers
from natsfs.config import DEFAULT_SERVER, ServerConfig
from natsfs.control import ServerStatus
from natsfs.errors import UsageError

_Command = TypeVar("_Command", bound=Callable[..., Any])

_DEFAULTS = ServerConfig()
_UNNAMED = Servers()

FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """The options of `connection_options`, as click fills them in."""

    server: str | None = None
    user: str | None = None
    password_file: Path | None = None
    creds: Path | None = None
    nkey: Path | None = None
    tlsca: Path | None = None
    tlscert: Path | None = None
    tlskey: Path | None = None
    tlsfirst: bool = False
    timeout: float = _DEFAULTS.timeout


def connection_options(command: _Command) -> _Command:
    """Add the options that every command with a server has; see `take`."""
    for option in reversed(
        (
            click.option("--server", metavar="URL[,URL…]", help="Servers  [NATS_URL]"),
            click.option("--user", metavar="NAME", help="User name, or a token  [NATS_USER]"),
            click.option(
                "--password-file",
                type=FILE,
                help="File whose first line is the password  [NATS_PASSWORD: the password]",
            ),
            click.option("--creds", type=FILE, help="Credentials file  [NATS_CREDS]"),
            click.option("--nkey", type=FILE, help="File with an nkey seed  [NATS_NKEY]"),
            click.option("--tlsca", type=FILE, help="Certificates to trust, PEM  [NATS_CA]"),
            click.option("--tlscert", type=FILE, help="Own certificate, PEM  [NATS_CERT]"),
            click.option("--tlskey", type=FILE, help="Key of --tlscert, PEM  [NATS_KEY]"),
            click.option("--tlsfirst", is_flag=True, help="Do the TLS handshake before all else"),
            click.option(
                "--timeout",
                type=Duration(),
                default=_DEFAULTS.timeout,
                metavar="DURATION",
                help="Longest wait for an answer of the server  [60s]",
            ),
        )
    ):
        command = option(command)
    return command


def take(options: dict[str, Any]) -> ConnectionOptions:
    """Take what `connection_options` added out of *options*."""
    names = ConnectionOptions.__dataclass_fields__
    return ConnectionOptions(**{name: options.pop(name) for name in names if name in options})


def server_config(
    options: ConnectionOptions, environ: Mapping[str, str], named: Servers = _UNNAMED
) -> ServerConfig:
    """How to reach the servers that SOURCE *named*, or else `--server`, NATS_URL or the default.

    Errors: `UsageError` (a URL that is none, servers named twice, an unreadable password file).
    """
    if named.urls and options.server:
        raise UsageError("the server stands in SOURCE and in --server; say it once")
    servers = named
    if not servers.urls:
        servers = parse_servers(options.server or environ.get("NATS_URL") or DEFAULT_SERVER)
    if options.timeout <= 0:
        raise UsageError("--timeout must be longer than nothing")
    return ServerConfig(
        urls=servers.urls,
        **_login(options, environ, servers),
        tls_ca=_file(options.tlsca, environ, "NATS_CA"),
        tls_cert=_file(options.tlscert, environ, "NATS_CERT"),
        tls_key=_file(options.tlskey, environ, "NATS_KEY"),
        tls_first=options.tlsfirst,
        timeout=options.timeout,
        connect_timeout=min(options.timeout, _DEFAULTS.connect_timeout),
    )


def server_of_mount(
    options: ConnectionOptions, environ: Mapping[str, str], told: ServerStatus
) -> ServerConfig:
    """How to reach the server of a mount, from what its process *told*.

    Passwords and tokens it does not tell; options and environment do.  Errors: `UsageError`.
    """
    own = server_config(options, environ, Servers(tuple(told["urls"])))
    files: dict[str, Any] = {
        name: Path(path) for name, path in told["files"].items() if getattr(own, name) is None
    }
    return replace(own, **files, tls_first=own.tls_first or told["tls_first"])


def _login(
    options: ConnectionOptions, environ: Mapping[str, str], servers: Servers
) -> dict[str, Any]:
    """The first of: options, URL, environment; within one: user, credentials file, nkey."""
    if options.user:
        return _user(options.user, _password(options, environ))
    if options.creds:
        return {"creds": options.creds.absolute()}
    if options.nkey:
        return {"nkey": options.nkey.absolute()}
    if servers.token:
        return {"token": servers.token}
    if servers.user:
        return _user(servers.user, servers.password)
    return _ambient_login(options, environ)


def _ambient_login(options: ConnectionOptions, environ: Mapping[str, str]) -> dict[str, Any]:
    if user := environ.get("NATS_USER"):
        return _user(user, _password(options, environ))
    if token := environ.get("NATS_TOKEN"):
        return {"token": token}
    if creds := _file(None, environ, "NATS_CREDS"):
        return {"creds": creds}
    if nkey := _file(None, environ, "NATS_NKEY"):
        return {"nkey": nkey}
    return {}


def _user(user: str, password: str | None) -> dict[str, Any]:
    """A user without a password is a token, as the `nats` command has it."""
    return {"token": user} if password is None else {"user": user, "password": password}


def _password(options: ConnectionOptions, environ: Mapping[str, str]) -> str | None:
    if options.password_file is None:
        return environ.get("NATS_PASSWORD")
    try:
        lines = options.password_file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"cannot read {options.password_file}: {exc}") from None
    if not lines:
        raise UsageError(f"{options.password_file} is empty; its first line is the password")
    return lines[0]


def _file(given: Path | None, environ: Mapping[str, str], variable: str) -> Path | None:
    """A file named by an option or by *variable*, absolute: a daemon works in the root directory.

    Errors: `UsageError` (the variable names no readable file).
    """
    if given is None and environ.get(variable):
        given = Path(environ[variable]).expanduser()
        if not given.is_file():
            raise UsageError(f"{variable} names {given}, which is no file")
    return given.absolute() if given is not None else None
