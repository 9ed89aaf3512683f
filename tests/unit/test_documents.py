"""The documents and the program say the same: commands, options, messages, ids, links."""

from __future__ import annotations

import errno
import os
import re
from collections import Counter
from pathlib import Path

import click
import pytest
from manpages.options import commands

from natsfs.cli.argv import mount_arguments
from natsfs.cli.commands import MountCommand
from tests import sources
from tests.documents import (
    DOCUMENTS,
    MANUAL,
    ROOT,
    code,
    command_lines,
    command_of,
    fenced,
    flags,
    headings,
    natsfs_calls,
    parse_mount,
    rows,
    tokens,
)

SEMANTICS = MANUAL / "semantics.md"
TROUBLESHOOTING = MANUAL / "troubleshooting.md"
MIGRATION = MANUAL / "migration.md"

#: Options of other programs that the documents name in prose, by program.
FOREIGN = {
    "--device": "docker",
    "--vfs-cache-mode": "rclone",
    "--size-only": "rsync",
    "--include": "rclone",
    "--bwlimit": "rclone",
    "--no-modtime": "rclone",
    "--only-dir": "gcsfuse",
    "--name": "nats",
}

#: Messages that others print, with whom.
OTHERS_SAY = {
    "option allow_other only allowed if 'user_allow_other' is set": "fusermount3",
    "unknown filesystem type 'natsfs'": "mount(8)",
    "target is busy": "umount(8)",
}

#: The program's own words in troubleshooting.md that are no messages.
LITERAL = re.compile(r"[．／‛␀]")


def lines() -> list[tuple[str, str]]:
    return [(name, line) for name, path in DOCUMENTS.items() for line in command_lines(path)]


@pytest.mark.parametrize(("name", "line"), lines())
def test_command_lines(name: str, line: str) -> None:
    """Every call of natsfs in a fenced block is one that natsfs understands."""
    for call in natsfs_calls(line):
        check_call(call)


def check_call(words: list[str]) -> None:
    """Parse the arguments; files that they name need not be there."""
    ctx, rest = command_of(words)
    command = ctx.command
    if isinstance(command, MountCommand):
        parse_mount(list(rest))
    rest = ["--embedded=" if word == "--embedded" else word for word in rest]
    given, arguments, _ = command.make_parser(ctx).parse_args(rest)
    assert not arguments
    for param in command.params:
        value = given.get(str(param.name))
        if isinstance(value, str | tuple | list) and not isinstance(param.type, click.Path):
            param.type_cast_value(ctx, value)
        assert not param.required or given.get(str(param.name)), f"{words} lacks {param.name}"


def spans() -> list[tuple[str, str]]:
    found = [(name, each) for name, path in DOCUMENTS.items() for each in code(path)]
    return sorted(set(found))


@pytest.mark.parametrize(("name", "span"), [pair for pair in spans() if "natsfs " in pair[1]])
def test_commands_in_prose(name: str, span: str) -> None:
    """Every command that the prose names exists, with the options that stand behind it."""
    called = re.match(r"(?:-f )?natsfs ([a-z|-]+(?: [a-z|-]+)?)", span)
    if called is None or span in quoted():
        return
    words = called[1].split()
    ctx, _ = command_of(words[:1])
    if isinstance(ctx.command, click.Group) and len(words) == 2:
        ctx, _ = command_of(words)
    known = flags(ctx)
    used = {word.partition("=")[0] for word in re.findall(r"(?<= )--?[a-z][a-z-]*", span)}
    assert used - known == set(), f"{ctx.command_path} does not have these"


def test_options_in_prose() -> None:
    """Every option that stands alone in the prose is one of natsfs's, or known to be another's."""
    named = {
        re.split(r"[ =]", span)[0]
        for name, span in spans()
        if span.startswith("--") and (name != MIGRATION.name or span in migration_cells())
    }
    assert named - every_flag() == set(FOREIGN)


def every_flag() -> set[str]:
    return {flag for _, _, ctx in commands() for flag in flags(ctx)}


def migration_cells() -> set[str]:
    """The code in the column that is about natsfs, and in the prose."""
    found = list(rows(MIGRATION))
    everywhere = Counter(code(MIGRATION))
    in_tables = Counter(each for row in found for cell in row for each in cell)
    prose = {each for each, count in everywhere.items() if count > in_tables[each]}
    return {each for row in found for each in row[1]} | prose


