"""Reading and writing of semantics.md through a real mount.

Tests that take `directory` run on a local file system too: there the expectation itself is tested.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import mmap
import os
import random
import subprocess
import sys
import threading
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest

from .conftest import Mounter
from .foreign import ForeignClient
from .mounting import Mount, refused, run, shows, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

CHUNK = 128 * 1024

#: A file of several chunks with a short last one.
BODY = random.Random(7).randbytes(5 * CHUNK + 1000)


def rest_or_stale(file: io.FileIO) -> bytes:
    """What can be read up to the end, or to ESTALE."""
    found = b""
    try:
        while piece := file.read(CHUNK):
            found += piece
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
    return found


# -- R: reading -----------------------------------------------------------------------------------


def test_an_open_file_is_one_version(mount: Mount, py: ForeignClient) -> None:
    """R1: a handle reads one version: after a foreign overwrite old bytes or ESTALE, no mix."""
    mountpoint = mount.directory
    old, new = b"o" * 3 * CHUNK, b"n" * CHUNK
    py.put("f", old)
    wait_until((mountpoint / "f").exists, "the object")
    with open(mountpoint / "f", "rb", buffering=0) as file:
        assert file.read(10) == old[:10]
        py.put("f", new)
        wait_until(lambda: shows(mount, mountpoint / "f", new), "the new version")
        assert set(rest_or_stale(file)) <= set(b"o")


def test_an_open_file_outlives_its_replacement(directory: Path) -> None:
    """R1: a handle goes on reading what was replaced by rename on the same mount."""
    (directory / "f").write_bytes(BODY)
    with open(directory / "f", "rb", buffering=0) as file:
        (directory / "new").write_bytes(b"new")
        (directory / "new").rename(directory / "f")
        assert b"".join(iter(lambda: file.read(CHUNK), b"")) == BODY
        assert os.fstat(file.fileno()).st_size == len(BODY)
    assert (directory / "f").read_bytes() == b"new"


def test_a_wrong_digest_is_an_error(mounter: Mounter, py: ForeignClient) -> None:
    """R3: bytes that are not what the digest promises are EIO at the end, with one error line."""
    py.put("broken", BODY)
    meta = py.meta("broken")
    meta["digest"] = "SHA-256=" + urlsafe_b64encode(hashlib.sha256(b"other").digest()).decode()
    py.publish(py.meta_subject("broken"), json.dumps(meta).encode())
    mount = mounter()
    mount.expect_trouble("ERROR.*broken")
    assert refused((mount.directory / "broken").read_bytes) == "EIO"
    assert len([line for line in mount.log_text().splitlines() if "ERROR" in line]) == 1


def test_cached_bytes_outlive_the_mount(mount: Mount, py: ForeignClient) -> None:
    """R4: bytes that were read once are still right after a remount, and after a foreign change."""
    (mount.directory / "f").write_bytes(BODY)
    assert (mount.directory / "f").read_bytes() == BODY
    mount.remount()
    assert (mount.directory / "f").read_bytes() == BODY
    py.put("f", BODY[::-1])
    mount.remount()
    assert (mount.directory / "f").read_bytes() == BODY[::-1]


@pytest.mark.parametrize("sizes", [[1, 70_000, 3], [CHUNK, 5, CHUNK], [100] * 6, [CHUNK, CHUNK, 0]])
def test_irregular_chunks(mountpoint: Path, py: ForeignClient, sizes: list[int]) -> None:
    """R5: chunks of any size and number are read, at any offset."""
    body, nuid = BODY[: sum(sizes)], uuid.uuid4().hex[:22]
    start = 0
    for size in sizes:
        py.publish(f"$O.{py.bucket}.C.{nuid}", body[start : start + size])
        start += size
    digest = "SHA-256=" + urlsafe_b64encode(hashlib.sha256(body).digest()).decode()
    counted = len([size for size in sizes if size])
    options = {"max_chunk_size": CHUNK}
    py.put_meta("f", nuid=nuid, size=start, chunks=counted, digest=digest, options=options)
    wait_until((mountpoint / "f").exists, "the object")
    with open(mountpoint / "f", "rb", buffering=0) as file:
        for offset in (start - 1, start // 2, 0, 1):
            assert os.pread(file.fileno(), 1000, offset) == body[offset : offset + 1000]
    assert (mountpoint / "f").read_bytes() == body


def test_ways_to_read(directory: Path) -> None:
    """R6: pread, mmap, sendfile and reads at or past the end are as on ext4."""
    (directory / "f").write_bytes(BODY)
    with open(directory / "f", "rb", buffering=0) as file:
        fd = file.fileno()
        for offset, length in (
            (0, 1),
            (CHUNK - 1, 2),
            (len(BODY) - 1, 100),
            (2 * CHUNK, 2 * CHUNK),
        ):
            assert os.pread(fd, length, offset) == BODY[offset : offset + length]
        assert os.pread(fd, 10, len(BODY)) == b""
        assert os.pread(fd, 10, 2**40) == b""
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as view:
            assert view[:] == BODY
            assert view.find(BODY[-20:]) == len(BODY) - 20
        with open(directory / "copy", "wb") as copy:
            assert os.sendfile(copy.fileno(), fd, 100, 200_000) == 200_000
    assert (directory / "copy").read_bytes() == BODY[100:200_100]


# -- W: writing -----------------------------------------------------------------------------------


def test_closed_means_stored(mountpoint: Path, py: ForeignClient) -> None:
    """W1: when `close` or `fsync` returns, another client reads the bytes."""
    with open(mountpoint / "f", "wb", buffering=0) as file:
        file.write(BODY)
        os.fsync(file.fileno())
        assert py.get("f") == BODY
        file.write(b"tail")
    assert py.get("f") == BODY + b"tail"
    info = py.info("f")
    assert info["digest"].endswith(
        urlsafe_b64encode(hashlib.sha256(BODY + b"tail").digest()).decode()
    )


#: A process of its own: a fork of this one would close the file, and so store it, at its exec.
WRITE_AND_WAIT = """
import os, sys
file = os.open("f", os.O_WRONLY | os.O_TRUNC)
os.write(file, bytes(1_000_000))
print("written", flush=True)
sys.stdin.read()
"""


def test_versions_appear_whole(mount: Mount, py: ForeignClient) -> None:
    """W2: other clients see the old version while a file is written, and if the mount is killed."""
    (mount.directory / "f").write_bytes(b"old")
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT], cwd=mount.directory, stdin=pipe, stdout=pipe
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        assert py.get("f") == b"old"
        mount.kill()
        writer.communicate(timeout=30)
    assert py.get("f") == b"old"


def test_random_writes(directory: Path) -> None:
    """W3: writes, appends and truncations at random leave the bytes that they leave in memory."""
    dice = random.Random(3)
    model = bytearray()
    path = directory / "f"
    for _ in range(12):
        with open(path, "r+b" if path.exists() else "w+b", buffering=0) as file:
            for _ in range(10):
                offset = dice.randrange(4 * CHUNK)
                piece = dice.randbytes(dice.choice((1, 100, 5000, CHUNK)))
                if dice.random() < 0.25:
                    file.truncate(offset)
                    model[offset:] = bytes(max(0, offset - len(model)))
                else:
                    assert os.pwrite(file.fileno(), piece, offset) == len(piece)
                    model.extend(bytes(max(0, offset - len(model))))
                    model[offset : offset + len(piece)] = piece
                check = dice.randrange(len(model) + 1)
                assert os.pread(file.fileno(), 3000, check) == model[check : check + 3000]
        assert path.read_bytes() == model
        assert path.stat().st_size == len(model)


def test_truncate_by_path_and_handle(directory: Path) -> None:
    """W3: truncation up and down, by path and by handle, of open and of closed files."""
    path = directory / "f"
    path.write_bytes(BODY)
    os.truncate(path, 1000)
    assert path.read_bytes() == BODY[:1000]
    os.truncate(path, 2 * CHUNK)
    assert path.read_bytes() == BODY[:1000].ljust(2 * CHUNK, b"\0")
    with open(path, "r+b", buffering=0) as file:
        file.truncate(10)
        assert path.stat().st_size == 10
        os.truncate(path, 5)
        assert file.read() == BODY[:5]
        file.truncate(7)
    assert path.read_bytes() == BODY[:5] + b"\0\0"
    os.truncate(path, 0)
    assert path.read_bytes() == b""


def test_append_and_truncating_open(directory: Path) -> None:
    """W3: O_APPEND writes at the end whoever else writes; O_TRUNC empties at once."""
    path = directory / "f"
    with open(path, "ab", buffering=0) as one, open(path, "ab", buffering=0) as two:
        for number in range(50):
            (one if number % 2 else two).write(b"%02d " % number)
        assert path.read_bytes() == b"".join(b"%02d " % number for number in range(50))
        with open(path, "wb", buffering=0):
            assert path.stat().st_size == 0
        one.write(b"after")
    assert path.read_bytes() == b"after"


def test_handles_see_each_other(directory: Path) -> None:
    """W3: what one handle writes another reads at once, through read, stat and mmap."""
    path = directory / "f"
    path.write_bytes(b"." * 10_000)
    with open(path, "r+b", buffering=0) as one, open(path, "rb", buffering=0) as two:
        os.pwrite(one.fileno(), b"hello", 5000)
        assert os.pread(two.fileno(), 5, 5000) == b"hello"
        with mmap.mmap(one.fileno(), 0) as view:
            view[9000:9005] = b"world"
            view.flush()
            assert os.pread(two.fileno(), 5, 9000) == b"world"
        os.pwrite(one.fileno(), b"!", 20_000)
        assert os.fstat(two.fileno()).st_size == path.stat().st_size == 20_001
    assert path.read_bytes()[9000:9005] == b"world"


@pytest.mark.parametrize("size", [1000, 700_000])
def test_closed_by_children(mount: Mount, py: ForeignClient, size: int) -> None:
    """W1, W2: a child that ends closes the descriptor that it inherited.  That stores what was
    written by then, as a close does: others see that, whole, and in the end everything, once."""
    pieces = [bytes([number]) * size for number in range(6)]
    with open(mount.directory / "f", "wb", buffering=0) as file:
        for number, piece in enumerate(pieces):
            file.write(piece)
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
            assert py.get("f") == b"".join(pieces[: number + 1])
            assert os.fstat(file.fileno()).st_size == size * (number + 1)
    assert py.get("f") == b"".join(pieces)
    assert (mount.directory / "f").read_bytes() == b"".join(pieces)


def test_appended_by_many_children(mount: Mount, py: ForeignClient) -> None:
    """W1: what many children append to one redirection is stored now and then while that stays
    open, and whole when it is closed: the cost is that of the bytes, and not of their square."""
    piece = mount.directory.parent / "piece"
    piece.write_bytes(random.Random(1).randbytes(64 * 1024))
    before = py.api("STREAM.INFO")["state"]["last_seq"]
    script = f"for i in $(seq 200); do cat '{piece}'; done >'{mount.directory}/log'"
    run(["bash", "-c", script]).check()
    digest = hashlib.sha256(piece.read_bytes() * 200).digest()
    assert py.meta("log")["digest"] == "SHA-256=" + urlsafe_b64encode(digest).decode()
    chunks = 200 * 64 // 128
    assert py.api("STREAM.INFO")["state"]["last_seq"] - before < 10 * chunks


def test_the_last_descriptor_stores(mount: Mount, py: ForeignClient) -> None:
    """W1: a close that is not the last of what wrote may leave a little to the next one, whichever
    process that is of; the last one has stored everything when it returns."""
    path = mount.directory / "f"
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.write(file, BODY * 4)
    os.close(os.dup(file))
    assert py.meta("f")["size"] == 4 * len(BODY)
    os.write(file, b"little")
    waiting, go_on = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(go_on)
        os.read(waiting, 1)
        os._exit(0)
    os.close(file)
    assert py.meta("f")["size"] == 4 * len(BODY)
    reader = os.open(path, os.O_RDONLY)
    os.close(go_on)
    os.waitpid(child, 0)
    assert py.get("f") == BODY * 4 + b"little"
    os.close(reader)
    os.close(waiting)


def test_written_back_beside_children(mounter: Mounter, py: ForeignClient) -> None:
    """W8, W2: with writeback a small file is stored once, when its last descriptor is closed."""
    mount = mounter("-o", "writeback")
    before = py.api("STREAM.INFO")["state"]["last_seq"]
    script = f"{{ for i in 1 2 3 4 5 6; do echo $i; /bin/true; done; }} >'{mount.directory}/log'"
    run(["bash", "-c", script]).check()
    mount.stop()
    assert py.get("log") == b"1\n2\n3\n4\n5\n6\n"
    assert py.api("STREAM.INFO")["state"]["last_seq"] == before + 2  # a chunk and a meta


def test_parallel_writers_of_many_files(directory: Path) -> None:
    """W3: threads that write, rename and read files of one directory do not disturb each other."""
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(15):
                body = bytes([number]) * (turn * 3000 + 1)
                (directory / f"new-{number}").write_bytes(body)
                (directory / f"new-{number}").rename(directory / f"f-{number}")
                assert (directory / f"f-{number}").read_bytes() == body
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert not failures
    assert sorted(path.name for path in directory.iterdir()) == [f"f-{n}" for n in range(6)]


def test_unlinked_files_stay_open(directory: Path) -> None:
    """W5: after `unlink`, and after `rename` over it, an open file is readable and writable."""
    path = directory / "f"
    for remove in (path.unlink, lambda: (directory / "other").replace(path)):
        (directory / "other").write_bytes(b"other")
        path.write_bytes(BODY)
        with open(path, "r+b", buffering=0) as file:
            remove()
            assert os.pread(file.fileno(), 100, 3 * CHUNK) == BODY[3 * CHUNK : 3 * CHUNK + 100]
            os.pwrite(file.fileno(), b"written", 10)
            assert os.pread(file.fileno(), 7, 10) == b"written"
            file.truncate(50_000)
            os.fsync(file.fileno())
            assert os.fstat(file.fileno()).st_size == 50_000
    assert path.read_bytes() == b"other"
    assert not (directory / "other").exists()


def test_renamed_files_stay_open(directory: Path) -> None:
    """W5: what is written after a rename of the file or its directory has the new name."""
    (directory / "d").mkdir()
    with open(directory / "d/f", "wb", buffering=0) as file:
        file.write(b"one ")
        (directory / "d/f").rename(directory / "d/g")
        file.write(b"two ")
        (directory / "d").rename(directory / "e")
        file.write(b"three")
    assert (directory / "e/g").read_bytes() == b"one two three"
    assert [path.name for path in directory.rglob("*")] == ["e", "g"]


def test_unlinked_files_do_not_come_back(mount: Mount, py: ForeignClient) -> None:
    """W5: writing to a removed file and closing it stores nothing under its old name."""
    with open(mount.directory / "f", "wb", buffering=0) as file:
        file.write(b"x")
        (mount.directory / "f").unlink()
        file.write(b"y")
    assert py.names() == []
    mount.remount()
    assert list(mount.directory.iterdir()) == []
