"""Which server, and as whom: options, URLs, environment and contexts become one `ServerConfig`.

Names and order of preference are those of the `nats` command: what is said on the command line,
then what stands in the URL, then the variables NATS_URL, NATS_USER, NATS_PASSWORD, NATS_TOKEN,
NATS_CREDS, NATS_NKEY, NATS_JWT, NATS_SEED, NATS_CA, NATS_CERT and NATS_KEY, then a context: that of
`--context`, of NATS_CONTEXT, or the selected one.  As there, a context says what nothing else does,
also about a server that it does not name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from natsfs.cli.contexts import Context, chosen_context, complete_context
from natsfs.cli.login import file_of, file_of_context, login_of
from natsfs.cli.quantities import Duration
from natsfs.cli.references import nsc_profile
from natsfs.cli.source import Servers, parse_proxy, parse_servers
from natsfs.config import DEFAULT_SERVER, Proxy, ServerConfig
from natsfs.control import ServerStatus
from natsfs.errors import UsageError

_Command = TypeVar("_Command", bound=Callable[..., Any])

_DEFAULTS = ServerConfig()
_UNNAMED = Servers()

FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)

#: A part of a subject, and subjects without wildcards, which may end in a dot.
_TOKEN = re.compile(r"[^\s.*>]+")
_SUBJECT = re.compile(r"[^\s.*>]+(?:\.[^\s.*>]+)*\.?")

#: What the `nats` command takes for: no proxy, whatever the context says.
_NO_PROXY = ("", "none", "-")


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """The options of `connection_options`, as click fills them in, and whether there is
    `--embedded`."""

    server: str | None = None
    context: str | None = None
    no_context: bool = False
    user: str | None = None
    password_file: Path | None = None
    creds: Path | None = None
    nkey: Path | None = None
    tlsca: Path | None = None
    tlscert: Path | None = None
    tlskey: Path | None = None
    tlsfirst: bool = False
    js_domain: str | None = None
    js_api_prefix: str | None = None
    js_event_prefix: str | None = None
    inbox_prefix: str | None = None
    socks_proxy: str | None = None
    timeout: float = _DEFAULTS.timeout
    embedded: bool = False


#: The options that every command with a server has.
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--server", metavar="URL[,URL…]", help="Servers  [NATS_URL]"),
    click.option(
        "--context",
        metavar="NAME",
        shell_complete=complete_context,
        help="Context of the nats command  [NATS_CONTEXT, or the selected one]",
    ),
    click.option("--no-context", is_flag=True, help="Overlook the selected context"),
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
    click.option(
        "--tlsfirst",
        "--tls-first",
        is_flag=True,
        help="Do the TLS handshake before all else",
    ),
    click.option(
        "--js-domain", "--domain", metavar="DOMAIN", help="JetStream domain of the bucket"
    ),
    click.option(
        "--js-api-prefix",
        metavar="PREFIX",
        help="Where an account imports the API of JetStream  [$JS.API]",
    ),
    click.option(
        "--js-event-prefix",
        metavar="PREFIX",
        help="Where it imports what JetStream tells of changes  [$JS.EVENT]",
    ),
    click.option("--inbox-prefix", metavar="PREFIX", help="Where answers are to arrive  [_INBOX]"),
    click.option(
        "--socks-proxy",
        metavar="URL",
        help="SOCKS5 proxy on the way to the server, or none  [NATS_SOCKS_PROXY]",
    ),
    click.option(
        "--timeout",
        type=Duration(),
        default=_DEFAULTS.timeout,
        envvar="NATS_TIMEOUT",
        metavar="DURATION",
        help="Longest wait for an answer of the server  [NATS_TIMEOUT, or 60s]",
    ),
)


def connection_options(command: _Command) -> _Command:
    """Add the options that every command with a server has; see `take`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take(options: dict[str, Any]) -> ConnectionOptions:
    """Take what `connection_options` added out of *options*."""
    names = ConnectionOptions.__dataclass_fields__.keys() - {"embedded"}
    taken = {name: options.pop(name) for name in names if name in options}
    return ConnectionOptions(**taken, embedded=options.get("embedded") is not None)


def server_config(
    options: ConnectionOptions, environ: Mapping[str, str], named: Servers = _UNNAMED
) -> ServerConfig:
    """How to reach the servers that SOURCE *named*, or else those of `--server`, NATS_URL, the
    context, or the default.  With `--embedded` nothing of this says anything.

    Errors: `UsageError` (a URL that is none, servers named twice, an unreadable password file, a
    context that there is not, or that wants something that natsfs cannot do).
    """
    if options.timeout <= 0:
        raise UsageError("--timeout must be longer than nothing")
    if options.embedded:
        _check_alone(options, named)
        return ServerConfig(timeout=options.timeout, connect_timeout=_connect_timeout(options))
    if named.urls and options.server:
        raise UsageError("the server stands in SOURCE and in --server; say it once")
    context = chosen_context(options.context, environ, none=options.no_context)
    return _configured(options, environ, named, context)


