"""Which names and paths operations are tried with."""

from __future__ import annotations

from tests.model.actions import SLOTS

#: Paths of what there may be, from letters that stand for the names of a `WORLDS` entry.
_TOP = ["a", "b", "c"]
_BELOW = [f"{above}/{name}" for above in _TOP for name in _TOP]
_DEEP = ["a/b/a", "a/b/b", "b/a/a", "a/a/b"]
MANY = [*_TOP, *_BELOW, *_DEEP]

#: So few paths that nearly every operation meets what another one made.
FEW = ["a", "b", "a/a", "a/b", "b/a"]

#: What the letters are: plain names and one that is not UTF-8, whose object is called otherwise;
#: then names that mean something to a shell, to NATS, to those who fold or normalise names, and to
#: natsfs, which quotes them (N2).
WORLDS = [
    ("a", "b", "c\udcff"),
    ("*", "a.>", "$O 'x' \n"),
    ("\u00e9", "e\u0301", "E\u0301"),
    ("\uff0e", "\u201ba", "\u2400\uff0f"),
    ("x" * 255, "-", "\U0001f41a" * 63),
]

#: Odd spellings of paths; "%0/a" is `a` in the directory that slot 0 has open.
ODD_PATHS = ["a/", "a/.", "b/..", "./b", "b//a", "a/../b", ".", "", "x" * 256, "nothing/a"]
BY_SLOT_PATHS = [f"%{slot}/{name}" for slot in range(SLOTS) for name in ("a", "b", ".", "..")]
