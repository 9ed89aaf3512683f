"""The spool: which bytes were written, held against a model, and what a failing disk leaves."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natsfs.data.coverage import Base, Held
from natsfs.data.spool import Spool
from natsfs.errors import CacheError, FileTooBig, NoSpaceError

#: Small numbers, so that edges meet.
places = st.integers(0, 40)
steps = st.lists(
    st.one_of(st.tuples(places, st.binary(min_size=0, max_size=12)), places), max_size=30
)


def content(spool: Spool, base: bytes) -> bytes:
    """The whole file as a reader of *spool* over *base* sees it."""
    parts = []
    position = 0
    for piece in spool.pieces(0, spool.size + 100):
        assert piece.start == position < piece.stop
        position = piece.stop
        match piece:
            case Held(start, stop):
                parts.append(spool.read(start, stop))
            case Base(start, stop):
                assert stop <= len(base)
                parts.append(base[start:stop])
    assert position == spool.size
    return b"".join(parts)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One directory for all examples: what a spool leaves behind there is a failure."""
    return tmp_path_factory.mktemp("spool")


@given(base=st.binary(max_size=30), script=steps)
@settings(max_examples=400)
def test_like_a_file_in_memory(directory: Path, base: bytes, script: list[object]) -> None:
    """W3: any writes and truncations leave the bytes that the same calls leave in memory."""
    spool = Spool(directory, len(base))
    model = bytearray(base)
    for step in script:
        before, generation = bytes(model), spool.generation
        if isinstance(step, tuple):
            offset, data = step
            spool.write(offset, data)
            if data:
                model.extend(bytes(max(0, offset - len(model))))
                model[offset : offset + len(data)] = data
        elif isinstance(step, int):
            spool.truncate(step)
            model[step:] = bytes(step - len(model)) if step > len(model) else b""
        assert spool.size == len(model)
        assert content(spool, base) == model
        assert spool.generation > generation or before == model
    spool.close()
    assert not list(directory.iterdir())


@given(base=st.integers(0, 30), script=steps, start=places, length=places)
def test_pieces_of_a_range(
    directory: Path, base: int, script: list[object], start: int, length: int
) -> None:
    """W3: the pieces of a range are those of the whole file, cut to it, and as few as can be."""
    spool = Spool(directory, base)
    for step in script:
        if isinstance(step, tuple):
            spool.write(*step)
        elif isinstance(step, int):
            spool.truncate(step)
    pieces = spool.pieces(start, start + length)
    kinds = {n: type(p) for p in spool.pieces(0, spool.size) for n in range(p.start, p.stop)}
    covered = {n: type(p) for p in pieces for n in range(p.start, p.stop)}
    assert covered == {n: kind for n, kind in kinds.items() if start <= n < start + length}
    assert all(type(one) is not type(two) for one, two in pairwise(pieces))
    spool.close()


def test_what_was_not_written_is_base(directory: Path) -> None:
    """W3: a write costs the bytes written; the rest of the file is still the base version's."""
    spool = Spool(directory, 1000)
    spool.write(100, b"x" * 50)
    assert spool.pieces(0, 1000) == [Base(0, 100), Held(100, 150), Base(150, 1000)]
    spool.close()


def test_cut_base_never_returns(directory: Path) -> None:
    """W3: after truncating down and up again the bytes are zeros, not those of the base."""
    spool = Spool(directory, 100)
    spool.truncate(10)
    spool.truncate(100)
    assert spool.pieces(0, 100) == [Base(0, 10), Held(10, 100)]
    assert spool.read(10, 100) == bytes(90)
    spool.close()


def test_cut_writes_never_return(directory: Path) -> None:
    """W3: written bytes that were truncated away are zeros afterwards, in one piece."""
    spool = Spool(directory, 100)
    spool.write(0, b"x" * 50)
    spool.truncate(10)
    spool.truncate(100)
    assert spool.pieces(20, 30) == [Held(20, 30)]
    assert spool.read(0, 30) == b"x" * 10 + bytes(20)
    spool.close()


def test_huge_hole_costs_nothing(directory: Path) -> None:
    """W3: a hole of a terabyte is a size, not a terabyte of disk."""
    spool = Spool(directory, 0)
    spool.write(2**40, b"end")
    assert spool.read(2**40 - 2, 2**40 + 3) == b"\0\0end"
    assert spool.pieces(0, 2**50) == [Held(0, 2**40 + 3)]
    spool.close()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond *size* bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_refused_write_changes_nothing(directory: Path) -> None:
    """W3: a write that the local disk refuses half-way leaves the old content."""
    spool = Spool(directory, 4)
    spool.write(0, b"ab")
    generation = spool.generation
    with file_size_limit(6), pytest.raises(FileTooBig):
        spool.write(1, b"X" * 100)
    assert (spool.size, spool.generation) == (4, generation)
    assert content(spool, b"base") == b"abse"
    spool.truncate(50)
    assert content(spool, b"base") == b"abse" + bytes(46)
    spool.close()


def test_full_disk_changes_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E: a full local disk is ENOSPC, and short writes do not count as written."""
    spool = Spool(directory, 4)
    spool.write(6, b"ab")
    real = os.pwrite

    def short(file: int, data: memoryview, offset: int) -> int:
        if offset >= 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, bytes(data)[:3], offset)

    monkeypatch.setattr(os, "pwrite", short)
    with pytest.raises(NoSpaceError):
        spool.write(14, b"X" * 10)
    monkeypatch.undo()
    assert content(spool, b"base") == b"base\0\0ab"
    spool.truncate(30)
    assert content(spool, b"base") == b"base\0\0ab" + bytes(22)
    spool.close()


def test_broken_disk_is_an_io_error(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """E: a local disk that fails otherwise is EIO."""
    spool = Spool(directory, 0)

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "posix_fallocate", broken)
    with pytest.raises(CacheError):
        spool.write(0, b"x")
    monkeypatch.undo()
    assert spool.size == 0
    spool.close()


def test_unusable_directory_is_an_error(tmp_path: Path) -> None:
    """E: a spool directory that cannot be used is EIO, not a crash."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CacheError):
        Spool(tmp_path / "file", 0)


def test_its_file_goes_with_it(tmp_path: Path) -> None:
    """W7: the spool's file has a name for as long as the spool is open, unless it is to stay."""
    spool = Spool(tmp_path / "new", 0)
    spool.write(3, b"x")
    assert list((tmp_path / "new").iterdir()) == [spool.path]
    spool.close()
    assert not spool.path.exists()
    kept = Spool(tmp_path / "new", 0)
    kept.keep()
    kept.close()
    assert kept.path.exists()
    spool.close()
