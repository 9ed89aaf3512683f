"""Calls on open files: what outlives its name, limits, mappings, copies in the kernel, locks.

Every test runs on a local file system first, as the control.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .mounting import refused, run
from .syscalls import fallocate

pytestmark = pytest.mark.mount

#: Bytes: more than two chunks, and not a whole number of anything.
SIZE = 300_001


def content(size: int = SIZE) -> bytes:
    """Bytes that are different everywhere."""
    return b"".join(struct.pack("<I", number) for number in range(size // 4 + 1))[:size]


@contextmanager
def opened(path: Path, flags: int, mode: int = 0o644) -> Iterator[int]:
    """A descriptor."""
    descriptor = os.open(path, flags, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def suppress_errno(number: int) -> Iterator[None]:
    """The one way in which the block may fail."""
    try:
        yield
    except OSError as error:
        if error.errno != number:
            raise


def python(code: str, *arguments: object, cwd: Path) -> str:
    """What a program in another process prints."""
    return run([sys.executable, "-c", code, *map(str, arguments)], cwd=cwd).check()


# -- files without names --------------------------------------------------------------------------


def test_unlinked_file_stays_a_file(directory: Path) -> None:
    """W5: a file whose last name went is read, written, cut and described by who has it open."""
    path = directory / "f"
    path.write_bytes(content())
    with opened(path, os.O_RDWR) as descriptor:
        path.unlink()
        assert os.fstat(descriptor).st_nlink == 0
        assert os.fstat(descriptor).st_size == SIZE
        assert os.pread(descriptor, SIZE, 0) == content()
        os.pwrite(descriptor, b"NEW", SIZE)
        os.fsync(descriptor)
        os.ftruncate(descriptor, SIZE + 5)
        assert os.pread(descriptor, 10, SIZE) == b"NEW\0\0"
        os.fchmod(descriptor, 0o600)
        os.fchown(descriptor, os.getuid(), os.getgid())
        os.setxattr(descriptor, "user.a", b"1")
        assert os.getxattr(descriptor, "user.a") == b"1"
        os.utime(descriptor, ns=(1, 2))
        assert os.fstat(descriptor).st_mtime_ns == 2
        assert os.fstat(descriptor).st_mode & 0o777 == 0o600
        path.write_bytes(b"another")
        assert os.pread(descriptor, 3, SIZE) == b"NEW"
    assert path.read_bytes() == b"another"
    assert os.listdir(directory) == ["f"]


def test_never_named_for_long(directory: Path) -> None:
    """W5: a temporary file that is removed before anything is written leaves nothing behind."""
    path = directory / "f"
    with opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as descriptor:
        path.unlink()
        os.write(descriptor, content())
        assert os.pread(descriptor, SIZE, 0) == content()
    assert os.listdir(directory) == []


def test_replaced_while_open(directory: Path) -> None:
    """W5: a file that a rename replaced is read and written on; the new one is not touched."""
    old, new = directory / "old", directory / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    with opened(old, os.O_RDWR) as descriptor:
        new.rename(old)
        os.pwrite(descriptor, b"!", 3)
        os.fsync(descriptor)
        assert os.pread(descriptor, 10, 0) == b"old!"
        assert os.fstat(descriptor).st_nlink == 0
    assert old.read_bytes() == b"new"


def test_o_tmpfile(directory: Path) -> None:
    """W3: a file without a name is made, or refused with what makes programs do it by hand."""
    # open(2) names the errno of a file system without it; libfuse 3.14 has no request for it.
    with suppress_errno(errno.EOPNOTSUPP), opened(directory, os.O_TMPFILE | os.O_RDWR) as file:
        assert os.write(file, b"x") == 1
    assert os.listdir(directory) == []


# -- limits ---------------------------------------------------------------------------------------


def test_file_size_limit(directory: Path) -> None:
    """W3: RLIMIT_FSIZE cuts a write at the limit, and refuses the next with EFBIG and SIGXFSZ."""
    code = """
import os, resource, signal
signal.signal(signal.SIGXFSZ, lambda *_: print("signal"))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
file = os.open("f", os.O_CREAT | os.O_RDWR)
print(os.write(file, b"x" * 1500))
for call in (lambda: os.write(file, b"x"), lambda: os.ftruncate(file, 1001),
             lambda: os.truncate("f", 1001), lambda: os.pwrite(file, b"x", 5000)):
    try:
        print(call())
    except OSError as error:
        print(error.errno)
