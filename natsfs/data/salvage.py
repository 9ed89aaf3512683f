"""What a dead process left in its journal: the files that were not saved, as far as they are whole.

Everything here may block for as long as the disk does.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from natsfs.data.coverage import Coverage, Held
from natsfs.data.journal import Journal
from natsfs.data.records import (
    CHANGES,
    HEAD_BYTES,
    Kind,
    Record,
    State,
    altered,
    first_sequence,
    parse_live,
    parse_state,
    records,
)
from natsfs.data.runs import (
    DeadRun,
    all_runs,
    bucket_directories,
    bucket_directory,
    dead_runs,
    done_in,
)
from natsfs.data.spool import Spool
from natsfs.errors import CacheError

log = logging.getLogger(__name__)

#: Why a file is left alone that is whole, as far as it goes.
UNFINISHED = "was still being written"


@dataclass(frozen=True, slots=True)
class _Change:
    """A record that changed the content, and the segment that has its body."""

    record: Record
    segment: Path

    def body(self) -> bytes:
        with self.segment.open("rb") as stream:
            stream.seek(self.record.position)
            return stream.read(self.record.length)


@dataclass(slots=True)
class Salvaged:
    """A file that was not saved.

    *changes* are what was done to the content of *state* since.  *trouble* says why it cannot be
    stored as it is; nothing if it can.  *time_ns* is when it was changed last.
    """

    run: DeadRun
    state: State
    trouble: str
    time_ns: int
    changes: list[_Change] = field(repr=False)
    coverage: Coverage = field(repr=False)

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return self.coverage.size

    @property
    def finished(self) -> bool:
        """Whether its program was done with it, and it can be stored as it is."""
        return self.state.closed and not self.trouble

    @property
    def is_self_contained(self) -> bool:
        """Whether the journal has all of it, and no bucket is needed."""
        return all(isinstance(piece, Held) for piece in self.coverage.pieces(0, self.size))

    @property
    def nuids(self) -> tuple[str, ...]:
        """Versions that it may have become, as it is."""
        return self.state.nuids

    @property
    def own(self) -> frozenset[str]:
        """These, and those that it was before or that have a part of its bytes."""
        return frozenset((*self.state.own, *self.state.nuids))

    def content(self, journal: Journal) -> Spool:
        """The content, in a spool of *journal*, over `State.below`.

        Errors: those of `Spool`; `OSError` (the disk)."""
        if self.state.spool:
            return journal.adopted(self.run.directory / self.state.spool, self.coverage)
        spool = journal.spool(max(self.state.base_size, self.state.sent))
        try:
            self._replay(spool)
        except BaseException:
            spool.close()
            raise
        return spool

    def _replay(self, spool: Spool) -> None:
        spool.truncate(max(self.state.size, self.state.sent))
        for change in self.changes:
            record = change.record
            if record.kind is Kind.CUT:
                spool.truncate(record.offset)
            else:
                skip = max(self.state.sent - record.offset, 0)
                spool.write(record.offset + skip, change.body()[skip:])

    def drop(self) -> None:
        """It was taken over, or nobody wants it.

        Errors: `OSError`, with which it is found again."""
        self.run.note_done(self.state.identity)


class _Reading:
    """The records of a run, in their order, and what they come to."""

    def __init__(self) -> None:
        self._states: dict[int, State] = {}
        #: How many changes there were when the state was told.
        self._told: dict[int, int] = {}
        self._changes: dict[int, list[_Change]] = {}
        self._counts: dict[int, int] = {}
        self._times: dict[int, int] = {}
        self._live: tuple[int, set[int]] = (0, set())
        self._ended: set[int] = set()

    def take(self, segment: Path, content: memoryview) -> None:
        """The records of the next *segment*."""
        for record in records(content):
            if record.kind is Kind.LIVE:
                body = content[record.position : record.position + record.length]
                if record.sound:
                    self._live = record.offset, parse_live(bytes(body))
                continue
            self._counts[record.entry] = record.count
            self._times[record.entry] = record.time_ns
            if record.kind is Kind.END:
                self._ended.add(record.entry)
            elif record.kind in CHANGES:
                self._changes.setdefault(record.entry, []).append(_Change(record, segment))
            elif record.sound:
                body = content[record.position : record.position + record.length]
                self._take_state(record, parse_state(bytes(body)))

    def _take_state(self, record: Record, state: State | None) -> None:
        if state is None:
            return
        if record.kind is Kind.BEGIN:
            state = state.but(began=record.sequence)
        self._states[record.entry] = state
        self._told[record.entry] = record.count

    def found(self, run: DeadRun) -> list[Salvaged]:
        """The files that were not saved, in the order in which they were first written.  What
        stayed until another one was safe is not among them if that is."""
        found = [self._salvaged(run, number, state) for number, state in self.states()]
        past = {one.state.after for one in found if one.finished}
        return [one for one in found if one.state.identity not in past]

    def states(self) -> Iterator[tuple[int, State]]:
        """Their entries, in that order."""
        reach, live = self._live
        for number in sorted(self._states):
            if number not in self._ended and (number > reach or number in live):
                yield number, self._states[number]

    def _salvaged(self, run: DeadRun, number: int, state: State) -> Salvaged:
        changes = [
            change
            for change in self._changes.get(number, ())
            if change.record.sequence > state.began and change.record.count > state.forgotten
        ]
        count = self._counts[number]
        if self._told[number] != count:
            state = altered(state)  # it was written to since
        coverage = Coverage(
            max(state.base_size, state.sent), max(state.size, state.sent), state.held
        )
        for change in changes:
            _apply(coverage, change)
        whole = _is_whole(changes, state.forgotten, count)
        trouble = state.trouble or ("" if whole else "parts of what was written are damaged")
        return Salvaged(run, state, trouble, self._times[number], changes, coverage)


def _apply(coverage: Coverage, change: _Change) -> None:
    record = change.record
    if record.kind is Kind.CUT:
        coverage.cut(record.offset)
    elif record.kind is Kind.WRITE:
        coverage.write(record.offset, record.offset + record.length)
    elif record.sound:
        coverage.write(record.offset, record.offset + int.from_bytes(change.body(), "little"))


def _is_whole(changes: list[_Change], forgotten: int, count: int) -> bool:
    counts = [change.record.count for change in changes]
    if not all(change.record.sound for change in changes):
        return False
    return counts == list(range(forgotten + 1, count + 1))


def _read(directory: Path) -> _Reading:
    reading = _Reading()
    found: list[tuple[int, Path]] = []
    for path in directory.glob("*.log"):
        with path.open("rb") as stream:
            first = first_sequence(stream.read(HEAD_BYTES))
        if first is not None:
            found.append((first, path))
    for _, path in sorted(found):
        reading.take(path, memoryview(path.read_bytes()))
    return reading


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file that waits in a journal: which one of which bucket, *size* bytes, changed last at
    *time_ns*.  *finished* says that it will be saved by the next mount, *trouble* why not."""

    bucket: str
    source: str
    name: str
    size: int
    time_ns: int
    finished: bool
    trouble: str
    directory: Path


