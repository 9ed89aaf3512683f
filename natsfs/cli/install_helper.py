"""`natsfs install-helper`: the programs by which mount(8) and umount(8) know natsfs."""

from __future__ import annotations

import os
import site
import sys
from importlib import resources
from pathlib import Path

import click

import natsfs
from natsfs.cli.commands import Command
from natsfs.errors import UsageError

#: The programs and what they run.  libmount looks for `mount.TYPE` and `umount.TYPE`, and
#: /proc/mounts has `fuse.natsfs` for a type; without `mount.fuse.natsfs` it would take mount.fuse,
#: which knows nothing of `natsfs mount`.
HELPERS = {
    "mount.natsfs": "mount_helper",
    "mount.fuse.natsfs": "mount_helper",
    "umount.natsfs": "umount_helper",
    "umount.fuse.natsfs": "umount_helper",
}

#: Where libmount looks for them.
SBIN = Path("/sbin")

#: A first line may have 127 bytes and no blanks; sh can call any path.  To Python, the second line
#: is a string.
_PROGRAM = """\
#!/bin/sh
'''exec' "{python}" -I "$0" "$@"
' '''
# {mark}
import sys

{path}from natsfs.cli import {function}

sys.exit({function}())
"""
_MARK = "Written by natsfs install-helper"


@click.command("install-helper", cls=Command)
@click.option(
    "--prefix",
    type=click.Path(path_type=Path),
    default=SBIN,
    help="The directory for the programs; mount(8) looks in /sbin alone  [/sbin]",
)
@click.option("--uninstall", is_flag=True, help="Remove the programs")
@click.option("--list-examples", is_flag=True, help="Name the example files that natsfs brings")
@click.option("--example", metavar="NAME", help="Print an example: a unit of systemd, an fstab")
def install_helper(prefix: Path, uninstall: bool, list_examples: bool, example: str | None) -> None:
    """Let mount(8) and umount(8) mount and unmount natsfs, and so /etc/fstab and systemd.

    Writes mount.natsfs, mount.fuse.natsfs, umount.natsfs and umount.fuse.natsfs, which run the
    natsfs that writes them.  umount(8) then waits until everything written is stored.
    """
    if list_examples or example is not None:
        click.echo("\n".join(sorted(_examples())) if example is None else _example(example))
        return
    try:
        _change(prefix, uninstall=uninstall)
    except OSError as exc:
        root = "" if os.geteuid() == 0 else "; try again as root"
        raise UsageError(f"{prefix}: {exc.strerror}{root}") from None


def _change(prefix: Path, *, uninstall: bool) -> None:
    programs = {prefix / name: function for name, function in HELPERS.items()}
    for path in programs:
        if path.is_symlink() or (path.exists() and _MARK not in path.read_text(errors="replace")):
            raise UsageError(f"{path} is not from natsfs install-helper and stays; remove it first")
    for path, function in programs.items():
        if uninstall:
            path.unlink(missing_ok=True)
        else:
            _write(path, program(function))


def program(function: str) -> str:
    """The text of a program that calls *function* of `natsfs.cli` with this very Python."""
    root = str(Path(next(iter(natsfs.__path__))).parent)
    # An isolated Python finds what is installed, and nothing that is used from a clone.
    path = "" if root in site.getsitepackages() else f"sys.path.insert(0, {root!r})\n"
    if set(sys.executable) & set("'\"`$\\\n"):
        raise UsageError(f"{sys.executable!r} cannot be called by sh; install natsfs elsewhere")
    return _PROGRAM.format(python=sys.executable, mark=_MARK, path=path, function=function)


def _write(path: Path, text: str) -> None:
    """Put *text* in place whole: mount(8) may look for it at any moment."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_text(text)
        new.chmod(0o755)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _examples() -> dict[str, str]:
    directory = resources.files("natsfs") / "examples"
    return {entry.name: entry.read_text() for entry in directory.iterdir() if entry.is_file()}


def _example(name: str) -> str:
    found = _examples()
    if name not in found:
        raise UsageError(f"there is no example {name!r}; there are {', '.join(sorted(found))}")
    return found[name].rstrip("\n")