print(os.fstat(file).st_size)
"""
    refusals = f"signal\n{errno.EFBIG}\n" * 4
    assert python(code, cwd=directory) == f"1000\n{refusals}1000\n"


def test_largest_offsets(directory: Path) -> None:
    """W3: offsets that no file has are refused, whatever is behind."""
    path = directory / "f"
    with opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        largest = 2**63 - 1
        assert refused(lambda: os.pwrite(descriptor, b"xx", largest)) in ("EFBIG", "EINVAL")
        assert refused(lambda: os.ftruncate(descriptor, largest)) == "EFBIG"
        assert refused(lambda: os.lseek(descriptor, -1, os.SEEK_SET)) == "EINVAL"
        assert refused(lambda: os.pread(descriptor, 1, -1)) == "EINVAL"
        assert os.pread(descriptor, 1, 2**40) == b""
    assert refused(lambda: os.truncate(path, -1)) == "EINVAL"
    assert path.stat().st_size == 0


def test_text_file_busy(directory: Path) -> None:
    """W3: a program that runs is not opened for writing, nor run while it is open for writing."""
    program = directory / "program"
    shutil.copy("/bin/sleep", program)
    with subprocess.Popen([program, "60"]) as process:
        try:
            assert refused(lambda: os.open(program, os.O_WRONLY)) == "ETXTBSY"
            assert refused(lambda: os.truncate(program, 0)) == "ETXTBSY"
        finally:
            process.kill()
    with opened(program, os.O_WRONLY):
        assert refused(lambda: subprocess.run([program, "0"], check=True)) == "ETXTBSY"
    subprocess.run([program, "0"], check=True)


def test_wrong_descriptors(directory: Path) -> None:
    """W3: reading what is open for writing only, and the other way round, is EBADF."""
    path = directory / "f"
    with opened(path, os.O_WRONLY | os.O_CREAT) as writing, opened(path, os.O_RDONLY) as reading:
        assert refused(lambda: os.read(writing, 1)) == "EBADF"
        assert refused(lambda: os.write(reading, b"x")) == "EBADF"
        assert refused(lambda: os.ftruncate(reading, 0)) == "EINVAL"
    with opened(directory, os.O_RDONLY) as descriptor:
        assert refused(lambda: os.read(descriptor, 1)) == "EISDIR"
        os.fsync(descriptor)


# -- writing --------------------------------------------------------------------------------------


def test_append_by_two_processes(directory: Path) -> None:
    """W3: what two processes append arrives whole, none over the other."""
    code = """
import os, sys
file = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for number in range(300):
    os.write(file, f"{sys.argv[1]} {number:05} {'x' * 90}\\n".encode())