def waiting(cache: Path) -> list[Waiting]:
    """Everything that waits in journals below *cache* and that no process has.

    Errors: `CacheError` (nobody can say).
    """
    found = []
    for parent in bucket_directories(cache):
        for run, files in salvage(parent):
            found += [_waiting(one) for one in files]
            run.release()
    return found


def _waiting(one: Salvaged) -> Waiting:
    about = one.run.about
    return Waiting(
        about.bucket if about is not None else "?",
        about.source if about is not None else "?",
        one.state.name,
        one.size,
        one.time_ns,
        one.finished,
        one.trouble or ("" if one.finished else UNFINISHED),
        one.run.directory,
    )


def salvage(parent: Path) -> Iterator[tuple[DeadRun, list[Salvaged]]]:
    """What the dead runs in *parent* hold; those that hold nothing are removed."""
    for run in dead_runs(parent):
        found = [
            one for one in _read(run.directory).found(run) if not run.is_done(one.state.identity)
        ]
        if found:
            yield run, found
        else:
            run.remove()


def uploads(cache: Path, identity: str) -> frozenset[str]:
    """The versions that files in the journals of the bucket with this *identity* below *cache* lie
    in or may become, those of living processes too: of what was acknowledged no journal has the
    bytes any more.

    Errors: `CacheError` (they cannot be read)."""
    try:
        return _uploads(bucket_directory(cache, identity))
    except OSError as error:
        raise CacheError(f"the journals below {cache} cannot be read: {error}") from error


def _uploads(parent: Path) -> frozenset[str]:
    found: set[str] = set()
    for directory, _, _ in all_runs(parent):
        done = done_in(directory)
        for _, state in _read(directory).states():
            if state.identity not in done:
                found.update(state.own, state.nuids)
                found.update([state.below.nuid] if state.below is not None else [])
    return frozenset(found)
