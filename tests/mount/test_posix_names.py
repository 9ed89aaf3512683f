"""Calls on names: what they refuse with which errno, renames, and directories that change while
they are read.

Every test runs on a local file system first, as the control.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import Mounter
from .mounting import refused, wait_until
from .syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, link, renameat2

pytestmark = pytest.mark.mount

#: Bytes of the longest component and, with the NUL, of the longest path.
NAME_MAX, PATH_MAX = 255, 4096


@pytest.fixture(params=["local", "mount"])
def exchanging(request: pytest.FixtureRequest, tmp_path: Path, nats_url: str) -> Path:
    """As `directory`, in a bucket that natsfs created: only those have atomic batches (A2)."""
    if request.param == "local":
        local = tmp_path / "local"
        local.mkdir()
        return local
    mounter: Mounter = request.getfixturevalue("mounter")
    return mounter("--create", source=f"{nats_url}/b-{uuid.uuid4().hex[:12]}").directory


# -- every call, on every wrong name --------------------------------------------------------------

CREATORS: dict[str, Callable[[Path], object]] = {
    "open": lambda path: os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
    "mkdir": os.mkdir,
    "mkfifo": os.mkfifo,
    "mknod": lambda path: os.mknod(path, stat.S_IFREG | 0o600),
    "symlink": lambda path: os.symlink("x", path),
    "link": lambda path: os.link("file", path),
    "rename": lambda path: renameat2("file", path, RENAME_NOREPLACE),
}

USERS: dict[str, Callable[[Path], object]] = {
    "stat": os.stat,
    "lstat": os.lstat,
    "open": lambda path: os.close(os.open(path, os.O_RDONLY)),
    "unlink": os.unlink,
    "rmdir": os.rmdir,
    "chmod": lambda path: os.chmod(path, 0o600),
    "chown": lambda path: os.chown(path, -1, -1),
    "truncate": lambda path: os.truncate(path, 0),
    "utime": lambda path: os.utime(path, (1, 1)),
    "readlink": os.readlink,
    "listdir": os.listdir,
    "link from": lambda path: os.link(path, "other"),
    "rename from": lambda path: os.rename(path, "other"),
    "setxattr": lambda path: os.setxattr(path, "user.a", b""),
    "getxattr": lambda path: os.getxattr(path, "user.a"),
    "listxattr": os.listxattr,
    "removexattr": lambda path: os.removexattr(path, "user.a"),
    "chdir": os.chdir,
    "statvfs": os.statvfs,
}


@pytest.fixture
def here(directory: Path) -> Iterator[Path]:
    """A file, a directory and links that lead nowhere, and the working directory of the test."""
    before = Path.cwd()
    os.chdir(directory)
    Path("file").write_bytes(b"content")
    Path("directory").mkdir()
    Path("loop").symlink_to("loop")
    Path("a").symlink_to("b")
    Path("b").symlink_to("a")
    yield Path()
    os.chdir(before)


@pytest.mark.parametrize("name", [*CREATORS, *USERS])
def test_wrong_paths(here: Path, name: str) -> None:
    """N1: a path through nothing, a file or a loop, and one too long, is refused by every call."""
    call = CREATORS.get(name) or USERS[name]
    assert refused(lambda: call(here / "nothing/x")) == "ENOENT"
    assert refused(lambda: call(here / "file/x")) == "ENOTDIR"
    assert refused(lambda: call(here / "loop/x")) == "ELOOP"
    assert refused(lambda: call(here / "a/x")) == "ELOOP"
    assert refused(lambda: call(here / ("x" * (NAME_MAX + 1)))) == "ENAMETOOLONG"
    assert refused(lambda: call(here / "directory" / ("x" * (NAME_MAX + 1)) / "y")) == (
        "ENAMETOOLONG"
    )
    assert refused(lambda: call(Path("x/" * (PATH_MAX // 2)))) in ("ENAMETOOLONG", "ENOENT")
    assert refused(lambda: call(Path("./" + "directory/../" * 400))) == "ENAMETOOLONG"


@pytest.mark.parametrize("name", CREATORS)
def test_existing_names(here: Path, name: str) -> None:
    """A3: what exists, a dangling link included, is EEXIST to all that create."""
    for existing in ("directory", "loop", "file" if name != "rename" else "directory"):
        path = here / existing
        assert refused(lambda path=path: CREATORS[name](path)) == "EEXIST"  # type: ignore[misc]


@pytest.mark.parametrize("name", [name for name in USERS if name != "lstat"])
def test_missing_names(here: Path, name: str) -> None:
    """N1: what does not exist is ENOENT to all that use."""
    assert refused(lambda: USERS[name](here / "nothing")) == "ENOENT"


@pytest.mark.parametrize("name", CREATORS)
def test_longest_names(here: Path, name: str) -> None:
    """N4: a component of 255 bytes, in characters of several bytes too, can be created."""
    for component in ("x" * NAME_MAX, "ü" * (NAME_MAX // 2), "\udcff" * NAME_MAX):
        Path("file").touch()
        CREATORS[name](here / component)
        assert component in os.listdir(here)
        path = here / component
        path.rmdir() if path.is_dir() else path.unlink()


def test_longest_path(here: Path, request: pytest.FixtureRequest) -> None:
    """N4: a path of 4,095 bytes works; in a bucket, where the name of an object goes on the control
    line of NATS in base64 (4,096 bytes), one of 2,800, and a longer one is refused at once."""
    mounted = "mount" in request.node.callspec.id
    longest = 2800 if mounted else PATH_MAX - 1
    deep = here
    while len(os.fspath(deep)) < longest - 500:
        deep = deep / ("d" * 240)
    deep.mkdir(parents=True)
    path = deep / "x"
    while len(os.fspath(path)) + 100 < longest:
        path = path.with_name("e" * 50) / "x"
        path.parent.mkdir()
    path = path.with_name("f" * (longest - len(os.fspath(path.parent)) - 1))
    path.write_bytes(b"deep")
    assert path.read_bytes() == b"deep"
    far = path.with_name("g" * NAME_MAX) if mounted else Path(f"{path}x")
    assert refused(far.touch) == "ENAMETOOLONG"


def test_longest_link(here: Path) -> None:
    """K6: a target of 4,095 bytes is kept, of more is ENAMETOOLONG, of none ENOENT."""
    target = "t/" * (PATH_MAX // 2 - 1) + "t"
    os.symlink(target, here / "long")
    assert os.readlink(here / "long") == target
    assert (here / "long").lstat().st_size == PATH_MAX - 1
    assert refused(lambda: os.symlink(target + "t", here / "longer")) == "ENAMETOOLONG"
    assert refused(lambda: os.symlink("", here / "empty")) == "ENOENT"


def test_forty_links(here: Path) -> None:
    """K5: a chain of 40 links is followed, of 41 is ELOOP."""
    Path("0").write_bytes(b"found")
    for number in range(41):
        Path(f"{number + 1}").symlink_to(f"{number}")
    assert (here / "40").read_bytes() == b"found"
    assert refused((here / "41").read_bytes) == "ELOOP"


# -- kinds ----------------------------------------------------------------------------------------


def test_directories_are_no_files(here: Path) -> None:
    """N5: what only files or only directories can do is refused for the other."""
    directory, file = here / "directory", here / "file"
    assert refused(directory.unlink) == "EISDIR"
    assert refused(lambda: os.truncate(directory, 0)) == "EISDIR"
    assert refused(lambda: os.open(directory, os.O_WRONLY)) == "EISDIR"
    assert refused(lambda: os.link(directory, here / "l")) == "EPERM"
    assert refused(lambda: os.rename(file, directory)) == "EISDIR"
    assert refused(lambda: os.readlink(directory)) == "EINVAL"
    assert refused(file.rmdir) == "ENOTDIR"
    assert refused(lambda: os.listdir(file)) == "ENOTDIR"
    assert refused(lambda: os.rename(directory, file)) == "ENOTDIR"
    assert refused(lambda: os.readlink(file)) == "EINVAL"
    assert refused(lambda: os.stat("file/")) == "ENOTDIR"
    assert refused(lambda: os.mkdir("file/")) == "EEXIST"
    assert refused(lambda: os.rename("file", "new/")) == "ENOTDIR"
    assert refused(lambda: os.open("new/", os.O_CREAT | os.O_WRONLY)) == "EISDIR"


def test_dots(here: Path) -> None:
    """N1: `.` and `..` are there, and are neither removed, renamed nor created."""
    assert os.stat("directory/..").st_ino == os.stat(".").st_ino
    assert os.stat("directory/.").st_ino == os.stat("directory").st_ino
    assert refused(lambda: os.rmdir("directory/.")) == "EINVAL"
    assert refused(lambda: os.rmdir("directory/..")) == "ENOTEMPTY"
    assert refused(lambda: os.mkdir(".")) == "EEXIST"
    assert refused(lambda: os.mkdir("directory/..")) == "EEXIST"
    assert refused(lambda: os.rename("directory/.", "x")) == "EBUSY"
    assert refused(lambda: os.rename("file", "directory/..")) == "EBUSY"
    assert refused(lambda: os.unlink("directory/.")) == "EISDIR"


def test_removal_of_directories(here: Path) -> None:
    """N5: only empty directories go; one that somebody is in loses its name and takes no entry."""
    (here / "directory/below").mkdir()
    assert refused(lambda: os.rmdir("directory")) == "ENOTEMPTY"
    assert refused(lambda: os.mkdir("directory")) == "EEXIST"
    (here / "directory/below").rmdir()
    inside = os.open("directory", os.O_RDONLY)
    try:
        (here / "directory").rmdir()
        assert os.fstat(inside).st_nlink == 0
        assert os.listdir(inside) == []
        assert refused(lambda: os.mkdir("x", dir_fd=inside)) == "ENOENT"
        create = os.O_CREAT | os.O_WRONLY
        assert refused(lambda: os.open("x", create, dir_fd=inside)) == "ENOENT"
        assert refused(lambda: os.symlink("x", "y", dir_fd=inside)) == "ENOENT"
        assert refused(lambda: os.link("file", "y", dst_dir_fd=inside)) == "ENOENT"
        assert refused(lambda: os.rename("file", "y", dst_dir_fd=inside)) == "ENOENT"
    finally:
        os.close(inside)


def test_link_counts_of_directories(here: Path) -> None:
    """N5: a directory has two links and one more for each directory in it."""
    counts = [os.stat("directory").st_nlink]
    os.mkdir("directory/a")
    os.mkdir("directory/b")
    Path("directory/f").touch()
    counts.append(os.stat("directory").st_nlink)
    os.rename("directory/a", "a2")
    counts.append(os.stat("directory").st_nlink)
    os.rmdir("directory/b")
    counts.append(os.stat("directory").st_nlink)
    assert counts == [2, 4, 3, 2]


def test_special_files(here: Path) -> None:
    """K8: FIFOs carry bytes between processes, sockets connections, and both are shown as such."""
    os.mkfifo(here / "fifo")
    reader = os.open(here / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(here / "fifo", os.O_WRONLY)
    os.write(writer, b"through")
    assert os.read(reader, 100) == b"through"
    os.close(writer)
    os.close(reader)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("socket")
        server.listen()
        client.connect("socket")
        accepted, _ = server.accept()
        client.sendall(b"through")
        assert accepted.recv(100) == b"through"
        accepted.close()
    assert stat.S_ISFIFO(os.lstat("fifo").st_mode)
    assert stat.S_ISSOCK(os.lstat("socket").st_mode)
    with socket.socket(socket.AF_UNIX) as second:
        assert refused(lambda: second.bind("socket")) == "EADDRINUSE"
        assert refused(lambda: second.connect("socket")) == "ECONNREFUSED"
    assert refused(lambda: os.open("socket", os.O_RDONLY)) == "ENXIO"
    assert refused(lambda: os.open("fifo", os.O_WRONLY | os.O_NONBLOCK)) == "ENXIO"


# -- rename and link ------------------------------------------------------------------------------


def test_rename_into_itself(here: Path) -> None:
    """A2: a directory goes neither into itself nor below, and its parent not onto it."""
    (here / "directory/below").mkdir()
    assert refused(lambda: os.rename("directory", "directory/x")) == "EINVAL"
    assert refused(lambda: os.rename("directory", "directory/below/x")) == "EINVAL"
    assert refused(lambda: os.rename("directory/below", "directory")) == "ENOTEMPTY"
    assert os.listdir(here / "directory") == ["below"]


def test_rename_over(here: Path) -> None:
    """A2: files replace files, directories empty directories, and nothing anything else."""
    (here / "full").mkdir()
    (here / "full/x").touch()
    (here / "empty").mkdir()
    assert refused(lambda: os.rename("directory", "full")) == "ENOTEMPTY"
    os.rename("full", "empty")
    assert os.listdir("empty") == ["x"]
    os.rename("file", "loop")
    assert (here / "loop").read_bytes() == b"content"
    assert refused(lambda: renameat2("loop", "empty", RENAME_NOREPLACE)) == "EEXIST"
    assert refused(lambda: renameat2("loop", "a", RENAME_NOREPLACE)) == "EEXIST"
    assert refused(lambda: renameat2("nothing", "a", RENAME_NOREPLACE)) == "ENOENT"


def test_exchange(exchanging: Path) -> None:
    """A2: RENAME_EXCHANGE swaps files, directories, and one for the other, and their ctimes."""
    file, full, empty = (exchanging / name for name in ("file", "full", "empty"))
    file.write_bytes(b"content")
    full.mkdir()
    (full / "x").write_bytes(b"below")
    empty.mkdir()
    before = file.stat()
    wait_until(lambda: time.time_ns() > before.st_ctime_ns + 20_000_000, "the next tick")
    renameat2(file, full, RENAME_EXCHANGE)
    assert full.read_bytes() == b"content"
    assert (file / "x").read_bytes() == b"below"
    assert full.stat().st_ino == before.st_ino
    assert full.stat().st_ctime_ns > before.st_ctime_ns
    renameat2(file, empty, RENAME_EXCHANGE)
    assert os.listdir(file) == []
    assert os.listdir(empty) == ["x"]
    assert refused(lambda: renameat2(file, exchanging / "no", RENAME_EXCHANGE)) == "ENOENT"
    assert refused(lambda: renameat2(empty, empty / "x", RENAME_EXCHANGE)) == "EINVAL"
    both = RENAME_EXCHANGE | RENAME_NOREPLACE
    assert refused(lambda: renameat2(file, empty, both)) == "EINVAL"


def test_hard_links(here: Path) -> None:
    """K7: all names are one file; it lives until the last one goes, whichever that is."""
    os.link("file", "directory/second")
    os.link("directory/second", "third")
    names = ("file", "directory/second", "third")
    assert {os.stat(name).st_nlink for name in names} == {3}
    assert len({os.stat(name).st_ino for name in names}) == 1
    os.chmod("third", 0o640)
    Path("directory/second").write_bytes(b"changed")
    os.unlink("file")
    os.rename("directory/second", "moved")
    assert Path("third").read_bytes() == b"changed"
    assert stat.S_IMODE(os.stat("moved").st_mode) == 0o640
    assert os.stat("moved").st_nlink == 2
    os.rename("third", "moved")  # the same file: nothing happens
    assert Path("third").exists()
    os.link("loop", "loop2", follow_symlinks=False)
    assert os.readlink("loop2") == "loop"
    assert os.lstat("loop").st_nlink == 2


def test_link_to_an_unlinked_file(here: Path) -> None:
    """W5: a file without a name gets no new one through /proc."""
    with open(here / "file", "rb") as file:
        (here / "file").unlink()
        source = f"/proc/self/fd/{file.fileno()}"
        assert refused(lambda: link(source, here / "again", follow_symlinks=True)) == "ENOENT"


# -- directories that change ----------------------------------------------------------------------


def test_listing_while_entries_come_and_go(here: Path) -> None:
    """N1: readdir shows what stays once each, whatever comes and goes beside it meanwhile."""
    kept = {f"kept-{number}" for number in range(3000)}
    for name in kept:
        (here / "directory" / name).touch()
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            for number in range(50):
                (here / f"directory/passing-{number}").touch()
            for number in range(50):
                (here / f"directory/passing-{number}").unlink()

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(5):
            names = [entry.name for entry in os.scandir(here / "directory")]
            assert len(names) == len(set(names))
            assert kept <= set(names)
    finally:
        stop.set()
        thread.join()


def test_removal_while_listing(here: Path) -> None:
    """N1: a program that removes what it lists gets all entries of a large directory."""
    for number in range(2000):
        (here / f"directory/{number}").touch()
    removed = 0
    with os.scandir(here / "directory") as listing:
        for entry in listing:
            os.unlink(entry.path)
            removed += 1
    assert removed == 2000
    assert os.listdir(here / "directory") == []


class _Stream:
    """A directory stream of the C library."""

    def __init__(self, path: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        for name, result in (("opendir", ctypes.c_void_p), ("readdir", ctypes.c_void_p)):
            getattr(self._libc, name).restype = result
        self._libc.telldir.restype = ctypes.c_long
        self._stream = ctypes.c_void_p(self._libc.opendir(os.fsencode(path)))
        assert self._stream.value

    def read(self) -> str | None:
        """The next name."""
        entry = self._libc.readdir(self._stream)
        # The name follows two numbers of 8 bytes, a length of 2 and a type of 1.
        return os.fsdecode(ctypes.string_at(entry + 19)) if entry else None

    def tell(self) -> int:
        """Where the stream is."""
        found: int = self._libc.telldir(self._stream)
        return found

    def seek(self, place: int) -> None:
        """Go back to where the stream was."""
        self._libc.seekdir(self._stream, ctypes.c_long(place))

    def close(self) -> None:
        """Close the stream."""
        self._libc.closedir(self._stream)


def test_seekdir(here: Path) -> None:
    """N1: seekdir goes back to what telldir said, also when an entry went meanwhile."""
    for number in range(500):
        (here / f"directory/{number}").touch()
    stream = _Stream(here / "directory")
    try:
        names, places = [], []
        while True:
            places.append(stream.tell())
            name = stream.read()
            if name is None:
                break
            names.append(name)
        assert sorted(names) == sorted([".", "..", *map(str, range(500))])
        for index in (0, 1, 250, 499, 501):
            stream.seek(places[index])
            assert stream.read() == names[index]
        gone = next(name for name in names[100:] if name not in (".", ".."))
        (here / "directory" / gone).unlink()
        stream.seek(places[300])
        assert stream.read() == names[300]
    finally:
        stream.close()


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.nightly)])
@pytest.mark.timeout(3600)
def test_many_entries(here: Path, count: int) -> None:
    """N1: all entries of a large directory are listed once each, found, and removed."""
    expected = {f"entry-{number:06}" for number in range(count)}
    for name in expected:
        os.mknod(here / "directory" / name)
    names = os.listdir(here / "directory")
    assert len(names) == len(expected)
    assert set(names) == expected
    assert (here / f"directory/entry-{count - 1:06}").stat().st_size == 0
    for name in names:
        os.unlink(here / "directory" / name)
    (here / "directory").rmdir()