"""
    processes = [subprocess.Popen([sys.executable, "-c", code, who], cwd=directory) for who in "ab"]
    assert [process.wait(60) for process in processes] == [0, 0]
    lines = (directory / "log").read_text().splitlines()
    for who in "ab":
        mine = [line for line in lines if line.startswith(who)]
        assert mine == [f"{who} {number:05} {'x' * 90}" for number in range(300)]


def test_append_ignores_the_offset(directory: Path) -> None:
    """W3: O_APPEND writes at the end, by pwrite too (as Linux has it), also after truncation."""
    path = directory / "f"
    path.write_bytes(b"1234")
    with opened(path, os.O_RDWR | os.O_APPEND) as descriptor:
        os.pwrite(descriptor, b"5", 0)
        os.truncate(path, 2)
        os.write(descriptor, b"6")
        assert os.pread(descriptor, 100, 0) == b"126"


def test_append_can_be_taken_away(directory: Path) -> None:
    """W3: a descriptor writes where it is told to once fcntl took O_APPEND from it."""
    path = directory / "f"
    path.write_bytes(b"1234")
    with opened(path, os.O_WRONLY | os.O_APPEND) as descriptor:
        os.write(descriptor, b"5")
        fcntl.fcntl(descriptor, fcntl.F_SETFL, 0)
        os.pwrite(descriptor, b"X", 0)
    assert path.read_bytes() == b"X2345"


def test_holes(directory: Path) -> None:
    """W3: what was never written is zeros: in a gap, after growing, after cutting and growing."""
    path = directory / "f"
    with opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        os.pwrite(descriptor, b"end", 200_000)
        os.pwrite(descriptor, b"middle", 100_000)
        os.ftruncate(descriptor, 100_003)
        os.ftruncate(descriptor, 250_000)
    expected = bytes(100_000) + b"mid" + bytes(149_997)
    assert path.read_bytes() == expected
    with opened(path, os.O_RDONLY) as descriptor:
        assert os.lseek(descriptor, 0, os.SEEK_HOLE) <= 250_000
        assert os.lseek(descriptor, 99_000, os.SEEK_DATA) <= 100_000
        assert refused(lambda: os.lseek(descriptor, 250_000, os.SEEK_DATA)) == "ENXIO"


def test_vectors(directory: Path) -> None:
    """W3: readv, writev and their positional forms move all parts."""
    path = directory / "f"
    with opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
        assert os.writev(descriptor, [b"a" * 5000, b"", b"b" * 5000]) == 10_000
        assert os.pwritev(descriptor, [b"cc", b"dd"], 4998) == 4
        parts = [bytearray(4998), bytearray(4), bytearray(6000)]
        assert os.preadv(descriptor, parts, 0) == 10_000
        assert parts[1] == b"ccdd"


def test_posix_fallocate(directory: Path) -> None:
    """W3: posix_fallocate extends with zeros and changes no content, by the fallback of libc."""
    path = directory / "f"
    path.write_bytes(content(1000))
    with opened(path, os.O_RDWR) as descriptor:
        os.posix_fallocate(descriptor, 500, 100_000)
        os.posix_fallocate(descriptor, 0, 10)
        assert os.fstat(descriptor).st_size == 100_500
    assert path.read_bytes() == content(1000) + bytes(99_500)


def test_fallocate(directory: Path) -> None:
    """W3: fallocate(2) itself works, or says EOPNOTSUPP so that programs do without."""
    # pyfuse3 does not know the request; the kernel answers for it.
    refusing = suppress_errno(errno.EOPNOTSUPP)
    with opened(directory / "f", os.O_RDWR | os.O_CREAT) as descriptor, refusing:
        fallocate(descriptor, 0, 0, 5000)
        assert os.fstat(descriptor).st_size == 5000


# -- mappings and direct access -------------------------------------------------------------------


def test_shared_mapping(directory: Path) -> None:
    """W3: what is written to a shared mapping is in the file after msync, and after munmap."""
    path = directory / "f"
    path.write_bytes(content())
    with opened(path, os.O_RDWR) as descriptor, mmap.mmap(descriptor, SIZE) as view:
        view[0:3] = b"NEW"
        view[SIZE - 3 :] = b"END"
        view.flush()
        assert os.pread(descriptor, 3, 0) == b"NEW"
        view[131_072:131_075] = b"MID"
    expected = bytearray(content())
    expected[0:3], expected[131_072:131_075], expected[SIZE - 3 :] = b"NEW", b"MID", b"END"
    assert path.read_bytes() == expected


def test_two_mappings_and_a_write(directory: Path) -> None:
    """W3: mappings of one file in two processes and a descriptor see each other's changes."""
    path = directory / "f"
    path.write_bytes(bytes(8192))
    code = """
import mmap
with open("f", "r+b") as file, mmap.mmap(file.fileno(), 0) as view:
    assert view[0:3] == b"abc", view[0:3]
    view[4096:4099] = b"def"
"""
    with opened(path, os.O_RDWR) as descriptor, mmap.mmap(descriptor, 8192) as view:
        view[0:3] = b"abc"
        python(code, cwd=directory)
        assert view[4096:4099] == b"def"
        os.pwrite(descriptor, b"ghi", 100)
        assert view[100:103] == b"ghi"


def test_private_mapping(directory: Path) -> None:
    """W3: what is written to a private mapping stays there; only reading is needed for it."""
    path = directory / "f"
    path.write_bytes(content())
    path.chmod(0o444)
    with opened(path, os.O_RDONLY) as descriptor:
        access = mmap.PROT_READ | mmap.PROT_WRITE
        with mmap.mmap(descriptor, SIZE, mmap.MAP_PRIVATE, access) as view:
            view[0:3] = b"NEW"
            view.flush()
            assert os.pread(descriptor, 3, 0) == content()[:3]
    assert path.read_bytes() == content()


def test_mapping_outlives_name_and_descriptor(directory: Path) -> None:
    """W5: a mapping goes on after close and unlink."""
    path = directory / "f"
    path.write_bytes(content())
    with opened(path, os.O_RDWR) as descriptor:
        view = mmap.mmap(descriptor, SIZE)
    path.unlink()
    view[0:3] = b"NEW"
    assert view[3:1000] == content()[3:1000]
    view.close()


def test_mapping_beyond_the_end(directory: Path) -> None:
    """W3: the rest of the last page is zeros, and does not become part of the file."""
    path = directory / "f"
    path.write_bytes(b"x" * 5000)
    with opened(path, os.O_RDWR) as descriptor, mmap.mmap(descriptor, 5000) as view:
        view.flush()
        os.ftruncate(descriptor, 8000)
        assert os.pread(descriptor, 3000, 5000) == bytes(3000)
    code = """
import mmap
with open("f", "r+b") as file:
    view = mmap.mmap(file.fileno(), 8000)
    file.truncate(100)
    view[5000]
"""
    died = run([sys.executable, "-c", code], cwd=directory)
    assert died.status == -signal.SIGBUS