def server_of_mount(
    options: ConnectionOptions, environ: Mapping[str, str], told: ServerStatus
) -> ServerConfig:
    """How to reach the server of a mount, from what its process *told*.

    Passwords and tokens it does not tell; options, environment and its context do.

    Errors: `UsageError`.
    """
    name = options.context or (None if options.no_context else told.get("context"))
    context = chosen_context(name, environ, none=True)
    own = _configured(options, environ, Servers(tuple(told["urls"])), context)
    files: dict[str, Any] = {
        name: Path(path) for name, path in told["files"].items() if getattr(own, name) is None
    }
    subjects: dict[str, Any] = dict(told.get("subjects", {}))
    return replace(own, **files, **subjects, tls_first=own.tls_first or told["tls_first"])


def _configured(
    options: ConnectionOptions,
    environ: Mapping[str, str],
    named: Servers,
    context: Context | None,
) -> ServerConfig:
    servers = named if named.urls else _servers(options, environ, context)
    files: dict[str, Any] = {
        "tls_ca": file_of(options.tlsca, environ, "NATS_CA"),
        "tls_cert": file_of(options.tlscert, environ, "NATS_CERT"),
        "tls_key": file_of(options.tlskey, environ, "NATS_KEY"),
    }
    if context is not None:
        _add_files(files, context, environ)
    return ServerConfig(
        urls=servers.urls,
        **login_of(options, environ, servers, context),
        **files,
        **_subjects(options, context),
        tls_first=options.tlsfirst or (context is not None and context.tls_first),
        proxy=_proxy(options, environ, context),
        context=_told_name(context),
        timeout=options.timeout,
        connect_timeout=_connect_timeout(options),
    )


def _servers(
    options: ConnectionOptions, environ: Mapping[str, str], context: Context | None
) -> Servers:
    if text := options.server or environ.get("NATS_URL"):
        return parse_servers(text)
    if context is None:
        return parse_servers(DEFAULT_SERVER)
    if urls := context.servers().urls:
        # The login in there counts for less than one in the environment.
        return Servers(urls)
    known = nsc_profile(context.get("nsc")).urls if context.get("nsc") else ""
    return Servers(parse_servers(known or DEFAULT_SERVER).urls)


def _add_files(files: dict[str, Any], context: Context, environ: Mapping[str, str]) -> None:
    """Add the files of *context*: a certificate and its key come from one place."""
    files["tls_ca"] = files["tls_ca"] or file_of_context(context, "ca", environ)
    if files["tls_cert"] is None and files["tls_key"] is None:
        if bool(context.get("cert")) != bool(context.get("key")):
            raise UsageError(f"the context {context.name!r} is to have both cert and key, or none")
        files["tls_cert"] = file_of_context(context, "cert", environ)
        files["tls_key"] = file_of_context(context, "key", environ)


def _subjects(options: ConnectionOptions, context: Context | None) -> dict[str, Any]:
    """Where JetStream is to be asked, and where it answers.  Errors: `UsageError`."""
    domain, api = options.js_domain, options.js_api_prefix
    events, inbox = options.js_event_prefix, options.inbox_prefix
    if context is not None:
        events = events or context.get("jetstream_event_prefix")
        inbox = inbox or context.get("inbox_prefix")
        if not domain and not api:
            domain = context.get("jetstream_domain")
            api = context.get("jetstream_api_prefix")
    if domain and api:
        raise UsageError("a JetStream domain and an API prefix exclude each other; give one")
    return {
        "domain": _checked("JetStream domain", _TOKEN, domain),
        "api_prefix": _checked("API prefix", _SUBJECT, api),
        "event_prefix": _checked("event prefix", _SUBJECT, events),
        "inbox_prefix": _checked("inbox prefix", _SUBJECT, inbox),
    }


def _checked(what: str, pattern: re.Pattern[str], text: str | None) -> str | None:
    if not text:
        return None
    if not pattern.fullmatch(text):
        raise UsageError(f"{text!r} is no {what}: it has blanks, wildcards or misplaced dots")
    return text.rstrip(".")


def _proxy(
    options: ConnectionOptions, environ: Mapping[str, str], context: Context | None
) -> Proxy | None:
    given = options.socks_proxy or environ.get("NATS_SOCKS_PROXY") or ""
    if not given and context is not None:
        given = context.get("socks_proxy")
    return None if given.lower() in _NO_PROXY else parse_proxy(given)


def _told_name(context: Context | None) -> str | None:
    """What leads back to *context*, for a command that asks a mount."""
    if context is None:
        return None
    return context.name if context.path.parent.name == "context" else str(context.path)


def _check_alone(options: ConnectionOptions, named: Servers) -> None:
    asked = {
        "--server": options.server or named.urls,
        "--context": options.context,
        "--js-domain": options.js_domain,
        "--js-api-prefix": options.js_api_prefix,
    }
    for option, value in asked.items():
        if value:
            what = "the other one" if option == "--server" else option
            raise UsageError(f"--embedded brings its own server; leave {what} away")


def _connect_timeout(options: ConnectionOptions) -> float:
    return min(options.timeout, _DEFAULTS.connect_timeout)
