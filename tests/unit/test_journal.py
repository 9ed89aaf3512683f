"""The journal: what a process that dies leaves in it, and what damage makes of that."""

from __future__ import annotations

import os
import random
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from natsfs.data import journal as module
from natsfs.data import log as log_module
from natsfs.data.coverage import Base
from natsfs.data.journal import Entry, Journal
from natsfs.data.log import Segment
from natsfs.data.records import State
from natsfs.data.runs import About, Run, bucket_directory, dead_runs
from natsfs.data.salvage import Salvaged, salvage, waiting
from natsfs.data.spool import Spool

ABOUT = About("bucket", "bucket@1", "nats://host/bucket", "/mnt", "host", 1, 10**18)


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "SEGMENT", 4096)
    monkeypatch.setattr(module, "LONGEST", 4096)


def journal_in(cache: Path) -> Journal:
    return Journal(Run(cache, ABOUT), 10.0)


def die(journal: Journal) -> None:
    """What the kernel does when the process ends: all descriptors are closed."""
    top = f"{journal._run.directory}/"
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            if os.readlink(f"/proc/self/fd/{name}").startswith(top):
                os.close(int(name))


def left_in(cache: Path) -> list[Salvaged]:
    found = []
    for run, files in salvage(bucket_directory(cache, ABOUT.identity)):
        found += files
        run.release()
    return found


def content(salvaged: Salvaged, cache: Path) -> bytes:
    other = journal_in(cache / "other")
    spool = salvaged.content(other)
    parts = [
        b"b" * (piece.stop - piece.start)
        if isinstance(piece, Base)
        else spool.read(piece.start, piece.stop)
        for piece in spool.pieces(0, spool.size)
    ]
    spool.close()
    other.close()
    return b"".join(parts)


@dataclass
class File:
    """A file and what it should be."""

    entry: Entry
    body: bytearray
    spool: Spool | None
    closed: bytes | None = None
    #: What it was whenever it was closed.
    closes: list[bytes] = field(default_factory=list)
    ended: bool = False

    def state(self, *, closed: bool = False) -> State:
        known = self.entry.state
        if known is not None:
            return known.but(closed=closed)
        size = len(self.body)
        return State(
            identity=f"file{self.entry.number}",
            name=f"file{self.entry.number}",
            size=size,
            base_size=size,
            spool=self.spool.path.name if self.spool is not None else "",
            closed=closed,
        )


@dataclass
class Model:
    """A journal, and the files in it."""

    journal: Journal
    files: list[File] = field(default_factory=list)

    def begin(self, size: int, spooled: bool) -> None:
        spool = self.journal.spool(size) if spooled else None
        file = File(self.journal.entry(), bytearray(b"b" * size), spool)
        file.entry.begin(file.state(), spool)
        self.files.append(file)

    def write(self, number: int, offset: int, data: bytes) -> None:
        file = self._file(number)
        if file is None or not data:
            return
        file.body.extend(bytes(max(0, offset - len(file.body))))
        file.body[offset : offset + len(data)] = data
        if file.spool is not None:
            file.spool.write(offset, data)
            file.entry.hold(offset, offset + len(data))
        else:
            file.entry.write(offset, data)
        self._reopened(file)

    def cut(self, number: int, size: int) -> None:
        file = self._file(number)
        if file is None:
            return
        file.body.extend(bytes(max(0, size - len(file.body))))
        del file.body[size:]
        if file.spool is not None:
            file.spool.truncate(size)
        file.entry.cut(size)
        self._reopened(file)

    def close(self, number: int) -> None:
        file = self._file(number)
        if file is not None:
            file.entry.change(file.state(closed=True))
            file.closed = bytes(file.body)
            file.closes.append(file.closed)

    def end(self, number: int) -> None:
        file = self._file(number)
        if file is not None:
            file.entry.end()
            file.ended = True
            if file.spool is not None:
                file.spool.close()

    def _file(self, number: int) -> File | None:
        alive = [file for file in self.files if not file.ended]
        return alive[number % len(alive)] if alive else None

    def _reopened(self, file: File) -> None:
        file.closed = None


