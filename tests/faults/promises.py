"""What was promised of files while programs wrote and things died, and whether it was kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path


def digest_of(body: bytes | None) -> str | None:
    """What a promise says of a content; None for no file."""
    return None if body is None else hashlib.sha256(body).hexdigest()


class Promises:
    """What files are, and what they may be because a call was under way."""

    def __init__(self) -> None:
        self.must: dict[str, str | None] = {}
        self.may: dict[str, set[str | None]] = {}
        self.said: list[str] = []
        #: Whether nobody can promise anything any more.
        self.over = False

    def hear(self, manifest: Path) -> None:
        """Everything in *manifest*, in its order."""
        for line in manifest.read_text().splitlines():
            said = json.loads(line)
            self.said.append(line)
            self._take(said.get("may", {}), said.get("must", {}))

    def say(self, word: str, files: Mapping[str, bytes | None]) -> None:
        """These files "may" become this together from now on, or "must" be this."""
        said = {name: digest_of(body) for name, body in files.items()}
        self.said.append(json.dumps({word: said}))
        self._take(*((said, {}) if word == "may" else ({}, said)))

    def end(self) -> None:
        """Who promises is dead: what is said from now on is not heard, until `settle`."""
        self.over = True

    def _take(self, may: Mapping[str, str | None], must: Mapping[str, str | None]) -> None:
        if self.over:
            return
        for name, digest in may.items():
            self.may.setdefault(name, set()).add(digest)
        for name, digest in must.items():
            self.must[name] = digest
            self.may[name] = set()

    def allowed(self, name: str) -> set[str | None]:
        """What *name* may be now."""
        return {self.must.get(name), *self.may.get(name, ())}

    def may_move(self, old: str, new: str) -> frozenset[str | None]:
        """A rename begins; gives what *old* may be."""
        self.said.append(json.dumps({"may": {old: f"-> {new}"}}))
        moving = frozenset(self.allowed(old))
        if self.over:
            return moving
        self.may.setdefault(new, set()).update(moving - {None})
        self.may.setdefault(old, set()).add(None)
        return moving

    def must_move(self, old: str, new: str, moving: frozenset[str | None]) -> None:
        """It was acknowledged.  If *old* may have been nothing, *new* may be what it was."""
        self.said.append(json.dumps({"must": {old: f"-> {new}"}}))
        if self.over:
            return
        if None not in moving:
            self.must[new], self.may[new] = next(iter(moving)), set(moving)
        self.must[old], self.may[old] = None, set()

    def broken(
        self,
        found: Mapping[str, str],
        spared: Callable[[str, str | None], bool] = lambda name, digest: False,
    ) -> list[str]:
        """Which of them *found*, the digests of what the bucket holds, breaks.  *spared* says which
        may be broken."""
        wrong = []
        for name in {*self.must, *self.may, *found}:
            allowed = self.allowed(name)
            if found.get(name) not in allowed and not spared(name, found.get(name)):
                wrong.append(f"{name} is {found.get(name)} and not one of {allowed}")
                wrong += [line for line in self.said if f'"{name}"' in line]
        return wrong

    def settle(self, found: Mapping[str, str]) -> None:
        """The next round begins with *found*."""
        self.must, self.may, self.said, self.over = dict(found), {}, [], False