def test_migration() -> None:
    """The tables name options of natsfs in their second column, and say something in each row."""
    found = list(rows(MIGRATION))
    assert len(found) >= 60
    options = {each for row in found for each in row[1] if each.startswith("-")}
    assert len(options) >= 20
    unknown = {
        word
        for each in options
        for word in re.findall(r"(?:^| )(--[a-z-]+)", each)
        if word not in every_flag()
    }
    assert unknown == set()


def test_mount_words_in_prose() -> None:
    """What the documents put behind -o are mount options."""
    for name, span in spans():
        found = re.fullmatch(r"-o ([a-z_]+(?:=[^,]*)?(?:,[a-z_]+(?:=[^,]*)?)*)", span)
        if found is None or (name == MIGRATION.name and span not in migration_cells()):
            continue
        parse_mount(["-o", found[1]])


# -- semantics.md ---------------------------------------------------------------------------------


def cited() -> set[str]:
    """The ids that tests begin their docstrings with."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for ids in re.findall(r'"""((?:[A-Z]\d?)(?:, [A-Z]\d?)*): ', path.read_text()):
            found |= set(ids.split(", "))
    return found


def test_ids() -> None:
    """Each promise has one id, and tests that cite it; no test cites what is no promise."""
    told = re.findall(r"^- \*\*([A-Z]\d?)\*\* ", SEMANTICS.read_text(), re.MULTILINE)
    assert len(told) == len(set(told))
    assert len(told) == 46
    assert set(told) - cited() == set()
    assert cited() - set(told) - {"S", "D"} == set()


# -- troubleshooting.md ---------------------------------------------------------------------------


def quoted() -> list[str]:
    """The messages that the page has as headings."""
    return [each for heading in headings(TROUBLESHOOTING)[1:] for each in heading.code]


@pytest.mark.parametrize("message", [m for m in quoted() if not LITERAL.fullmatch(m)])
def test_messages(message: str) -> None:
    """What the page quotes is what natsfs, the system or a program that is named there says."""
    if message in {os.strerror(number) for number in errno.errorcode} | {*OTHERS_SAY, "ls"}:
        return
    assert any(sources.says(text, message) for text in sources.texts())


#: Lines that say no more than an error that is told of in its own place.
BARE = {"…", "…: …", "NOTIFY_SOCKET: …"}


@pytest.mark.parametrize("line", sorted({*sources.warnings()} - BARE))
def test_every_warning_is_explained(line: str) -> None:
    """Every warning and error that natsfs can log has its place in troubleshooting.md."""
    assert any(sources.covers(message, line) for message in quoted()), (
        "say in natsfs/manual/troubleshooting.md, in a heading, what this line means and what to do"
    )


def test_errnos() -> None:
    """The headings of errnos have their names and their words."""
    texts = [heading.text for heading in headings(TROUBLESHOOTING)]
    pairs = [pair for text in texts for pair in re.findall(r"`([^`]+)` \((E[A-Z]+)\)", text)]
    assert [text for text, name in pairs if text != os.strerror(getattr(errno, name))] == []
    wanted = {"EIO", "ESTALE", "EACCES", "ENOSPC", "EDQUOT", "EROFS", "EFBIG", "ENODEV"}
    assert wanted <= {name for _, name in pairs}


# -- links ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links(name: str) -> None:
    """What a document links to is there, and what it calls a script can be run."""
    path = DOCUMENTS[name]
    for token in tokens(path):
        for child in token.children or []:
            target = str(child.attrs.get("href", ""))
            if child.type == "link_open" and "://" not in target:
                assert (path.parent / target).exists(), target
    for script in re.findall(r"scripts/[a-z]+\b(?!/)", path.read_text()):
        assert Path(ROOT / script).is_dir() or os.access(ROOT / script, os.X_OK), script


def test_readme_is_short() -> None:
    """The README is read in five minutes, and links to the rest."""
    text = (ROOT / "README.md").read_text()
    words = re.sub(r"## How fast.*?(?=^## )", "", text, flags=re.DOTALL | re.MULTILINE)
    assert len(words.split()) < 1300
    linked = {Path(link).name for link in re.findall(r"\]\(([^)]+)\)", words)}
    assert {page.name for page in MANUAL.glob("*.md") if page.stem.isalpha()} <= linked


FSTAB = re.compile(r"(nats://\S+) +(/\S+) +natsfs +(\S+) +0 +0")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_lines_of_fstab(name: str) -> None:
    """mount(8) gets along with what the documents say for fstab(5)."""
    for line in fenced(DOCUMENTS[name]):
        if line.startswith("nats://"):
            found = FSTAB.fullmatch(line)
            assert found is not None, line
            parse_mount(mount_arguments([found[1], found[2], "-o", f"rw,{found[3]}"]))
