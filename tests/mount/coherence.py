"""Drives the tests of coherence: changes on one side, and whether the other one is ever stale.

After the changes of a batch were acknowledged, their maker makes a *sentinel*.  As soon as the
other side shows that, it has to show everything before it as well, in whatever way one looks:
nothing is waited for any more.  That is the order in which the bucket holds the changes, and what
programs that signal each other through files rely on.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from .facts import Facts
from .mounting import PACKAGE_ROOT
from .random_changes import Change, RandomChanges, batches, percentiles

#: Where sentinels are made.
SENTINELS = "sentinels"

#: Where changes are made.
WORK = "work"

#: Most files that are kept mapped over a batch.
MAPPED = 3


class Lookout:
    """A `lookout` process on a mount; a context manager."""

    def __init__(self, directory: Path, env: Mapping[str, str], inside: Sequence[str] = ()) -> None:
        self._argv = [*inside, sys.executable, "-m", "tests.mount.lookout", str(directory)]
        self._env = dict(env)
        self._process: subprocess.Popen[str] | None = None

    def prepare(self, facts: Facts, sentinel: str, *, mapped: list[str], known: bool) -> None:
        """Let it look at everything, and wait until it has."""
        question = {"facts": facts, "sentinel": sentinel, "mapped": mapped, "known": known}
        self._say(json.dumps(question))
        assert self._hear() == "ready"

    def go(self) -> None:
        """The sentinel that it does not know of has been made."""
        self._say("")

    def answer(self) -> tuple[float, list[str]]:
        """When the sentinel showed, and what was stale then."""
        found: dict[str, Any] = self._hear()
        return float(found["seen"]), list(found["stale"])

    def _say(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the lookout has died"
        return json.loads(line)

    def __enter__(self) -> Lookout:
        self._process = subprocess.Popen(
            self._argv,
            env=self._env,
            cwd=PACKAGE_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        with self._process:
            if kind is not None:
                self._process.kill()


class Maker(Protocol):
    """Who makes changes; each call returns when the change is acknowledged."""

    def make(self, change: Change) -> None:
        """Make *change* below `WORK`."""

    def show(self, sentinel: str) -> None:
        """Make something with this name."""


class MountMaker:
    """Makes changes by system calls on a mount."""

    def __init__(self, directory: Path, chance: random.Random) -> None:
        self._top = directory
        self._chance = chance
        for name in (SENTINELS, WORK):
            (directory / name).mkdir()

    def make(self, change: Change) -> None:
        """Make *change*."""
        change.make(self._top / WORK)

    def show(self, sentinel: str) -> None:
        """Make something of a random kind with this name."""
        path = self._top / sentinel
        match self._chance.randrange(4):
            case 0:
                path.write_bytes(b"")
            case 1:
                path.mkdir()
            case 2:
                path.symlink_to("nowhere")
            case _:
                path.with_suffix(".tmp").write_bytes(b"x")
                path.with_suffix(".tmp").rename(path)


class Drive:
    """Random changes that a *maker* makes, watched by a lookout on a mount."""

    def __init__(
        self, changes: RandomChanges, maker: Maker, lookout: Lookout, chance: random.Random
    ) -> None:
        self._changes = changes
        self._maker = maker
        self._lookout = lookout
        self._chance = chance

    def facts(self) -> Facts:
        """What is true on the maker now."""
        return {os.path.join(WORK, path): fact for path, fact in self._changes.facts().items()}

    def run(self, more: Callable[[int], bool]) -> dict[str, float]:
        """Make batches of changes while *more*, asked with the number of changes so far, is true;
        fails at the first stale answer.  Returns the distribution of the time from the
        acknowledgement of a sentinel until it shows, in milliseconds."""
        latencies: list[float] = []
        done = 0
        for size in batches(self._chance):
            if not more(done):
                break
            latencies.append(self.round(size))
            done += size
        return percentiles(latencies)

    def round(self, size: int, during: AbstractContextManager[object] | None = None) -> float:
        """One batch of *size* changes, made while *during* lasts; returns how long after it, and
        after its acknowledgement, the sentinel showed, in seconds."""
        chance = self._chance
        files = self._changes.files()
        mapped = chance.sample(files, min(len(files), chance.randrange(MAPPED + 1)))
        batch = self._changes.batch(size)
        sentinel, known = f"{SENTINELS}/{chance.randrange(1 << 40)}", chance.random() < 0.7
        mapped = [os.path.join(WORK, path) for path in mapped]
        self._lookout.prepare(self.facts(), sentinel, mapped=mapped, known=known)
        with during or nullcontext():
            for change in batch:
                self._maker.make(change)
            self._maker.show(sentinel)
        made = time.monotonic()
        if not known:
            self._lookout.go()
        seen, stale = self._lookout.answer()
        story = [*map(str, batch), f"{sentinel} {'known' if known else 'not known'}"]
        assert seen, "\n".join(["the sentinel never showed after", *story])
        assert not stale, "\n".join(["stale after", *story, *stale])
        return max(0.0, seen - made)
