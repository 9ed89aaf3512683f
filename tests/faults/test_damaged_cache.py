"""A cache directory that is damaged, full, gone, or that does not answer: reads bring the right
bytes, writes are whole or fail, nobody waits, and the log has one line for each trouble.
"""

# ruff: noqa: F401, F811  (fixtures are found by their names)
from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from natsfs.data.cache import READ_DEADLINE
from natsfs.data.disk import REST
from tests.mount.conftest import Mounter, bucket, environment, mount, mounter, nats_url, py
from tests.mount.foreign import ForeignClient
from tests.mount.mounting import Mount, natsfs_command, refused, run, wait_until

from .objects import lines_with, put, visit
from .stranger import Stranger

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

MIB = 1024 * 1024

#: What the bucket has: more than one segment, exactly some blocks, and a bit of one.
SIZES = {"large": 18 * MIB + 5, "blocks": MIB, "small": 1000}


@pytest.fixture
def bodies(nats_url: str, bucket: str) -> dict[str, bytes]:
    """The bucket's objects, which the kernel and natsfs have not seen."""
    chance = random.Random(7)
    made = {name: chance.randbytes(size) for name, size in SIZES.items()}
    with Stranger(nats_url, bucket) as stranger:
        for name, body in made.items():
            put(stranger, name, body, 128 * 1024)
    return made


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The cache directory, which the mount is to make."""
    return tmp_path / "disk" / "cache"


def assert_right(mount: Mount, bodies: dict[str, bytes]) -> None:
    """Every file is what was put."""
    for name, body in bodies.items():
        assert (mount.directory / name).read_bytes() == body, name


def cached(cache: Path) -> list[Path]:
    """The files that blocks are in."""
    return sorted(path for path in cache.glob("blocks-2/*/*") if path.is_file())


def wait_for_cache(cache: Path) -> None:
    """Wait until what was read is on disk."""
    wait_until(
        lambda: sum(p.stat().st_blocks * 512 for p in cached(cache)) >= sum(SIZES.values()),
        "the cache",
    )


def assert_works(mount: Mount) -> None:
    """Small files, streams and renames are stored whatever the cache does."""
    body = os.urandom(3 * MIB)
    top = mount.directory
    (top / "new").write_bytes(b"new")
    (top / "stream").write_bytes(body)
    (top / "new").rename(top / "newer")
    assert (top / "newer").read_bytes() == b"new"
    assert (top / "stream").read_bytes() == body


def assert_whole(mount: Mount, name: str, before: bytes) -> None:
    """A change in the middle of a file, which needs the disk, is made or refused as a whole."""
    after = before[:100] + b"changed" + before[107:]
    try:
        with open(mount.directory / name, "r+b", buffering=0) as file:
            file.seek(100)
            file.write(b"changed")
    except OSError as error:
        assert error.errno in (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EFBIG)  # noqa: PT017
        after = before
    assert (mount.directory / name).read_bytes() == after


@contextmanager
def tmpfs(directory: Path, options: str) -> Iterator[Path]:
    """A small disk at *directory*."""
    directory.mkdir(parents=True, exist_ok=True)
    run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory]).check()
    try:
        yield directory
    finally:
        run(["umount", "-l", directory]).check()


# -- damage ---------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    """Change some bits, of the head and of the blocks."""
    data = bytearray(path.read_bytes())
    chance = random.Random(path.name)
    for _ in range(20):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        data[chance.randrange(min(200, len(data)))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def flip_one_block(path: Path) -> None:
    """Change one bit of the last bytes."""
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 64]))


def nightly(case: Callable[[Path], None]) -> ParameterSet:
    """*case* for the nights: it is much like the others."""
    return pytest.param(case, marks=pytest.mark.nightly)


def cut(path: Path) -> None:
    """Leave the first half."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    """Leave nothing."""
    os.truncate(path, 0)


def zero(path: Path) -> None:
    """What some file systems leave after a power cut."""
    path.write_bytes(bytes(path.stat().st_size))


def become_directory(path: Path) -> None:
    """Be something else."""
    path.unlink()
    path.mkdir()


def link_out(path: Path) -> None:
    """Lead to a file that is not the cache's."""
    path.unlink()
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    "damage", [flip, cut, link_out, *map(nightly, (flip_one_block, empty, zero, become_directory))]
)
def test_damaged_segments(
    mounter: Mounter, bodies: dict[str, bytes], cache: Path, damage: Callable[[Path], None]
) -> None:
    """R4: whatever has happened to the files of the cache, programs read the right bytes, and the
    log has one line; what was damaged is cached again."""
    mounted = mounter("--cache-dir", str(cache))
    assert_right(mounted, bodies)
    wait_for_cache(cache)
    mounted.stop()
    before = Path("/etc/passwd").read_bytes()
    for path in cached(cache):
        damage(path)
    mounted = mounter("--cache-dir", str(cache))
    mounted.expect_trouble("WARNING.*(damaged|cache.*pauses)")
    assert_right(mounted, bodies)
    assert_works(mounted)
    assert len(lines_with(mounted, " WARNING ")) <= 2
    assert Path("/etc/passwd").read_bytes() == before