numbers = st.integers(0, 5)
places = st.integers(0, 900)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 600), st.booleans()),
        st.tuples(st.just("write"), numbers, places, st.binary(max_size=700)),
        st.tuples(st.just("write"), numbers, places, st.binary(max_size=700)),
        st.tuples(st.just("cut"), numbers, places),
        st.tuples(st.just("close"), numbers),
        st.tuples(st.just("end"), numbers),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(steps=steps)
def test_what_a_process_leaves(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[object, ...]]
) -> None:
    """W7: after the death of the process its journal has every file that was not ended, with all
    its bytes, and no other."""
    cache = tmp_path_factory.mktemp("journal")
    model = Model(journal_in(cache))
    model.begin(0, spooled=False)
    for name, *arguments in steps:
        getattr(model, str(name))(*arguments)
    die(model.journal)
    expected = {file.state().name: file for file in model.files if not file.ended}
    found = left_in(cache)
    assert {one.state.name for one in found} == expected.keys()
    for one in found:
        file = expected[one.state.name]
        assert one.trouble == ""
        assert one.finished == (file.closed is not None)
        assert content(one, cache) == bytes(file.body)


@settings(max_examples=150)
@given(steps=steps, seed=st.integers(0, 2**32))
def test_damage(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[object, ...]], seed: int
) -> None:
    """W7: whatever bits flip in the journal, what would be stored without asking is what its
    program closed, if not the last time; anything else is at most offered."""
    cache = tmp_path_factory.mktemp("journal")
    model = Model(journal_in(cache))
    model.begin(0, spooled=False)
    for name, *arguments in steps:
        getattr(model, str(name))(*arguments)
    die(model.journal)
    chance = random.Random(seed)
    for path in sorted(cache.rglob("*.log")):
        damaged = bytearray(path.read_bytes())
        for _ in range(chance.randrange(3)):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged[: chance.choice([len(damaged), chance.randrange(len(damaged))])])
    known = {f"file{file.entry.number}": file for file in model.files}
    for one in left_in(cache):
        if one.finished:
            assert content(one, cache) in known[one.state.name].closes


def test_a_stream_takes_no_room(tmp_path: Path) -> None:
    """W4: what has been stored is not kept: the disk has a few segments, however much passes."""
    journal = journal_in(tmp_path)
    entry = journal.entry()
    state = State(identity="f", name="f", size=0)
    entry.begin(state)
    for at in range(0, 200_000, 500):
        entry.write(at, b"x" * 500)
        if entry.can_forget(at - 1000):
            entry.forget(state.but(sent=at - 1000))
    assert len(list(tmp_path.rglob("*.log"))) <= log_module.SPARE + 4
    die(journal)
    (one,) = left_in(tmp_path)
    assert (one.size, one.trouble) == (200_000, "")
    kept = content(one, tmp_path)
    assert kept[one.state.sent :] == b"x" * (200_000 - one.state.sent)


def test_many_states(tmp_path: Path) -> None:
    """W8: thousands of files that wait do not fill the journal with what is known of them."""
    journal = journal_in(tmp_path)
    for number in range(400):
        entry = journal.entry()
        entry.begin(State(identity=f"{number}", name=f"{number}", size=0))
        entry.write(0, b"data")
        entry.change(State(identity=f"{number}", name=f"{number}", size=0, closed=True))
    die(journal)
    found = left_in(tmp_path)
    assert len(found) == 400
    assert all(one.finished and one.size == 4 for one in found)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.log")) < 400 * 800


def test_a_living_process_is_left_alone(tmp_path: Path) -> None:
    """W7: nobody touches the journal of a mount that lives."""
    journal = journal_in(tmp_path)
    journal.entry().begin(State(identity="f", name="f", size=0))
    assert left_in(tmp_path) == []
    assert waiting(tmp_path) == []
    die(journal)
    (one,) = waiting(tmp_path)
    assert (one.bucket, one.source, one.name, one.finished) == (
        *("bucket", "nats://host/bucket", "f"),
        False,
    )


