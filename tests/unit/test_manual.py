"""The manual pages: they are what scripts/man writes, and nothing is missing in them."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from manpages.options import commands, common, root, shared, visible
from manpages.pages import MANUAL, pages

from natsfs.cli.commands import MountCommand
from natsfs.cli.install_helper import HELPERS
from tests.documents import ROOT

#: Options with a value that are used only when they are given, and so have no default to tell.
WITHOUT_DEFAULT = {
    "--domain",
    "natsfs meta set --description",
    "natsfs meta set --revision",
    "natsfs recover --into",
    "natsfs install-helper --example",
}

needs_man = pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")


def plain(page: str) -> str:
    """The text of a page without the roff in it."""
    text = re.sub(r"\\f[BIR]", "", (MANUAL / page).read_text())
    return text.replace(r"\-", "-").replace(r"\(aq", "'").replace(r"\(dq", '"')


def section(page: str, title: str) -> str:
    """What stands below the heading *title* in a page, up to the next one."""
    found = re.search(
        rf"^\.S[HS] {re.escape(title)}\n(.*?)(?=^\.S[HS] |\Z)", plain(page), re.M | re.S
    )
    assert found is not None, f"{page} has no section {title!r}; run scripts/man"
    return found[1]


def tags(text: str) -> set[str]:
    """What the tagged paragraphs of a section are about, each flag or name for itself."""
    lines = re.findall(r"^\.TP\n(.*)$", text, re.MULTILINE)
    return {re.split(r"[ =\[]", each)[0] for line in lines for each in line.split(", ")}


@pytest.mark.parametrize("name", pages())
def test_pages_are_fresh(name: str) -> None:
    """The page in the repository is the one that its source and the commands make."""
    assert (MANUAL / name).read_text() == pages()[name], "run scripts/man"


@pytest.mark.parametrize("path", [path for path, _, _ in commands()])
def test_commands(path: str) -> None:
    """Every command has a section, with every option that its --help shows."""
    (command,) = (command for name, command, _ in commands() if name == path)
    text = section("natsfs.1", path)
    wanted = {flag for one in visible(command) if one.name not in common() for flag in one.opts}
    assert tags(text) == wanted
    assert isinstance(command, click.Group) or path in section("natsfs.1", "SYNOPSIS")


def test_connection_options() -> None:
    """The options that all commands with a server have stand in a section of their own."""
    wanted = {flag for one in shared() for flag in one.opts}
    assert len(wanted) >= 11
    assert wanted | {"-v", "--verbose"} == tags(section("natsfs.1", "CONNECTION OPTIONS"))


def test_mount_options() -> None:
    """Every long option of `natsfs mount` is in mount.natsfs(8) by its name with `_`."""
    (mount,) = (one for path, one, _ in commands() if path == "natsfs mount")
    assert isinstance(mount, MountCommand)
    found = tags(section("mount.natsfs.8", "MOUNT OPTIONS"))
    assert found - {"ro", "nonempty"} == set(mount.long_options())
    assert {"ro", "nonempty", "cache_size", "allow_other"} <= found


def valued() -> Iterator[tuple[str, click.Option]]:
    for path, command, _ in commands():
        for one in visible(command):
            if not one.is_flag and not one.multiple:
                own = one.name not in common()
                yield f"{path} {one.opts[-1]}" if own else one.opts[-1], one


def test_defaults() -> None:
    """Every option with a value says in brackets what is used without it."""
    silent = {name for name, one in valued() if not re.search(r"  \[.+\]$", one.help or "")}
    assert silent - WITHOUT_DEFAULT == set()


def test_units() -> None:
    """Every option with a value says what kind of value: a path, a unit, what number."""
    vague = ("TEXT", "INTEGER", "INTEGER RANGE", "FLOAT")
    ctx = root()
    found = {name for name, one in valued() if one.make_metavar(ctx) in vague}
    assert found == {"natsfs bucket create --description", "natsfs meta set --description"}


def test_environment() -> None:
    """Every variable that the sources name is in the page."""
    names = {
        node.value
        for source in (ROOT / "natsfs").rglob("*.py")
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"NATS_[A-Z_]+|NOTIFY_SOCKET|WATCHDOG_USEC", node.value)
    }
    assert "NATS_URL" in names
    assert {name for name in names if name not in plain("natsfs.1")} == set()


def test_statuses_and_signals() -> None:
    """The pages have the exit statuses of mount(8), and every signal that a mount takes."""
    statuses = tags(section("mount.natsfs.8", "EXIT STATUS"))
    assert statuses == {"0", "1", "2", "32", "64"}
    assert tags(section("natsfs.1", "EXIT STATUS")) >= {"0", "1", "2", "4", "32", "130", "141"}
    source = (ROOT / "natsfs" / "mount" / "signals.py").read_text()
    taken = set(re.findall(r"signal\.(SIG[A-Z0-9]+)", source))
    assert taken
    assert taken <= tags(section("natsfs.1", "SIGNALS"))


def test_helpers_are_named() -> None:
    """The programs of `natsfs install-helper` stand among the files."""
    files = section("mount.natsfs.8", "FILES")
    assert [name for name in HELPERS if f"/sbin/{name}" not in files] == []


@needs_man
@pytest.mark.parametrize("name", ["natsfs.1", "mount.natsfs.8"])
def test_typesetting(name: str) -> None:
    """groff has nothing to complain about, and no line is longer than 80 columns."""
    done = subprocess.run(
        ["groff", "-ww", "-man", "-Tutf8", "-P-c", str(MANUAL / name)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    lines = re.sub(r".\x08", "", done.stdout).splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert "natsfs" in lines[0].lower()


def test_pages_are_packaged() -> None:
    """Every page is in the wheel, as part of natsfs and where man(1) looks."""
    config = (ROOT / "setup.cfg").read_text()
    for name in pages():
        place = re.search(rf"^share/man/man{name[-1]} =\n((?:    .*\n)+)", config, re.MULTILINE)
        assert place is not None
        assert f"natsfs/manual/{name}" in place[1].split()
    assert "manual/*.[0-9]" in config.split()
    assert Path(MANUAL / "semantics.md").exists()
    assert "manual/*.md" in config.split()
