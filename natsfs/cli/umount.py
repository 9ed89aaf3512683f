"""`natsfs umount`: end a mount, living or dead, and wait until its process is gone."""

from __future__ import annotations

import errno
import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import click

from natsfs.cli.commands import Command
from natsfs.cli.mountpoint import Mount, complete_mount, located, mount_at
from natsfs.cli.outcome import SystemFailure
from natsfs.cli.output import printable, say
from natsfs.cli.places import control_directory
from natsfs.cli.progress import Told, shown
from natsfs.cli.quantities import shown_size
from natsfs.control import Client, socket_path
from natsfs.errors import MountFailed, NatsfsError, UsageError

#: Seconds of waiting that need no explanation on the screen.
PATIENCE = 1.0

#: Seconds between two looks at what a mount still has to store.
REFRESH = 0.5

#: Processes that an EBUSY message names: more would not fit into a line that anybody reads.
NAMED_USERS = 5


@click.command(cls=Command)
@click.option("-l", "--lazy", is_flag=True, help="Detach a busy mount; it ends with its last user")
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Do not wait for the server: what it does not have stays in the journal",
)
@click.argument("directory", type=click.Path(path_type=Path), shell_complete=complete_mount)
def umount(directory: Path, lazy: bool, force: bool) -> None:
    """End the mount on DIRECTORY, and wait until everything written is stored.

    A mount whose process has died is cleared away, too.
    """
    mount = _find(directory)
    with ExitStack() as stack:
        client = _connect(mount.directory)
        if client is not None:
            stack.enter_context(client)
        _detach(mount.directory, lazy=lazy)
        if client is not None and force:
            _hurry(client, mount)
        if client is not None and not lazy:
            _await_end(client)


def _find(directory: Path) -> Mount:
    mount = mount_at(located(directory)) or mount_at(Path(os.path.realpath(directory)))
    if mount is None:
        raise UsageError(f"{directory} is no natsfs mount; `natsfs status` lists those there are")
    return mount


def _connect(directory: Path) -> Client | None:
    """The mount's control socket, or None if nobody listens there any more."""
    with suppress(OSError):
        return Client(socket_path(control_directory(), directory))
    return None


# -- the kernel -----------------------------------------------------------------------------------


def _detach(directory: Path, *, lazy: bool) -> None:
    """Unmount *directory*.  Errors: `MountFailed` (busy, or refused), `SystemFailure`."""
    trouble = _run_umount(directory, lazy=lazy)
    if trouble and _is_dead(directory):
        trouble = _run_umount(directory, lazy=True)
    if not trouble:
        return
    if "busy" in trouble:
        raise MountFailed(_busy(directory))
    raise MountFailed(f"cannot unmount {directory}: {trouble}")


def _run_umount(directory: Path, *, lazy: bool) -> str:
    """What umount(8) or fusermount3(1) had to complain about; nothing if it worked."""
    if os.geteuid() == 0:
        # `umount.natsfs` is this program: without --internal-only it would be called for ever.
        command = ["umount", "--internal-only", "--no-canonicalize", *(["--lazy"] if lazy else [])]
    else:
        command = ["fusermount3", "-u", *(["-z"] if lazy else [])]
    try:
        done = subprocess.run(
            [*command, str(directory)],
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise SystemFailure(
            f"{command[0]} is not installed; on Debian it is in the package "
            + ("mount" if command[0] == "umount" else "fuse3")
        ) from None
    if done.returncode == 0:
        return ""
    return done.stderr.strip() or f"{command[0]} ended with status {done.returncode}"


def _is_dead(directory: Path) -> bool:
    try:
        os.stat(directory)
    except OSError as exc:
        return exc.errno == errno.ENOTCONN
    return False


def _busy(directory: Path) -> str:
    users = list(_users(directory))
    named = ", ".join(users[:NAMED_USERS]) or "a process of another user"
    more = f" and {len(users) - NAMED_USERS} more" if len(users) > NAMED_USERS else ""
    return (
        f"{directory} is in use by {named}{more}; end that or leave the directory, or detach it "
        f"now with `natsfs umount --lazy {directory}`"
    )


def _users(directory: Path) -> Iterator[str]:
    """The processes that keep *directory* busy, as far as this user may see."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(_lies_in(link, directory) for link in _holds(process)):
                command = printable((process / "comm").read_text().strip())
                yield f"{command} (process {process.name})"


def _holds(process: Path) -> Iterator[Path]:
    yield process / "cwd"
    yield process / "root"
    yield process / "exe"
    yield from (process / "fd").iterdir()


def _lies_in(link: Path, directory: Path) -> bool:
    """Whether *link*, in /proc, leads into *directory*; found without a step into it."""
    with suppress(OSError):
        return Path(os.readlink(link)).is_relative_to(directory)
    return False


# -- the daemon -----------------------------------------------------------------------------------


def _hurry(client: Client, mount: Mount) -> None:
    """Let the mount end now, and say what that leaves."""
    try:
        left = client.ask("hurry")
    except (NatsfsError, OSError):
        return  # it is gone already
    if left["files"]:
        say(
            f"{left['files']} files, {shown_size(left['bytes'])}, are not stored and stay in the "
            f"journal; the next mount, or `natsfs recover {printable(mount.source)}`, stores them"
        )


def _await_end(client: Client) -> None:
    """Wait until the mount's process has ended: it may have bytes to store and a server to stop."""
    if client.pid == 0:
        return
    try:
        process = os.pidfd_open(client.pid)
    except ProcessLookupError:
        return
    try:
        if not _ended(process, PATIENCE):
            with shown("storing", in_bytes=True) as progress:
                _follow(process, client, progress)
    finally:
        os.close(process)


def _ended(process: int, seconds: float) -> bool:
    return bool(select.select([process], [], [], seconds)[0])


def _follow(process: int, client: Client, progress: Told) -> None:
    """Show how far the mount is until its *process* has ended."""
    most, before = 0, None
    while not _ended(process, REFRESH):
        pending, stored = _left(client)
        before = stored if before is None else before
        most = max(most, pending)
        if most:
            # A file is pending until all of it is stored: what has gone meanwhile says more.
            progress(max(most - pending, min(stored - before, most)), most)


def _left(client: Client) -> tuple[int, int]:
    """How many bytes are pending, and how many were stored since the mount began."""
    try:
        activity = client.ask("activity")
    except (NatsfsError, OSError):
        return 0, 0  # a mount that is nearly gone answers no more
    return activity["status"]["pending"], activity["bytes"]["stored"]
