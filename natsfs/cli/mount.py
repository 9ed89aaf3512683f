"""`natsfs mount`: options become a `MountConfig`, and a process that serves it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import trio

from natsfs.cli.collection import pause_collection, resume_collection
from natsfs.cli.commands import MountCommand, Session, store_options
from natsfs.cli.connection import server_config, take
from natsfs.cli.logs import Logging, Target, log_for_mount
from natsfs.cli.mountpoint import check_fuse, check_mount_point, located
from natsfs.cli.outcome import describe
from natsfs.cli.output import say
from natsfs.cli.places import cache_directory, control_directory, log_file
from natsfs.cli.progress import Told, bars, shown
from natsfs.cli.quantities import Address, Duration, Octal, Size
from natsfs.cli.source import Source, parse_source
from natsfs.cli.utab import announce
from natsfs.config import (
    CacheConfig,
    ConflictConfig,
    ConflictPolicy,
    MountConfig,
    ServerConfig,
    TreeConfig,
)
from natsfs.control import socket_path
from natsfs.daemon import Ready, interrupt_on_sigterm, run_in_background
from natsfs.errors import UsageError
from natsfs.supervisor import NOBODY, Supervisor

#: 2**32 - 1 means "no such user" to chown(2).
_IDENTITY = click.IntRange(0, 2**32 - 2)
_PATH = click.Path(path_type=Path)


@click.command(cls=MountCommand)
@click.argument("source", metavar="[SOURCE]", required=False)
@click.argument("directory", metavar="DIRECTORY", type=_PATH, required=False)
@click.option("--all", "all_buckets", is_flag=True, help="Show every bucket as a directory")
@click.option("--create", is_flag=True, help="Make the bucket if there is none")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground, log to the screen")
@click.option("--read-only", is_flag=True, help="Refuse every change")
@click.option(
    "--writeback",
    is_flag=True,
    help="Let close return when the local disk has the bytes; they are stored afterwards, in order",
)
@click.option("--hard", is_flag=True, help="Wait for a lost server for ever, not for --timeout")
@click.option("--allow-other", is_flag=True, help="Let other users in, as the modes allow")
@click.option("--allow-non-empty", is_flag=True, help="Hide what is in DIRECTORY meanwhile")
@click.option("--uid", type=_IDENTITY, metavar="UID", help="Owner of what has none  [you]")
@click.option("--gid", type=_IDENTITY, metavar="GID", help="Group of what has none  [yours]")
@click.option("--umask", type=Octal(), metavar="MODE", help="Bits taken off the two modes  [022]")
@click.option(
    "--file-mode", type=Octal(), metavar="MODE", help="Mode of files that have none  [666]"
)
@click.option(
    "--dir-mode", type=Octal(), metavar="MODE", help="Mode of directories that have none  [777]"
)
@click.option(
    "--cache-dir", type=_PATH, metavar="DIR", help="Where to cache  [XDG cache directory]"
)
@click.option("--cache-size", type=Size(), metavar="SIZE", help="Bound of the cache  [10G]")
@click.option(
    "--purge-delay",
    type=Duration(),
    metavar="DURATION",
    help="How long replaced content stays for readers elsewhere  [10s]",
)
@click.option(
    "--conflict",
    type=click.Choice([policy.value for policy in ConflictPolicy]),
    help="When another client stored a version of a file that was being written: let the last "
    "commit win, keep the other one as NAME.conflict-HOST-TIME, or fail with ESTALE  [last]",
)
@click.option(
    "--metrics-address",
    type=Address(),
    metavar="HOST:PORT",
    help="Offer counters to Prometheus there, to everybody who can connect  [nowhere]",
)
@click.option(
    "-o",
    "options",
    multiple=True,
    metavar="OPT[,OPT…]",
    help="The same, as mount(8) has it: -o ro,allow_other,cache_size=1G",
)
@click.option("--fake", is_flag=True, hidden=True, help="Check all, and mount nothing: mount -f")
@click.option(
    "--sloppy", is_flag=True, hidden=True, help="Overlook unknown mount options: mount -s"
)
@click.option(
    "--as-spelled", is_flag=True, hidden=True, help="Show SOURCE as it is: mount(8) looks for it"
)
@click.option("--log-file", type=_PATH, metavar="FILE", help="Log there  [XDG state directory]")
@click.option(
    "--log-target",
    type=click.Choice([target.value for target in Target]),
    help="Log to standard error, a file, syslog or journald  [file; with -f: stderr]",
)
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), help="How a line of the log looks  [text]"
)
@store_options
@click.pass_context
def mount(ctx: click.Context, /, source: str | None, directory: Path | None, **options: Any) -> int:
    """Show the bucket SOURCE as DIRECTORY, or every bucket as a directory in it.

    SOURCE is BUCKET, nats://HOST:PORT/BUCKET or tls://…; several hosts are separated by commas.
    nats://HOST:PORT without a bucket stands for all buckets of that server that you may see;
    `natsfs mount --all DIRECTORY` for those of --server or NATS_URL. There mkdir makes a bucket,
    and rmdir deletes an empty one.

    The command returns when the mount can be used; `natsfs umount DIRECTORY` ends it.
    """
    source, directory = places(source, directory, all_buckets=options["all_buckets"])
    directory = located(directory)
    words = ctx.meta["kernel_words"]
    config = mount_config(source, directory, options, words, os.environ)
    check_fuse(allow_other=config.allow_other)
    check_mount_point(directory, allow_non_empty=options["allow_non_empty"])
    if options["fake"]:
        return 0
    plan = _logging(ctx, options)
    if not options["foreground"]:
        return _mount_in_background(config, plan)
    hang_up = log_for_mount(plan)
    interrupt_on_sigterm()
    supervisor = supervisor_of(os.environ, os.getpid())
    _serve_in_front(config, hang_up, supervisor)
    return 0


def places(source: str | None, directory: Path | None, *, all_buckets: bool) -> tuple[str, Path]:
    """SOURCE, empty for all buckets of the usual server, and DIRECTORY, which may stand alone then.

    Errors: `UsageError`.
    """
    if source is not None and directory is not None:
        return source, directory
    if source is None:
        raise UsageError(
            "what is to be mounted, and where? `natsfs mount SOURCE DIRECTORY` mounts a bucket, "
            "`natsfs mount --all DIRECTORY` all; see `natsfs mount --help`"
        )
    if not all_buckets:
        raise UsageError(
            f"{source!r} is SOURCE or DIRECTORY, and both are needed; for all buckets of the "
            "usual server write `natsfs mount --all DIRECTORY`"
        )
    return "", Path(source)


def mount_config(
    source: str,
    directory: Path,
    options: Mapping[str, Any],
    kernel_words: tuple[str, ...],
    environ: Mapping[str, str],
) -> MountConfig:
    """The mount that the command line asks for; *options* are those of `mount` by name.

    Errors: `UsageError`.
    """
    wanted = _wanted(source, options)
    embedded: Path | None = options["embedded"]
    server = server_config(take(dict(options)), environ, wanted.servers)
    config = MountConfig(
        server=server,
        bucket=wanted.bucket,
        directory=directory,
        cache=_cache(options),
        tree=_tree(options),
        read_only=options["read_only"],
        hard=options["hard"],
        allow_other=options["allow_other"],
        create=options["create"],
        writeback=options["writeback"],
        embedded=embedded,
        metrics_address=options["metrics_address"],
        source=shown_source(
            source, server, embedded, wanted.bucket, as_spelled=options["as_spelled"]
        ),
        kernel_options=kernel_words,
    )
    if options["purge_delay"] is not None:
        config = replace(config, purge_delay=options["purge_delay"])
    if options["conflict"] is not None:
        config = replace(config, conflict=ConflictConfig(ConflictPolicy(options["conflict"])))
    return config


def _wanted(source: str, options: Mapping[str, Any]) -> Source:
    wanted = parse_source(source, all_allowed=True) if source else Source("")
    if wanted.bucket and options["all_buckets"]:
        raise UsageError(f"--all shows all buckets, and SOURCE names {wanted.bucket!r}")
    if options["create"] and not wanted.bucket:
        raise UsageError("--create makes one bucket; in a mount of all, mkdir does")
    return wanted


def _cache(options: Mapping[str, Any]) -> CacheConfig:
    directory: Path = options["cache_dir"] or cache_directory()
    cache = CacheConfig(directory.expanduser().absolute())
    size = options["cache_size"]
    return cache if size is None else replace(cache, max_bytes=size)


def _tree(options: Mapping[str, Any]) -> TreeConfig:
    names = ("uid", "gid", "umask", "file_mode", "dir_mode")
    return TreeConfig(**{name: options[name] for name in names if options[name] is not None})


def shown_source(
    source: str,
    server: ServerConfig,
    embedded: Path | None,
    bucket: str,
    *,
    as_spelled: bool = False,
) -> str:
    """What mount(8) and `natsfs status` show: it leads back to the bucket, or ends in a slash for
    all, without credentials.  A URL stays as it is spelled, and so does a bare bucket in fstab:
    `mount -a` looks for it in /proc/mounts to see what is mounted already."""
    if as_spelled and bucket and "://" not in source:
        return source
    if embedded is not None:
        return f"embedded:{bucket}"
    if bucket and "://" in source and "@" not in source:
        return source
    first, *others = server.urls
    return ",".join([first, *(url.partition("://")[2] for url in others)]) + f"/{bucket}"


def _logging(ctx: click.Context, options: Mapping[str, Any]) -> Logging:
    """What the command line says of the log.  Errors: `UsageError`."""
    named = options["log_target"]
    target = Target(named) if named is not None else None
    file: Path | None = options["log_file"]
    if file is None and target is Target.FILE and options["foreground"]:
        raise UsageError("--log-target=file needs --log-file in the foreground")
    if target is Target.STDERR and not options["foreground"]:
        raise UsageError("--log-target=stderr is for the foreground (-f)")
    return Logging(
        target,
        options["log_format"] == "json",
        file.expanduser().absolute() if file is not None else None,
        verbose=isinstance(ctx.obj, Session) and ctx.obj.verbose,
    )


def supervisor_of(environ: Mapping[str, str], pid: int) -> Supervisor:
    """Who wants to hear of the process *pid*, as sd_notify(3) and sd_watchdog_enabled(3) say it."""
    watched = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
    period = environ.get("WATCHDOG_USEC", "") if watched else ""
    watchdog = int(period) / 1e6 if period.isdecimal() and int(period) else None
    return Supervisor(environ.get("NOTIFY_SOCKET", ""), watchdog)


def _serve_in_front(
    config: MountConfig, hang_up: Callable[[], None], supervisor: Supervisor
) -> None:
    with bars() as stages:

        def ready() -> None:
            stages.end()
            announce(config.source, config.directory)

        _serve(config, ready, hang_up, supervisor, stages.stage("listing"))


def _serve(
    config: MountConfig,
    ready: Callable[[], None],
    hang_up: Callable[[], None],
    supervisor: Supervisor,
    listing: Told,
) -> None:
    # Only here: what this brings in (libfuse, asyncio) is of no use to the process that forks.
    pause_collection()
    from natsfs.mount import serve  # noqa: PLC0415

    resume_collection()
    control = socket_path(control_directory(), config.directory)
    trio.run(
        partial(
            serve,
            config,
            ready=ready,
            control_path=control,
            hang_up=hang_up,
            supervisor=supervisor,
            listing=listing,
        )
    )


def _mount_in_background(config: MountConfig, plan: Logging) -> int:
    output = plan.file or log_file(config.bucket or "all-buckets", config.directory)

    def work(ready: Ready) -> None:
        _serve(config, ready, log_for_mount(plan, output), NOBODY, ready.progress)

    with shown("listing") as progress:
        failure = run_in_background(
            work, log_file=output, describe=partial(describe, mounting=True), progress=progress
        )
    if failure is None:
        announce(config.source, config.directory)
        return 0
    say(failure.text)
    return failure.status
