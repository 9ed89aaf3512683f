"""`natsfs doctor`: is there what mounts need, on this host and on the server?

context    the context of the `nats` command
host       devices, limits, directories, mounts, journals
server     the server, and a bucket
findings   what a check has found
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from natsfs.cli.commands import Command, store_options
from natsfs.cli.connection import server_config, take
from natsfs.cli.doctor.context import context_findings
from natsfs.cli.doctor.findings import Finding, State, problem, warning
from natsfs.cli.doctor.host import host_findings
from natsfs.cli.doctor.server import server_findings
from natsfs.cli.outcome import describe
from natsfs.cli.output import print_json, printable
from natsfs.cli.places import cache_directory, control_directory
from natsfs.cli.source import parse_source
from natsfs.cli.stores import with_session
from natsfs.cli.target import Target, target_of
from natsfs.errors import NatsfsError, UsageError

#: The exit status when there is a problem.
PROBLEMS = 1


@click.command(cls=Command)
@click.argument("source", metavar="[SOURCE]", required=False)
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where mounts are to cache  [XDG cache directory]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@store_options
def doctor(source: str | None, cache_dir: Path | None, as_json: bool, **options: Any) -> int:
    """Check what mounts need: this host, the server, and the bucket SOURCE, if one is named.

    SOURCE may name a server alone, or a directory in a mount. Nothing is changed. Each line is ok,
    a warning or a problem, with what to do. The exit status is 1 if there is a problem.
    """
    cache = (cache_dir or cache_directory()).expanduser().absolute()
    findings = list(host_findings(cache, control_directory()))
    findings += _of_server(source, options)
    if as_json:
        print_json([finding.as_json() for finding in findings])
    else:
        for finding in findings:
            _print(finding)
    return PROBLEMS if any(finding.state is State.PROBLEM for finding in findings) else 0


def _of_server(source: str | None, options: dict[str, Any]) -> list[Finding]:
    embedded: Path | None = options["embedded"]
    named = source is not None or embedded is not None or _is_named(options)
    try:
        target = _target(source, options)
    except UsageError as exc:
        text, _, advice = str(exc).partition("; ")
        return [problem("connection", text, advice or "see `natsfs doctor --help`")]
    context = context_findings(target.server.context, os.environ)
    return context + _reached(target, embedded, named=named or bool(context))


def _reached(target: Target, embedded: Path | None, *, named: bool) -> list[Finding]:
    try:
        return with_session(
            lambda session, manager: server_findings(session, manager, target.bucket),
            target.server,
            embedded,
        )
    except (NatsfsError, BaseExceptionGroup) as exc:
        failure = describe(exc)
        if failure.unexpected:
            raise
        text, _, advice = failure.text.partition("; ")
        if not named:
            return [warning("server", f"none is named, and {text}", advice)]
        return [problem("server", text, advice)]


def _is_named(options: dict[str, Any]) -> bool:
    return bool(options["server"] or os.environ.get("NATS_URL"))


def _target(source: str | None, options: dict[str, Any]) -> Target:
    """The bucket, empty for none, and its server.  Errors: `UsageError`."""
    connection = take(options)
    if source is None:
        return Target("", "", server_config(connection, os.environ))
    if "://" in source:
        wanted = parse_source(source, prefix_allowed=True, all_allowed=True)
        return Target(
            wanted.bucket, wanted.prefix, server_config(connection, os.environ, wanted.servers)
        )
    return target_of(source, connection)


def _print(finding: Finding) -> None:
    colour = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "red"}[finding.state]
    state = click.style(f"{finding.state.value:<8}", fg=colour)
    click.echo(f"{state} {finding.check}: {printable(finding.text)}")
    if finding.advice:
        click.echo(f"{'':8}   → {printable(finding.advice)}")