#: Objects from which on the tree is kept on disk.
MANY = 5000


@pytest.mark.parametrize(
    "damage", [flip, cut, *map(nightly, (flip_one_block, empty, zero, become_directory))]
)
def test_damaged_snapshot(
    mounter: Mounter,
    nats_url: str,
    bucket: str,
    cache: Path,
    damage: Callable[[Path], None],
) -> None:
    """A6: a tree on disk that is damaged is not believed: the bucket is loaded anew, with one line
    in the log."""
    with Stranger(nats_url, bucket) as stranger:
        meta = f'{{"name":"d%d/f%d","bucket":"{bucket}","nuid":"%s","size":0,"chunks":0}}'
        stranger.store(
            [
                (stranger.subject(f"d{n % 7}/f{n}"), (meta % (n % 7, n, f"N{n:021}")).encode())
                for n in range(MANY)
            ]
        )
    mounter("--cache-dir", str(cache)).stop()
    (snapshot,) = [path for path in cache.glob("trees-*/*") if path.is_file()]
    damage(snapshot)
    mounted = mounter("--cache-dir", str(cache))
    mounted.expect_trouble("WARNING.*snapshot of the tree")
    shown = {
        f"{top.name}/{name}" for top in mounted.directory.iterdir() for name in os.listdir(top)
    }
    assert shown == {f"d{n % 7}/f{n}" for n in range(MANY)}
    assert len(lines_with(mounted, " WARNING ")) <= 1


# -- disks that are full, or cannot be written ---------------------------------------------------


@pytest.mark.parametrize("options", ["size=3m", "size=64k", "nr_inodes=4,size=64m"])
def test_full_disk(
    mounter: Mounter, bodies: dict[str, bytes], tmp_path: Path, options: str
) -> None:
    """E: a cache on a disk that is full, of bytes or of inodes, fails no read, and writes that
    need it are ENOSPC or EIO; with room, it works."""
    with tmpfs(tmp_path / "disk", f"{options},mode=700") as disk:
        mounted = mounter("--cache-dir", str(disk / "cache"))
        mounted.expect_trouble("WARNING.*(the cache .* pauses|journal)")
        mounted.expect_trouble("WARNING.*(local disk|spool|journal)")
        for _ in range(2):
            assert_right(mounted, bodies)
        assert_works(mounted)
        assert_whole(mounted, "large", bodies["large"])
        assert len(lines_with(mounted, "pauses")) <= 2
        run(["mount", "-o", "remount,size=200m,nr_inodes=10000", disk]).check()
        assert_whole(mounted, "blocks", bodies["blocks"])
        mounted.stop()


def test_full_to_the_last_byte(mounter: Mounter, bodies: dict[str, bytes], tmp_path: Path) -> None:
    """E: a disk that others fill while it is used, and shrink, is no trouble to readers."""
    with tmpfs(tmp_path / "disk", "size=60m,mode=700") as disk:
        mounted = mounter("--cache-dir", str(disk / "cache"))
        mounted.expect_trouble("WARNING.*(the cache .* pauses|journal)")
        mounted.expect_trouble("WARNING.*(local disk|spool|journal)")
        assert_right(mounted, bodies)
        wait_for_cache(disk / "cache")
        (disk / "others").write_bytes(bytes(30 * MIB))
        run(f"dd if=/dev/zero of={disk}/rest bs=4k 2>/dev/null")
        assert_works(mounted)
        assert_whole(mounted, "blocks", bodies["blocks"])
        assert_right(mounted, {"large": bodies["large"]})
        mounted.stop()


