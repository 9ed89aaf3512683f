"""Large files through a real mount: their bytes leave while a program writes them (W4)."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from natsfs.server import Server, start_server

from .conftest import Mounter
from .foreign import ForeignClient, py_client
from .mounting import COMMAND_TIMEOUT, Mount, run, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(180)]

MIB = 1024 * 1024

#: Several times what may wait in memory.
LARGE = 48 * MIB

#: Bytes by which one copy may enlarge a daemon: what waits of one file, 8 MiB, in the mount and in
#: sockets, and what Python keeps of it.
GROWTH = 48 * MIB


def pieces(size: int) -> Iterator[bytes]:
    """*size* bytes, 1 MiB at a time, no two alike."""
    block = random.Random(size).randbytes(MIB)
    for number in range(size // MIB):
        yield number.to_bytes(8, "big") + block[8:]


def stored_bytes(py: ForeignClient) -> int:
    """What the bucket's stream holds."""
    found: int = py.api("STREAM.INFO")["state"]["bytes"]
    return found


def spooled(mount: Mount) -> list[str]:
    """The files without a name that the daemon has on local disk."""
    found = []
    for descriptor in Path(f"/proc/{mount.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(os.readlink(descriptor))
    return [path for path in found if "/spool" in path]


class Program:
    """A program of its own that has a file open.  A test cannot have it open itself while it starts
    other programs: each of these begins with a copy of the descriptor, and closes it."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, statement: str) -> str:
        """Let it do something with its `file`; "done", or what the operating system said."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(statement + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        """End it and wait for that, which closes the file."""
        self._process.communicate(timeout=COMMAND_TIMEOUT)


_PROGRAM = """
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
for statement in sys.stdin:
    try:
        exec(statement)
        print("done", flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
"""


def writing(first: int, stop: int, size: int) -> str:
    """The statement that writes those MiB of the `pieces` of *size* bytes."""
    return (
        f"import random; block = random.Random({size}).randbytes({MIB}); "
        f"[os.write(file, n.to_bytes(8, 'big') + block[8:]) for n in range({first}, {stop})]"
    )


def digest_of(size: int) -> bytes:
    """The SHA-256 of all `pieces`."""
    digest = hashlib.sha256()
    for piece in pieces(size):
        digest.update(piece)
    return digest.digest()


def test_a_large_file_leaves_while_it_is_written(mount: Mount, py: ForeignClient) -> None:
    """W4, W2: most of a file is in the stream before close, nobody sees any of it, and neither
    memory nor local disk grows with it."""
    before = mount.peak_memory()
    with Program(mount.directory / "large") as program:
        assert program.do(writing(0, LARGE // MIB, LARGE)) == "done"
        assert stored_bytes(py) > LARGE - 16 * MIB
        assert py.names() == []
        assert spooled(mount) == []
    assert mount.peak_memory() - before < GROWTH
    info = py.info("large")
    assert (info["size"], info["chunks"]) == (LARGE, LARGE // (128 * 1024))
    assert hashlib.sha256(py.get("large")).digest() == digest_of(LARGE)
    with open(mount.directory / "large", "rb") as file:
        assert hashlib.file_digest(file, "sha256").digest() == digest_of(LARGE)


def test_copying_a_large_file(mount: Mount, py: ForeignClient, tmp_path: Path) -> None:
    """W4: cp of a large file over an old one; the old chunks go."""
    source, target = tmp_path / "source", mount.directory / "target"
    with open(source, "wb") as file:
        file.writelines(pieces(LARGE))
    target.write_bytes(b"old")
    before = mount.peak_memory()
    run(["cp", source, target]).check()
    assert mount.peak_memory() - before < GROWTH
    assert spooled(mount) == []
    run(["cmp", source, target]).check()
    assert hashlib.sha256(py.get("target")).digest() == hashlib.sha256(source.read_bytes()).digest()


def test_the_daemon_is_killed_half_way(mounter: Mounter, py: ForeignClient) -> None:
    """W2: a mount that is killed while it writes leaves the old object, whole."""
    mount = mounter()
    (mount.directory / "file").write_bytes(b"old")
    with Program(mount.directory / "file") as program:
        assert program.do(writing(0, 24, LARGE)) == "done"
        assert stored_bytes(py) > 8 * MIB
        mount.kill()
    assert py.get("file") == b"old"
    again = mounter()
    again.expect_trouble("wait in the journal")
    assert (again.directory / "file").read_bytes() == b"old"


def test_everything_that_is_done_to_a_file_on_its_way(directory: Path) -> None:
    """W3: seeking back, cutting, skipping, reading and appending, at any moment of a large write,
    do what they do on a local disk."""
    large = b"".join(pieces(12 * MIB))
    path = directory / "file"
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    other = os.open(path, os.O_RDWR | os.O_APPEND)
    expected = bytearray()
    try:
        for at in range(0, len(large), 300_000):
            os.write(file, large[at : at + 300_000])
        expected += large
        assert os.pread(other, 100, 5 * MIB) == expected[5 * MIB : 5 * MIB + 100]
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(other, 2 * MIB, MIB) == expected[MIB : 3 * MIB]
        os.write(other, b"appended")
        expected += b"appended"
        os.pwrite(file, b"skipped", len(expected) + 1000)
        expected += bytes(1000) + b"skipped"
        os.pwrite(file, b"header", 0)
        expected[:6] = b"header"
        assert os.pread(file, 10, 0) == expected[:10]
        os.ftruncate(file, 7 * MIB + 5)
        del expected[7 * MIB + 5 :]
        os.write(other, large[:MIB])
        expected += large[:MIB]
    finally:
        os.close(file)
        os.close(other)
    assert path.read_bytes() == expected
    assert path.stat().st_size == len(expected)


def test_cut_and_begun_again(mount: Mount, py: ForeignClient) -> None:
    """W3, W6: a file that is cut to nothing while it is on its way begins anew, and the chunks of
    what it was go."""
    size = 3 * MIB
    with Program(mount.directory / "file") as program:
        assert program.do(writing(0, 20, LARGE)) == "done"
        assert stored_bytes(py) > 4 * MIB
        assert program.do("os.lseek(file, 0, os.SEEK_SET); os.ftruncate(file, 0)") == "done"
        assert program.do(writing(0, 3, size)) == "done"
    assert py.get("file") == b"".join(pieces(size))
    mount.stop()
    assert stored_bytes(py) < 1.1 * size


@pytest.mark.parametrize("last", ["unlink", "rename over", "rename", "fsync"])
def test_names_of_a_file_on_its_way(mount: Mount, py: ForeignClient, last: str) -> None:
    """W5: a file whose name goes, or changes, while its bytes leave is what its descriptor says."""
    data = b"".join(pieces(14 * MIB))
    path, other = mount.directory / "file", mount.directory / "other"
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.write(file, data[: 10 * MIB])
        match last:
            case "unlink":
                path.unlink()
            case "rename over":
                other.write_bytes(b"other")
                other.rename(path)
            case "rename":
                path.rename(other)
            case "fsync":
                os.fsync(file)
                assert py.get("file") == data[: 10 * MIB]
        for at in range(10 * MIB, 14 * MIB, 100_000):
            os.write(file, data[at : min(at + 100_000, 14 * MIB)])
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(file, 14 * MIB, 0)[: 14 * MIB] == data[: 14 * MIB]
    finally:
        os.close(file)
    expected = {
        "unlink": {},
        "rename over": {"file": b"other"},
        "rename": {"other": data},
        "fsync": {"file": data},
    }[last]
    assert {name: py.get(name) for name in py.names()} == expected
    mount.stop()
    assert stored_bytes(py) < sum(map(len, expected.values())) * 1.1 + MIB


def test_a_bucket_that_is_full(mounter: Mounter, py: ForeignClient) -> None:
    """E, W7: a write that finds the bucket full is ENOSPC before everything is written, and what
    was written is stored when there is room again."""
    py.reconfigure(max_bytes=40 * MIB)
    mount = mounter()
    mount.expect_trouble("maximum bytes exceeded|not saved yet|WARNING.*full")
    (mount.directory / "other").write_bytes(b"".join(pieces(20 * MIB)))
    written = 0
    file = os.open(mount.directory / "file", os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(OSError, match="No space"):  # noqa: PT012  (whichever write it is)
            for piece in pieces(64 * MIB):
                written += os.write(file, piece)
        assert 10 * MIB < written < 40 * MIB
        (mount.directory / "other").unlink()
    finally:
        os.close(file)
    assert py.names() == ["file"]
    assert py.info("file")["size"] == written


def test_the_server_is_away_for_a_while(
    mounter: Mounter, tmp_path: Path, environment: dict[str, str]
) -> None:
    """A5, W1: a large write goes through a crash and restart of the server."""
    server: Server = start_server(tmp_path / "store")
    try:
        client = py_client(server.url, environment).of("own")
        client.create()
        mount = mounter(source=f"{server.url}/own")
        mount.expect_trouble("lost the connection")
        with Program(mount.directory / "file") as program:
            assert program.do(writing(0, 20, LARGE)) == "done"
            # With the backlog full, the next write would wait for the server to come back.
            wait_until(lambda: stored_bytes(client) > 15 * MIB, "there is room for more")
            server.kill()
            assert program.do(writing(20, 21, LARGE)) == "done"
            server.restart()
            assert program.do(writing(21, LARGE // MIB, LARGE)) == "done"
        assert hashlib.sha256(client.get("file")).digest() == digest_of(LARGE)
        mount.stop()
    finally:
        server.kill()


def test_the_server_stays_away(
    mounter: Mounter, tmp_path: Path, environment: dict[str, str]
) -> None:
    """A5, W7: without a server a write fails when memory is full and the time-out over; what was
    taken until then is stored when the server is back."""
    server: Server = start_server(tmp_path / "store")
    try:
        client = py_client(server.url, environment).of("own")
        client.create()
        mount = mounter("--timeout", "3", source=f"{server.url}/own")
        mount.expect_trouble(".*")
        written = b""
        file = os.open(mount.directory / "file", os.O_WRONLY | os.O_CREAT)
        with pytest.raises(OSError, match="Input/output"):  # noqa: PT012  (whichever write it is)
            for number, piece in enumerate(pieces(64 * MIB)):
                if number == 20:
                    server.kill()
                written += piece[: os.write(file, piece)]
        assert len(written) < 40 * MIB
        with pytest.raises(OSError, match="Input/output"):
            os.close(file)
        server.restart()
        wait_until(lambda: client.names() == ["file"], "the file is saved")
        assert client.get("file") == written
        mount.stop()
    finally:
        server.kill()
