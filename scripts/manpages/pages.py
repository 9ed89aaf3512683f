"""The pages: each a source in natsfs/manual, and the tables that it asks for."""

from __future__ import annotations

import re
from pathlib import Path

from manpages import options
from manpages.roff import blocks, escaped
from natsfs import __version__

MANUAL = Path(__file__).parent.parent.parent / "natsfs" / "manual"

#: What the comments of the sources stand for.
_TABLES = {
    "synopses": options.synopses,
    "commands": options.command_sections,
    "connection options": options.shared_options,
    "mount options": options.mount_options,
    "kernel words": options.kernel_words,
    "other words": options.other_words,
}

#: By this `natsfs install-helper` knows a page for one of its own.
_NOTE = '.\\" Written by scripts/man'

#: A section begins with a paragraph anyway.
_SUPERFLUOUS = re.compile(r"^(\.S[HS] .*\n)\.PP\n", re.MULTILINE)

#: Pages that are others under another name.
_SAME = {"umount.natsfs.8": "mount.natsfs.8"}


def pages() -> dict[str, str]:
    """The text of every page by the name of its file."""
    found = {source.stem: page(source) for source in sorted(MANUAL.glob("*.[0-9].md"))}
    same = {name: f".so man{other[-1]}/{other}\n{_NOTE}\n" for name, other in _SAME.items()}
    return {**found, **same}


def page(source: Path) -> str:
    """The page whose text is in *source*: `NAME.SECTION.md`, which begins with a title."""
    name, _, section = source.stem.rpartition(".")
    title, _, text = source.read_text().partition("\n")
    manual = title.removeprefix("# ").partition(": ")[2]
    head = f'.TH "{escaped(name.upper())}" "{section}" "" "natsfs {__version__}" "{manual}"\n'
    note = f"{_NOTE} from {source.name} and the commands: change those.\n"
    body = _SUPERFLUOUS.sub(r"\1", blocks(text, _table))
    # No hyphens in words that are to be typed, lines as long as they come, and one blank behind a
    # sentence wherever its line ends in the source.
    return f"{note}{head}.nh\n.ad l\n.ss 12 0\n{body}"


def _table(name: str) -> str:
    return _TABLES[name]()