def test_read_only_disk(mounter: Mounter, bodies: dict[str, bytes], tmp_path: Path) -> None:
    """E: a cache directory on a disk that becomes read-only goes on to be read; one that was so
    from the start is no cache; neither keeps anybody from mounting, reading and storing."""
    with tmpfs(tmp_path / "disk", "size=200m,mode=700") as disk:
        mounted = mounter("--cache-dir", str(disk / "cache"))
        mounted.expect_trouble("WARNING.*(the cache .* pauses|journal)")
        mounted.expect_trouble("WARNING.*(local disk|spool|journal)")
        assert_right(mounted, {"large": bodies["large"]})
        run(["mount", "-o", "remount,ro", disk]).check()
        assert_right(mounted, bodies)
        assert_works(mounted)
        assert_whole(mounted, "blocks", bodies["blocks"])
        wait_until(lambda: len(lines_with(mounted, "pauses")) == 1, "the cache says that it pauses")
        mounted.stop()
        mounted = mounter("--cache-dir", str(disk / "cache"))
        mounted.expect_trouble("WARNING.*(the cache .* pauses|journal)")
        assert_right(mounted, bodies | {"blocks": (mounted.directory / "blocks").read_bytes()})
        assert_works(mounted)
        mounted.stop()
        for none in (disk / "none", disk / "cache" / "below" / "it"):
            mounted = mounter("--cache-dir", str(none))
            mounted.expect_trouble("WARNING.*(the cache .* pauses|journal)")
            assert_right(mounted, {"small": bodies["small"]})
            assert_works(mounted)
            mounted.stop()


# -- directories that change under the mount ------------------------------------------------------


def remove(cache: Path) -> None:
    """As a user does who needs the space, and does it again when it says "Directory not empty": the
    mount fills the cache meanwhile."""
    wait_until(lambda: _is_removed(cache), "the cache is gone")


def _is_removed(cache: Path) -> bool:
    try:
        shutil.rmtree(cache)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def remove_segments(cache: Path) -> None:
    """As a janitor does."""
    for path in cached(cache):
        path.unlink()


def put_file(cache: Path) -> None:
    """Something else is there now."""
    remove(cache)
    cache.write_bytes(b"not a directory")


def link_away(cache: Path) -> None:
    """It was moved to another disk."""
    elsewhere = cache.with_name("elsewhere")
    cache.rename(elsewhere)
    cache.symlink_to(elsewhere)


def link_nowhere(cache: Path) -> None:
    """The other disk is not there."""
    remove(cache)
    cache.symlink_to(cache.with_name("absent"))


def give_away(cache: Path) -> None:
    """Somebody else owns it now."""
    for path in (cache, *cache.rglob("*")):
        os.chown(path, 65534, 65534)


@pytest.mark.parametrize(
    "change",
    [remove, put_file, give_away, *map(nightly, (remove_segments, link_away, link_nowhere))],
)
def test_changed_under_the_mount(
    mounter: Mounter, bodies: dict[str, bytes], cache: Path, change: Callable[[Path], None]
) -> None:
    """R4: a cache directory that is removed or replaced under the mount changes no byte; what is
    written meanwhile is stored or refused."""
    mounted = mounter("--cache-dir", str(cache))
    mounted.expect_trouble("WARNING.*(the cache .* pauses|journal)")
    mounted.expect_trouble("WARNING.*(local disk|spool|journal)")
    with open(mounted.directory / "blocks", "r+b", buffering=0) as file:
        file.seek(100)
        file.write(b"before ")  # in the middle of a change
        assert_right(mounted, {"large": bodies["large"], "small": bodies["small"]})
        wait_until(lambda: cached(cache), "the cache")
        change(cache)
        file.write(b"after")
    changed = bodies["blocks"][:100] + b"before after" + bodies["blocks"][112:]
    everything = bodies | {"blocks": changed}
    assert_right(mounted, everything)
    assert_works(mounted)
    assert_whole(mounted, "small", bodies["small"])
    assert len(lines_with(mounted, "pauses")) <= 2
    mounted.stop()
    everything["small"] = b""
    mounted = mounter("--cache-dir", str(cache))
    mounted.expect_trouble("WARNING.*(the cache .* pauses|journal)")
    del everything["small"]
    assert_right(mounted, everything)


