"""`natsfs install-helper`: the programs by which mount(8) and umount(8) know natsfs, and the pages
by which man(1) does."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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

#: Where man(1) looks for what an administrator installs.
MAN = Path("/usr/local/share/man")

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

#: Modes, whatever the umask.
_PROGRAM_MODE = 0o755
_PAGE = 0o644

#: What stands in a file that may be replaced or removed.
_OURS = (_MARK, "Written by scripts/man")


@click.command("install-helper", cls=Command)
@click.option(
    "--prefix",
    type=click.Path(path_type=Path),
    default=SBIN,
    metavar="DIR",
    help="The directory for the programs; mount(8) looks in /sbin alone  [/sbin]",
)
@click.option(
    "--man-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help=f"The directory for the manual pages  [{MAN}; with another --prefix: none]",
)
@click.option("--uninstall", is_flag=True, help="Remove the programs and the pages")
@click.option("--list-examples", is_flag=True, help="Name the example files that natsfs brings")
@click.option("--example", metavar="NAME", help="Print an example: a unit of systemd, an fstab")
def install_helper(
    prefix: Path, man_dir: Path | None, uninstall: bool, list_examples: bool, example: str | None
) -> None:
    """Let mount(8) and umount(8) mount and unmount natsfs, and so /etc/fstab and systemd.

    Writes mount.natsfs, mount.fuse.natsfs, umount.natsfs and umount.fuse.natsfs, which run the
    natsfs that writes them, and the manual pages.  umount(8) then waits until everything written is
    stored.
    """
    if list_examples or example is not None:
        click.echo("\n".join(sorted(_examples())) if example is None else _example(example))
        return
    if man_dir is None and prefix == SBIN:
        man_dir = MAN
    _change([*_programs(prefix), *_pages(man_dir)], uninstall=uninstall)


def _programs(prefix: Path) -> Iterator[tuple[Path, str, int]]:
    """Path, text and mode of each program."""
    for name, function in HELPERS.items():
        yield prefix / name, program(function), _PROGRAM_MODE


def _pages(man_dir: Path | None) -> Iterator[tuple[Path, str, int]]:
    """The same of each manual page."""
    if man_dir is None:
        return
    for entry in (resources.files("natsfs") / "manual").iterdir():
        section = entry.name.rpartition(".")[2]
        if section.isdigit():
            yield man_dir / f"man{section}" / entry.name, entry.read_text(), _PAGE


def _change(files: list[tuple[Path, str, int]], *, uninstall: bool) -> None:
    for path, _, _ in files:
        with _naming(path.parent):
            ours = not path.is_symlink() and (not path.exists() or _is_ours(path))
        if not ours:
            raise UsageError(f"{path} is not from natsfs install-helper and stays; remove it first")
    for path, text, mode in files:
        with _naming(path.parent):
            if uninstall:
                path.unlink(missing_ok=True)
            else:
                _make_directory(path.parent, wanted=mode == _PAGE)
                _write(path, text, mode)


@contextmanager
def _naming(directory: Path) -> Iterator[None]:
    """Say what cannot be done in *directory*.  Errors: `UsageError`."""
    try:
        yield
    except OSError as exc:
        root = "" if os.geteuid() == 0 else "; try again as root"
        raise UsageError(f"{directory}: {exc.strerror}{root}") from None


def _make_directory(directory: Path, *, wanted: bool) -> None:
    """Make *directory* for everybody if it is *wanted*; one for programs has to be there."""
    if wanted and not directory.exists():
        _make_directory(directory.parent, wanted=True)
        directory.mkdir()
        directory.chmod(0o755)


def _is_ours(path: Path) -> bool:
    text = path.read_text(errors="replace")
    return any(mark in text for mark in _OURS)


def program(function: str) -> str:
    """The text of a program that calls *function* of `natsfs.cli` with this very Python."""
    root = str(Path(next(iter(natsfs.__path__))).parent)
    # An isolated Python finds what is installed, and nothing that is used from a clone.
    path = "" if root in site.getsitepackages() else f"sys.path.insert(0, {root!r})\n"
    if set(sys.executable) & set("'\"`$\\\n"):
        raise UsageError(f"{sys.executable!r} cannot be called by sh; install natsfs elsewhere")
    return _PROGRAM.format(python=sys.executable, mark=_MARK, path=path, function=function)


def _write(path: Path, text: str, mode: int) -> None:
    """Put *text* in place whole: mount(8) may look for it at any moment."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.write_text(text, encoding="utf-8")
        new.chmod(mode)
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
