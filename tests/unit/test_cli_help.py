"""`natsfs help`: commands, topics, and how pages are shown."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import click
import pytest
from manpages.options import commands

from natsfs.cli import main
from natsfs.cli.help import TOPICS
from tests.documents import DOCUMENTS, MANUAL, natsfs_calls
from tests.unit.test_documents import check_call


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What natsfs prints, having done what it was asked for."""
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_overview(capsys: pytest.CaptureFixture[str]) -> None:
    """Without anything, the commands and the topics are listed."""
    text = told(capsys, "help")
    for word in ("mount", "umount", "install-helper", *TOPICS):
        assert re.search(rf"^  {word}  +\S", text, re.MULTILINE), word


@pytest.mark.parametrize("words", ["mount", "bucket", "bucket create", "help", "meta set"])
def test_commands(capsys: pytest.CaptureFixture[str], words: str) -> None:
    """The help of a command is what its --help prints."""
    text = told(capsys, "help", *words.split())
    assert text.startswith(f"Usage: natsfs {words} ")
    assert text == told(capsys, *words.split(), "--help")


@pytest.mark.parametrize(
    "words",
    [path.split()[1:] for path, command, _ in commands() if not isinstance(command, click.Group)],
    ids=" ".join,
)
def test_examples(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """The help of every command ends in examples of it that natsfs understands, on 80 columns."""
    _, _, lines = told(capsys, *words, "--help").partition("\nExamples:\n")
    assert max(map(len, lines.splitlines())) <= 80
    calls = [call for line in lines.splitlines() for call in natsfs_calls(line)]
    assert calls
    for call in calls:
        assert call[: len(words)] == words
        check_call(call)


@pytest.mark.parametrize("topic", TOPICS)
def test_topics(capsys: pytest.CaptureFixture[str], topic: str) -> None:
    """A page is printed as it is where nobody looks at it on a terminal."""
    text = told(capsys, "help", topic)
    assert text == (MANUAL / f"{topic}.md").read_text()
    assert text.startswith("# ")


def test_completion() -> None:
    """A shell completes commands and topics."""
    asked = {"COMP_WORDS": "natsfs help se", "COMP_CWORD": "2", "_NATSFS_COMPLETE": "bash_complete"}
    command = [sys.executable, "-c", "from natsfs.cli import main; main([])"]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True)
    assert done.stdout.split() == ["plain,seal", "plain,serve", "plain,semantics"]


def test_every_page_is_a_topic() -> None:
    """No page of the manual is forgotten."""
    pages = {name.removesuffix(".md") for name in DOCUMENTS} - {"README"}
    assert {name for name in pages if name.isalpha()} == set(TOPICS)


@pytest.mark.parametrize("words", [["nothing"], ["bucket", "nothing"], ["semantics", "more"]])
def test_unknown(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """What is not there is said in one line."""
    assert main(["help", *words]) == 1
    out, err = capsys.readouterr()
    line = f"natsfs: no command or topic {' '.join(words)!r}; `natsfs help` lists them\n"
    assert (out, err) == ("", line)


@pytest.mark.parametrize("columns", [80, 120])
def test_terminal(columns: int) -> None:
    """On a terminal a page goes through the pager, with escapes, in lines that fit on it."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "PAGER": "cat", "COLUMNS": str(columns), "TERM": "xterm"}
    command = [sys.executable, "-m", "natsfs", "help", "semantics"]
    with subprocess.Popen(command, stdout=theirs, stdin=theirs, env=environment) as process:
        os.close(theirs)
        text = b"".join(iter(lambda: read(ours), b"")).decode()
        assert process.wait() == 0
    os.close(ours)
    assert "\x1b[1m" in text
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert max(map(len, lines)) <= min(columns, 100)
    assert "**" not in text
    assert re.search(r"^ • A4 ", "\n".join(lines), re.MULTILINE)


def read(terminal: int) -> bytes:
    """What comes next; nothing after the last writer has gone, which Linux calls an error."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""