def test_direct_access(directory: Path) -> None:
    """R6: O_DIRECT reads and writes what everybody else sees."""
    path = directory / "f"
    page = mmap.mmap(-1, 8192)
    page.write(content(8192))
    with opened(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT) as descriptor:
        assert os.pwritev(descriptor, [page], 0) == 8192
        assert os.pwritev(descriptor, [page], 65_536) == 8192
    assert path.read_bytes() == content(8192) + bytes(65_536 - 8192) + content(8192)
    path.write_bytes(content(100_000))
    with opened(path, os.O_RDONLY | os.O_DIRECT) as descriptor:
        assert os.preadv(descriptor, [page], 90_112) == 8192
        assert page[:] == content(100_000)[90_112 : 90_112 + 8192]
        assert os.preadv(descriptor, [page], 98_304) == 100_000 - 98_304


# -- copies in the kernel -------------------------------------------------------------------------


def test_copies_in_the_kernel(directory: Path, tmp_path: Path) -> None:
    """R6: copy_file_range, sendfile and splice move ranges within, into and out of the mount."""
    local = tmp_path / "outside"
    local.write_bytes(content())
    inside, copy, sent = directory / "inside", directory / "copy", directory / "sent"
    with open(local, "rb") as source, open(inside, "wb") as target:
        left = SIZE
        while left:
            left -= os.sendfile(target.fileno(), source.fileno(), None, left)
    with open(inside, "rb") as source, open(copy, "wb") as target:
        left = SIZE
        while left:
            left -= os.copy_file_range(source.fileno(), target.fileno(), left)
        assert os.copy_file_range(source.fileno(), target.fileno(), 10) == 0
    with open(inside, "rb") as source, open(sent, "wb") as target:
        reader, writer = os.pipe()
        moved = 0
        while moved < SIZE and (taken := os.splice(source.fileno(), writer, 65_536)):
            while taken:
                put = os.splice(reader, target.fileno(), taken)
                taken -= put
                moved += put
        os.close(reader)
        os.close(writer)
    expected = hashlib.sha256(content()).hexdigest()
    for path in (inside, copy, sent):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == expected, path.name


def test_copy_within_a_file(directory: Path) -> None:
    """R6: copy_file_range within one file copies what does not overlap and refuses what does."""
    path = directory / "f"
    path.write_bytes(content(10_000))
    with opened(path, os.O_RDWR) as descriptor:
        assert os.copy_file_range(descriptor, descriptor, 1000, 0, 9000) == 1000
        overlapping = (descriptor, descriptor, 1000, 0, 500)
        assert refused(lambda: os.copy_file_range(*overlapping)) == "EINVAL"
    assert path.read_bytes() == content(10_000)[:9000] + content(1000)


# -- locks ----------------------------------------------------------------------------------------

LOCK_ATTEMPT = """
import fcntl, struct, sys
kind, path = sys.argv[1:]
with open(path, "r+b") as file:
    try:
        if kind == "flock":
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        elif kind == "ofd":
            lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 10, 5, 0)
            fcntl.fcntl(file, 37, lock)
        else:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 10)
    except OSError as error:
        print(error.errno)
    else:
        print("locked")
"""


@pytest.mark.parametrize("kind", ["flock", "posix", "ofd"])
def test_locks_between_processes(directory: Path, kind: str) -> None:
    """W3: flock, fcntl and open-file-description locks keep other processes out until released."""
    path = directory / "f"
    path.write_bytes(bytes(100))
    with open(path, "r+b") as file:
        if kind == "flock":
            fcntl.flock(file, fcntl.LOCK_SH)
        else:
            fcntl.lockf(file, fcntl.LOCK_EX, 5, 12)
        assert python(LOCK_ATTEMPT, kind, path, cwd=directory) == f"{errno.EAGAIN}\n"
        if kind == "flock":
            fcntl.flock(file, fcntl.LOCK_UN)
        else:
            fcntl.lockf(file, fcntl.LOCK_UN, 5, 12)
        assert python(LOCK_ATTEMPT, kind, path, cwd=directory) == "locked\n"


def test_posix_locks_go_with_any_descriptor(directory: Path) -> None:
    """W3: closing any descriptor of the file releases the process's fcntl locks on it."""
    path = directory / "f"
    path.write_bytes(bytes(100))
    with open(path, "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        path.open("rb").close()
        assert python(LOCK_ATTEMPT, "posix", path, cwd=directory) == "locked\n"


def test_limits_are_told(directory: Path) -> None:
    """N4: pathconf tells the limits that are kept."""
    assert os.pathconf(directory, "PC_NAME_MAX") == 255
    assert os.pathconf(directory, "PC_PATH_MAX") == 4096
    assert os.pathconf(directory, "PC_NO_TRUNC") == 1
