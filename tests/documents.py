"""The documents of natsfs, README.md and the pages of the manual, as far as tests look at them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import click
from manpages.options import root
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent
MANUAL = ROOT / "natsfs" / "manual"

DOCUMENTS = {path.name: path for path in (ROOT / "README.md", *sorted(MANUAL.glob("*.md")))}

_MARKDOWN = MarkdownIt("commonmark").enable("table")

#: How a command line in a document begins, as in a shell.
PROMPT = "$ "


@dataclass(frozen=True)
class Heading:
    """A heading: its level, its words, and what of it is code."""

    level: int
    text: str
    code: tuple[str, ...]


def tokens(path: Path) -> list[Token]:
    """The document as Markdown."""
    return _MARKDOWN.parse(path.read_text())


def command_lines(path: Path) -> list[str]:
    """What is typed in the fenced blocks of the document, from the top to the bottom."""
    return [line.removeprefix(PROMPT) for line in fenced(path) if line.startswith(PROMPT)]


def code(path: Path) -> list[str]:
    """What stands in backticks in the prose of the document."""
    return [piece for token in tokens(path) for piece in _code(token)]


def _code(token: Token) -> list[str]:
    children = token.children or []
    return [" ".join(child.content.split()) for child in children if child.type == "code_inline"]


def fenced(path: Path) -> list[str]:
    """The lines of the fenced blocks of the document, typed or not."""
    blocks = (token.content for token in tokens(path) if token.type == "fence")
    return [line for block in blocks for line in block.splitlines()]


def headings(path: Path) -> list[Heading]:
    """The headings of the document."""
    found = tokens(path)
    return [
        Heading(int(token.tag[1:]), following.content, tuple(_code(following)))
        for token, following in pairwise(found)
        if token.type == "heading_open"
    ]


def rows(path: Path) -> Iterator[list[list[str]]]:
    """The code in each cell of each row of the document's tables, heads included."""
    row: list[list[str]] = []
    inside = False
    for token in tokens(path):
        inside = (inside or token.type == "table_open") and token.type != "table_close"
        if token.type == "inline" and inside:
            row.append(_code(token))
        elif token.type == "tr_close":
            yield row
            row = []


def natsfs_calls(line: str) -> Iterator[list[str]]:
    """The arguments of every call of natsfs in a line of sh."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    commands: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("|&;()<>"):
            commands.append([])
        else:
            commands[-1].append(word)
    yield from (words[1:] for words in commands if words[:1] == ["natsfs"])


def command_of(words: list[str]) -> tuple[click.Context, list[str]]:
    """The natsfs command that *words* call, and what is left of them.  Errors: `KeyError`."""
    ctx, rest = root(), list(words)
    while rest and isinstance(ctx.command, click.Group) and not rest[0].startswith("-"):
        command = ctx.command.get_command(ctx, rest[0])
        if command is None:
            raise KeyError(f"natsfs has no command {' '.join(words)!r}")
        ctx = click.Context(command, info_name=rest.pop(0), parent=ctx)
    return ctx, rest


def flags(ctx: click.Context) -> set[str]:
    """What the options of the command of *ctx* are called, the hidden ones included."""
    params = ctx.command.get_params(ctx)
    return {flag for param in params for flag in (*param.opts, *param.secondary_opts)}


def parse_mount(arguments: list[str]) -> None:
    """Let `natsfs mount` parse its *arguments*, some of which may be missing.

    Errors: `click.UsageError`.
    """
    ctx, _ = command_of(["mount"])
    ctx.resilient_parsing = True
    ctx.command.parse_args(ctx, arguments)