def test_other_versions(mounter: Mounter, bodies: dict[str, bytes], cache: Path) -> None:
    """R4: what a later natsfs keeps in the same directory, and what nobody knows, stays there."""
    foreign = {
        "blocks-99/ab/x": b"later",
        "trees-99/y": b"later",
        "blocks-2/README": b"unknown",
        "blocks-2/ab/not-a-segment": b"unknown",
        "blocks-x/z": b"unknown",
        "notes.txt": b"unknown",
        "spool/other": b"unknown",
    }
    for name, body in foreign.items():
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(body)
    mounted = mounter("--cache-dir", str(cache), "--cache-size", "2M")
    assert_right(mounted, bodies)
    assert_works(mounted)
    mounted.stop()
    assert {name: (cache / name).read_bytes() for name in foreign} == foreign


def test_shared_with_one_that_is_killed(
    mounter: Mounter, bodies: dict[str, bytes], cache: Path
) -> None:
    """R4: several mounts write the same cache at once, one is killed in the middle: the others,
    and the next, read right bytes."""
    options = ("--cache-dir", str(cache), "--cache-size", "20M")
    mounts = [mounter(*options) for _ in range(3)]
    with ThreadPoolExecutor(4) as readers:
        reading = [readers.submit(assert_right, one, bodies) for one in mounts[1:] * 2]
        doomed = readers.submit(lambda: (mounts[0].directory / "large").read_bytes())
        wait_until(lambda: cached(cache), "the first segment")
        mounts[0].kill()
        assert doomed.exception() is None or isinstance(doomed.exception(), OSError)
        for one in reading:
            one.result()
    assert_right(mounter(*options), bodies)


# -- disks that fail or hang ----------------------------------------------------------------------


