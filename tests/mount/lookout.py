"""A program that looks at a mount the moment a sentinel shows, and says what is stale.

    python -m tests.mount.lookout DIRECTORY

One JSON object a line comes in on standard input, for each a line "ready" and one with the answer
go out.  A question has facts by path, a sentinel, and which files to map.  The program first looks
at everything that the facts are about, so that the kernel has the old answers in its caches, and
says that it is ready.  Then it looks for the sentinel and for nothing else.  Whatever was
acknowledged before the sentinel was made has to be right from then on: each fact is looked at
once, and what differs is reported.

It is a process of its own, because a second thread of the test would be late by whatever the first
one holds the interpreter for.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from tests.mount.facts import Facts, look

#: Seconds until a sentinel has to show, beyond every pause that a test makes.
PATIENCE = 60.0

#: Seconds between two looks for the sentinel: short against the latencies measured, long enough
#: for a daemon that shares two cores with the test.
PAUSE = 0.0005


class Mapped:
    """A file mapped before the change: it shows the version it was opened with, whole (R1)."""

    def __init__(self, path: Path) -> None:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._map = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        self._path = path
        self._before = bytes(self._map)

    def complaints(self) -> list[str]:
        """Closes the mapping and says whether it has changed."""
        now = bytes(self._map)
        self._map.close()
        return [] if now == self._before else [f"the mapping of {self._path} has changed"]


def answer(top: Path, question: dict[str, Any]) -> dict[str, Any]:
    """Wait for the sentinel and compare."""
    facts: Facts = question["facts"]
    for path in facts:
        look(top, path)
    mapped = [Mapped(top / path) for path in question["mapped"]]
    sentinel = top / question["sentinel"]
    if question["known"]:
        # The kernel caches that there is none, and has to be told that there is.
        os.path.lexists(sentinel)
    print(json.dumps("ready"), flush=True)
    if not question["known"]:
        # Nobody asks for the name until it has been made: the answer comes from the daemon.
        sys.stdin.readline()
    seen = _poll(sentinel)
    order = list(facts)
    random.Random(question["sentinel"]).shuffle(order)
    found = {path: look(top, path) for path in order}
    wrong = [path for path in order if found[path] != facts[path]]
    stale = [f"{path!r} is {found[path]}\n    and not {facts[path]}" for path in wrong]
    for mapping in mapped:
        stale += mapping.complaints()
    return {"seen": seen, "stale": stale}


def _poll(sentinel: Path) -> float:
    """When the sentinel showed, on the clock that all processes share; 0 if it never did."""
    deadline = time.monotonic() + PATIENCE
    while not os.path.lexists(sentinel):
        if time.monotonic() > deadline:
            return 0.0
        time.sleep(PAUSE)
    return time.monotonic()


def main() -> None:
    """Answer until standard input ends."""
    top = Path(sys.argv[1])
    while line := sys.stdin.readline():
        print(json.dumps(answer(top, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
