"""What natsfs says: the texts in its sources, with … for what is put in when they are printed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.documents import ROOT

#: What stands for something that is known only when a text is printed.
GAP = "…"

_PERCENT = re.compile(r"%(?:\.\d+)?[a-z]")

#: Methods of a logger that may tell of trouble, and where their text is among the arguments.
_TROUBLE = {"warning": 0, "error": 0, "critical": 0, "exception": 0, "log": 1}


@cache
def trees() -> dict[Path, ast.Module]:
    """The syntax tree of every source file."""
    return {path: ast.parse(path.read_text()) for path in sorted((ROOT / "natsfs").rglob("*.py"))}


@cache
def texts() -> frozenset[str]:
    """Every text in the sources that could be a message, as `text_of` has it."""
    found = {text_of(node) for tree in trees().values() for node in ast.walk(tree)}
    return frozenset(text for text in found if " " in text)


def text_of(node: ast.AST) -> str:
    """The text that *node* stands for; empty if it is none."""
    match node:
        case ast.Constant(value=str(text)):
            return " ".join(_PERCENT.sub(GAP, text).split())
        case ast.JoinedStr(values=values):
            pieces = (v.value if isinstance(v, ast.Constant) else GAP for v in values)
            return " ".join("".join(map(str, pieces)).split())
    return ""


def warnings() -> Iterator[str]:
    """The text of every line of trouble that natsfs can log, in the order of the sources."""
    for tree in trees().values():
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=method), args=args):
                    if method in _TROUBLE:
                        yield text_of(args[_TROUBLE[method]])


def covers(quoted: str, text: str) -> bool:
    """Whether *quoted* is enough of *text* to be about it and not about others."""
    said, told = (re.sub(rf"\W|{GAP}", "", each) for each in (quoted, text))
    return says(text, quoted) and len(said) >= 0.25 * len(told)


def says(text: str, quoted: str) -> bool:
    """Whether *quoted*, with gaps, is a part of *text*: its pieces stand there in that order."""
    pieces = [piece.strip() for piece in quoted.split(GAP) if piece.strip(" :;,.()")]
    pattern = ".*".join(map(re.escape, pieces))
    return bool(pieces) and re.search(pattern, text) is not None
