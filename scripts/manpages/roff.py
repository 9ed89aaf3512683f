"""Markdown as roff with the macros of man(7).

As much of Markdown as the sources use: headings, paragraphs, lists, fenced blocks, code, emphasis,
links, and tables of two columns, which become tagged paragraphs.  What else there is, is refused.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

#: Gives the roff that a comment asks for.
Tables = Callable[[str], str]

#: Characters of a line of the source; long lines are harmless, and nobody can read them.
WIDTH = 78

_MARKDOWN = MarkdownIt("commonmark").enable("table")

#: What roff reads as something else, in any text and in text that is to be typed as it stands.
_ANYWHERE = {"\\": r"\e", "~": r"\(ti", "^": r"\(ha", "`": r"\(ga"}
_TYPED = {**_ANYWHERE, "-": r"\-", "'": r"\(aq", '"': r"\(dq"}

_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*)")


def escaped(text: str, *, typed: bool = False) -> str:
    """*text* so that roff prints it; *typed* where a reader may copy it into a shell."""
    table = _TYPED if typed else _ANYWHERE
    return "".join(table.get(c, c if c.isascii() else f"\\[u{ord(c):04X}]") for c in text)


def bold(text: str) -> str:
    """*text* as something to be typed."""
    return rf"\fB{escaped(text, typed=True)}\fR"


def italic(text: str) -> str:
    """*text* as something to be replaced."""
    return rf"\fI{escaped(text, typed=True)}\fR"


def tagged(tag: str, body: str) -> str:
    """A paragraph of *body*, both roff, with *tag* beside it."""
    return f".TP\n{guarded(tag)}\n{filled(body)}\n"


def filled(text: str) -> str:
    """*text*, which is roff, in lines of the source."""
    lines = textwrap.wrap(
        " ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(map(guarded, lines))


def guarded(line: str) -> str:
    """*line* so that it is text, whatever it begins with."""
    return rf"\&{line}" if line[:1] in (".", "'") else line


def literal(lines: Sequence[str]) -> str:
    """An example, line by line."""
    body = "\n".join(guarded(escaped(line, typed=True)) for line in lines)
    return f".PP\n.RS 4\n.nf\n{body}\n.fi\n.RE\n"


def paragraph(text: str) -> str:
    """A paragraph of Markdown, without blocks in it; options in it are bold without backticks."""
    return inline(_MARKDOWN.parseInline(" ".join(text.split()))[0])


def inline(token: Token) -> str:
    """What stands in one paragraph, heading or cell, as roff."""
    return "".join(map(_piece, token.children or []))


def _piece(token: Token) -> str:
    match token.type:
        case "text":
            return _prose(token.content)
        case "code_inline":
            return bold(token.content)
        case "softbreak":
            return "\n"
        case "strong_open":
            return r"\fB"
        case "em_open":
            return r"\fI"
        case "strong_close" | "em_close":
            return r"\fR"
        case "link_open" | "link_close":
            return ""
    raise ValueError(f"a manual page cannot have {token.type}: {token.content}")


def _prose(text: str) -> str:
    pieces = _OPTION.split(text)
    return "".join(bold(each) if n % 2 else _text(each) for n, each in enumerate(pieces))


def _text(text: str) -> str:
    return escaped(text).replace(" - ", r" \- ")


def blocks(text: str, tables: Tables) -> str:
    """*text*, which is Markdown below a title, as roff; *tables* knows what the comments want."""
    tokens = iter(_MARKDOWN.parse(text))
    return "".join(_block(token, tokens, tables) for token in tokens)


def _block(token: Token, rest: Iterator[Token], tables: Tables) -> str:
    match token.type:
        case "heading_open":
            macro = {"h2": ".SH", "h3": ".SS"}[token.tag]
            title = inline(_until(rest, "heading_close")[0])
            return f"{macro} {title.upper() if macro == '.SH' else title}\n"
        case "paragraph_open":
            return f".PP\n{filled(inline(_until(rest, 'paragraph_close')[0]))}\n"
        case "bullet_list_open":
            return _list(_until(rest, "bullet_list_close"))
        case "fence" | "code_block":
            return literal(token.content.rstrip("\n").split("\n"))
        case "table_open":
            return _table(_until(rest, "table_close"))
        case "html_block":
            return tables(token.content.strip().removeprefix("<!--").removesuffix("-->").strip())
    raise ValueError(f"a manual page cannot have {token.type}: {token.content}")


def _until(rest: Iterator[Token], end: str) -> list[Token]:
    found = []
    for token in rest:
        if token.type == end:
            break
        found.append(token)
    return found


def _list(tokens: Sequence[Token]) -> str:
    items = [inline(token) for token in tokens if token.type == "inline"]
    return "".join(f".IP \\(bu 2\n{filled(item)}\n" for item in items)


def _table(tokens: Sequence[Token]) -> str:
    """Tagged paragraphs: the head of the table says nothing that a reader needs."""
    cells = [inline(token) for token in tokens if token.type == "inline"]
    columns = sum(token.type == "th_open" for token in tokens)
    if columns != 2:
        raise ValueError(f"a manual page cannot have a table of {columns} columns")
    rows = list(zip(cells[2::2], cells[3::2], strict=True))
    return "".join(tagged(tag, body) for tag, body in rows)