@pytest.fixture
def bound(tmp_path: Path, cache: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A file system of its own process at *cache*; skips where bindfs is missing."""
    if shutil.which("bindfs") is None:
        pytest.skip("bindfs is missing")
    (tmp_path / "behind").mkdir(mode=0o700)
    cache.mkdir(parents=True, mode=0o700)
    with subprocess.Popen(["bindfs", "-f", tmp_path / "behind", cache]) as process:
        wait_until(lambda: os.path.ismount(cache), "bindfs")
        try:
            yield process
        finally:
            process.kill()
            run(["umount", "-l", cache])


def test_disk_that_dies(
    mounter: Mounter, bodies: dict[str, bytes], cache: Path, bound: subprocess.Popen[bytes]
) -> None:
    """E: a cache whose disk fails with every call is as good as none."""
    mounted = mounter("--cache-dir", str(cache))
    mounted.expect_trouble("WARNING.*(the cache .* pauses|journal)")
    mounted.expect_trouble("WARNING.*(local disk|spool|journal)")
    assert_right(mounted, {"large": bodies["large"]})
    bound.kill()
    bound.wait()
    assert_right(mounted, bodies)
    assert_works(mounted)
    assert_whole(mounted, "blocks", bodies["blocks"])
    assert len(lines_with(mounted, "pauses")) <= 2


def test_disk_that_hangs(
    mounter: Mounter, bodies: dict[str, bytes], cache: Path, bound: subprocess.Popen[bytes]
) -> None:
    """E: a cache whose disk does not answer delays a reader by seconds, once, and nobody else."""
    mounted = mounter("--cache-dir", str(cache))
    mounted.expect_trouble("WARNING.*(the cache .* pauses|journal)")
    assert_right(mounted, {"large": bodies["large"]})
    wait_until(lambda: cached(cache), "the cache")
    bound.send_signal(signal.SIGSTOP)
    try:
        assert_right(mounted, bodies)
        assert_works(mounted)
        assert len(lines_with(mounted, "pauses")) <= 2
    finally:
        bound.send_signal(signal.SIGCONT)


#: Seconds that a write may wait for a disk that hangs, on a busy machine: it is given up after 2.
GIVEN_UP = 8.0

#: Writes a file in pieces, overwrites a part of another one, and says what that came to.
WRITER = """
import os, sys
top = sys.argv[1]
with open(f"{top}/written", "wb", buffering=0) as file:
    for _ in range(3):
        file.write(b"piece" * 20000)
print("written")
try:
    with open(f"{top}/blocks", "r+b", buffering=0) as file:
        file.seek(100)
        file.write(b"changed")
    print("changed")
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.parametrize("half", [False, True], ids=["nothing is open", "a file is half written"])
def test_a_write_to_a_disk_that_hangs(
    half: bool,
    mounter: Mounter,
    bodies: dict[str, bytes],
    cache: Path,
    bound: subprocess.Popen[bytes],
    py: ForeignClient,
) -> None:
    """E, W7: who writes to a disk that hangs since nobody uses it waits for seconds and goes on
    without it; what the disk alone has is an error; nobody else waits, and all is well when it
    answers again."""
    mounted = mounter("--cache-dir", str(cache))
    mounted.expect_trouble("WARNING.*(the cache .* pauses|journal|local disk)|ERROR.*local disk")
    top = mounted.directory
    (top / "before").write_bytes(b"before")  # so there is a journal
    with ExitStack() as stack:
        spooled = stack.enter_context(open(top / "large", "r+b", buffering=0))
        if half:
            spooled.write(b"changed")
        time.sleep(2 * REST)  # for so long nobody uses the disk
        bound.send_signal(signal.SIGSTOP)
        stack.callback(bound.send_signal, signal.SIGCONT)
        command = [sys.executable, "-c", WRITER, str(top)]
        begin = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            while writer.poll() is None:
                asked = time.monotonic()
                os.getxattr(top / "small", "user.nats.nuid")  # which the kernel does not keep
                assert time.monotonic() - asked < READ_DEADLINE
                assert asked - begin < GIVEN_UP
            assert writer.stdout is not None
            assert writer.stdout.read() == f"written\n{os.strerror(errno.EIO)}\n"
        assert py.get("written") == b"piece" * 60000
        if half:
            with pytest.raises(OSError, match="Input/output"):
                spooled.write(b"more")
        bound.send_signal(signal.SIGCONT)
        wait_until(lambda: works(top / "blocks"), "the disk is used again")
    assert_works(mounted)
    assert py.get("blocks") == b"again" + bodies["blocks"][5:]
    assert py.get("large")[7:] == bodies["large"][7:]
    assert len(lines_with(mounted, "journal cannot be written")) == 1


def works(path: Path) -> bool:
    """Whether a file can be changed in the middle, for which the disk is needed."""
    try:
        with open(path, "r+b", buffering=0) as file:
            file.write(b"again")
    except OSError:
        return False
    return True


# -- limits of the daemon -------------------------------------------------------------------------


def limit(mount: Mount, what: str, value: int) -> None:
    """Set a soft limit of the daemon."""
    run(["prlimit", f"--pid={mount.pid}", f"--{what}={value}:"]).check()


def test_no_descriptors_left(
    mounter: Mounter, bodies: dict[str, bytes], cache: Path, environment: dict[str, str]
) -> None:
    """E: a daemon without a descriptor to spare reads, stores, and answers again when it has."""
    mounted = mounter("--cache-dir", str(cache))
    mounted.expect_trouble("WARNING.*(pauses|local disk|journal|cannot be accepted)")
    assert_right(mounted, {"small": bodies["small"]})
    limit(mounted, "nofile", 1 + max(map(int, os.listdir(f"/proc/{mounted.pid}/fd"))))
    assert_right(mounted, bodies)
    assert_works(mounted)
    assert_whole(mounted, "blocks", bodies["blocks"])
    status = natsfs_command("status", mounted.directory)
    limit(mounted, "nofile", 3)  # below all that are open, so that there is none for a client
    run(status, env=environment, timeout=60)
    wait_until(lambda: lines_with(mounted, "cannot be accepted"), "the line")
    limit(mounted, "nofile", 1000)
    assert run(status, env=environment, timeout=60).status == 0
    assert_works(mounted)
    assert len(lines_with(mounted, "cannot be accepted")) == 1
    assert len(lines_with(mounted, "pauses")) <= 2


def test_files_of_limited_size(mounter: Mounter, bodies: dict[str, bytes], cache: Path) -> None:
    """E: a limit on the size of files, and the signal that comes with it, do not end the daemon."""
    mounted = mounter("--cache-dir", str(cache))
    mounted.expect_trouble("WARNING.*(the cache .* pauses|journal)")
    mounted.expect_trouble("WARNING.*(local disk|spool|journal)")
    limit(mounted, "fsize", 64 * 1024)
    assert_right(mounted, bodies)
    assert_works(mounted)
    assert_whole(mounted, "large", bodies["large"])
    assert len(lines_with(mounted, "pauses")) <= 1