def test_done(tmp_path: Path) -> None:
    """W7: what was taken over is not found again, and the last one takes the directory with it."""
    journal = journal_in(tmp_path)
    for name in ("one", "two"):
        journal.entry().begin(State(identity=name, name=name, size=0))
    die(journal)
    next(one for one in left_in(tmp_path) if one.state.name == "one").drop()
    (two,) = left_in(tmp_path)
    assert two.state.name == "two"
    two.drop()
    assert left_in(tmp_path) == []
    assert list(bucket_directory(tmp_path, ABOUT.identity).iterdir()) == []


def test_nothing_left(tmp_path: Path) -> None:
    """W7: a mount that ends with nothing unsaved leaves nothing."""
    journal = journal_in(tmp_path)
    entry = journal.entry()
    entry.begin(State(identity="f", name="f", size=0))
    entry.end()
    assert journal.close() == 0
    assert list(bucket_directory(tmp_path, ABOUT.identity).iterdir()) == []


@pytest.mark.expects_log("may be changed by others")
def test_foreign_directory(tmp_path: Path) -> None:
    """W7: what others could have put there is neither read nor written."""
    parent = bucket_directory(tmp_path, ABOUT.identity)
    parent.mkdir(parents=True)
    parent.chmod(0o777)
    (parent / "run").mkdir()
    assert list(dead_runs(parent)) == []


@pytest.mark.expects_log("the journal cannot be written")
def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W7: where the disk is full one line says so, and what follows is told again from its begin
    once it is not."""
    journal = journal_in(tmp_path)
    entry = journal.entry()
    state = State(identity="f", name="f", size=0)
    real = os.pwritev

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    entry.begin(state)
    monkeypatch.setattr(os, "pwritev", full)
    entry.write(0, b"lost")
    entry.write(4, b"lost")
    assert entry.broken
    assert not trio.run(entry.sync)
    monkeypatch.setattr(os, "pwritev", real)
    entry.begin(state)
    entry.write(0, b"again")
    assert not entry.broken
    assert trio.run(entry.sync)
    die(journal)
    (one,) = left_in(tmp_path)
    assert content(one, tmp_path) == b"again"


@pytest.mark.expects_log("the journal cannot be written")
def test_removed_directory(tmp_path: Path) -> None:
    """W7: a journal that somebody removed is begun anew, and says that it lost what was in it."""
    journal = journal_in(tmp_path)
    entry = journal.entry()
    entry.begin(State(identity="f", name="f", size=0))
    directory = next(bucket_directory(tmp_path, ABOUT.identity).iterdir())
    directory.rename(tmp_path / "away")
    assert not trio.run(entry.sync)
    assert entry.broken
    entry.begin(State(identity="f", name="f", size=0))
    entry.write(0, b"data")
    assert trio.run(entry.sync)
    die(journal)
    (one,) = left_in(tmp_path)
    assert content(one, tmp_path) == b"data"


@pytest.mark.expects_log("the journal cannot be written: .*the disk does not answer")
def test_disk_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W7: what a sync gave up waiting for is not taken for synced by the next one."""
    journal = Journal(Run(tmp_path, ABOUT), 0.05)
    entry = journal.entry()
    entry.begin(State(identity="f", name="f", size=0))
    disk = threading.Event()
    monkeypatch.setattr(Segment, "sync", lambda segment: disk.wait())
    assert not trio.run(entry.sync)
    assert not trio.run(entry.sync)
    disk.set()
    assert trio.run(entry.sync)
    die(journal)


@pytest.mark.expects_log("the journal cannot be written: .*no thread can be started")
def test_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W7: where no thread is to be had the file counts as not on the disk, and is told again."""
    journal = journal_in(tmp_path)
    entry = journal.entry()
    entry.begin(State(identity="f", name="f", size=0))

    async def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(trio.to_thread, "run_sync", refuse)
        assert not trio.run(entry.sync)
    assert entry.broken
    entry.begin(State(identity="f", name="f", size=0))
    assert trio.run(entry.sync)
    die(journal)
