"""stress-ng and fio on the mount: nothing fails, nothing reads other than it was written."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from .conftest import Mounter, required
from .mounting import Mount, run
from .trees import assert_same, tree

pytestmark = [pytest.mark.mount, pytest.mark.nightly]

#: stress-ng's class `filesystem` but for `NOT_ABOUT_FILES` and `WRONG`, then those of its other
#: stressors that work on files in their directory.  Not among them are io-uring, which fails on
#: every file system here (0.15.06 asks for the status of a file that it has removed), and
#: resources, which takes descriptors and memory from nats-server as well.
STRESSORS = (
    "access",
    "chattr",
    "chdir",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "dnotify",
    "dup",
    "fallocate",
    "fanotify",
    "fcntl",
    "fiemap",
    "file-ioctl",
    "filename",
    "flock",
    "fpunch",
    "fstat",
    "getdent",
    "handle",
    "hdd",
    "inode-flags",
    "inotify",
    "io",
    "iomix",
    "ioprio",
    "lease",
    "link",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "open",
    "rename",
    "symlink",
    "sync-file",
    "touch",
    "utime",
    "verity",
    "xattr",
    # The others.
    "aio",
    "aiol",
    "chroot",
    "close",
    "exec",
    "fault",
    "fifo",
    "landlock",
    "madvise",
    "mmap",
    "msync",
    "msyncmany",
    "readahead",
    "revio",
    "seek",
    "sendfile",
    "swap",
)

#: Members of the class that touch no file of the file system that they are pointed at: mounts of
#: `/` in a namespace, binder (a kernel option), eventfd(2), and reading /proc.
NOT_ABOUT_FILES = ("bind-mount", "binderfs", "eventfd", "procfs")

#: fsize judges RLIMIT_FSIZE by fallocate(2), which FUSE has only where the library offers it, and
#: pyfuse3 does not; its own substitute seeks, writes nothing and reports success (0.15.06), so
#: that it fails on any such file system.  test_posix_files has RLIMIT_FSIZE.
WRONG = ("fsize",)

#: What must say that the file system, or root, is not for it, instead of failing.
REFUSED: Mapping[str, str] = {
    "fiemap": "FS_IOC_FIEMAP not supported on the file system",
    "verity": "verity is not supported on the file system",
    "swap": "cannot enable swap file on the filesystem",
    "exec": "must not run as root",
}

#: They count no rounds, on no file system.
UNCOUNTED = ("inode-flags",)

#: Amounts that fit into `EACH` seconds where each write may become a publish.
SIZES = (
    *("--hdd-bytes", "32M", "--iomix-bytes", "16M", "--fallocate-bytes", "8M"),
    *("--sync-file-bytes", "8M", "--seek-size", "8M", "--readahead-bytes", "16M"),
    *("--copy-file-bytes", "128M", "--mmap-file", "--mmap-bytes", "8M", "--msync-bytes", "8M"),
)

#: Seconds for one stressor, for one that did not get through a round in them (xattr sets 4,096
#: attributes of one file, each of which is a meta with all before it), and for all at once.
EACH = 3
PATIENT = 180
TOGETHER = 30

#: Bytes of resident memory that no stressor may make a daemon use.
MEMORY_LIMIT = 256 * 1024 * 1024


def program(name: str) -> str:
    """The path of a program; skips the test where it is missing."""
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is missing: install the Debian package of that name"
        if required(name):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def stress(mount: Mount, *selection: str, seconds: int) -> tuple[int, str]:
    """The exit status of stress-ng below *mount* and what it said, which must be no failure."""
    command = [
        program("stress-ng"),
        *(*selection, *SIZES, "--timeout", f"{seconds}s", "--verify", "--metrics-brief"),
        *("--temp-path", os.fspath(mount.directory)),
    ]
    done = run(command, timeout=seconds + 150)
    assert not re.findall(r"^stress-ng: fail:.*", done.err, re.MULTILINE), done.err
    assert os.listdir(mount.directory) == []
    assert mount.peak_memory() < MEMORY_LIMIT
    return done.status, done.err


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", STRESSORS)
def test_stressor(mounter: Mounter, name: str) -> None:
    """W3: the stressor does something, finds no failure, and what it uses is removed."""
    mount = mounter(life=380.0)
    if not _stressed(mount, name, EACH):
        assert _stressed(mount, name, PATIENT)


def _stressed(mount: Mount, name: str, seconds: int) -> bool:
    """Whether the stressor came to the end of a round, or cannot: it counts none, or has said that
    the file system is not for it."""
    status, said = stress(mount, f"--{name}", "1", seconds=seconds)
    if name in REFUSED and REFUSED[name] in said:
        return True
    assert status == 0, said
    if name in UNCOUNTED:
        return True
    done = re.search(rf"^stress-ng: metrc: \[\d+\] {name} +(\d+) ", said, re.MULTILINE)
    return done is not None and int(done[1]) > 0


@pytest.mark.timeout(400)
def test_all_stressors_at_once(mounter: Mounter) -> None:
    """W3: and so do all of class `filesystem` at the same time.

    But for file-ioctl, which takes the size of a file that it makes by the same substitute for
    fallocate: that stops half-way when the time is over, and reports success.  And for inotify,
    which waits a second for each event, while forty others take their turns.
    """
    excluded = ",".join((*NOT_ABOUT_FILES, *WRONG, "file-ioctl", "inotify"))
    selection = ("--class", "filesystem", "--all", "1", "--exclude", excluded)
    status, said = stress(mounter(life=380.0), *selection, seconds=TOGETHER)
    assert status == 0, said


#: Stressors that are told to leave what they made: files with the oddest names, deep directories,
#: links, FIFOs, sockets, devices.
LEAVING = (
    "dir",
    "dirdeep",
    "fifo",
    "filename",
    "hdd",
    "link",
    "mknod",
    "rename",
    "seek",
    "symlink",
)


@pytest.mark.timeout(500)
def test_what_stressors_leave(mounter: Mounter) -> None:
    """W1: all that they leave is the same after a remount, and in a second mount of the bucket."""
    mount = mounter(life=480.0)
    for name in LEAVING:
        command = [program("stress-ng"), f"--{name}", "1", "--keep-files", "--timeout", "2s"]
        command += ["--hdd-bytes", "4M", "--seek-size", "1M", "--temp-path", str(mount.directory)]
        run(command).check()
    left = tree(mount.directory)
    assert {entry.kind for entry in left.values()} >= set("-dlp")
    mount.remount()
    assert_same(left, tree(mount.directory))
    assert_same(left, tree(mounter(life=480.0).directory))
    run(["rm", "-rf", *mount.directory.iterdir()]).check()
    assert os.listdir(mount.directory) == []


#: Every run writes, reads back and compares; together they mix sizes, orders, engines, holes.
VERIFICATIONS: Mapping[str, Sequence[str]] = {
    "sync": ("--rw=randwrite", "--bs=4k", "--verify=crc32c", "--fsync=500", "--ioengine=sync"),
    "psync": ("--rw=randwrite", "--bsrange=512-64k", "--verify=md5", "--ioengine=psync"),
    "pvsync": ("--rw=randwrite", "--bs=16k", "--verify=xxhash", "--ioengine=pvsync"),
    "pvsync2": ("--rw=write", "--bs=16k", "--verify=sha512", "--ioengine=pvsync2"),
    "mmap": ("--rw=randwrite", "--bs=4k", "--verify=crc32c", "--ioengine=mmap"),
    "libaio": ("--rw=randwrite", "--bs=4k", "--verify=md5", "--ioengine=libaio", "--iodepth=8"),
    "posixaio": ("--rw=randwrite", "--bs=8k", "--verify=crc64", "--ioengine=posixaio"),
    "uring": ("--rw=randwrite", "--bs=8k", "--verify=md5", "--ioengine=io_uring", "--iodepth=8"),
    "direct": ("--rw=write", "--bs=64k", "--verify=md5", "--direct=1", "--ioengine=libaio"),
    "direct-random": (
        *("--rw=randwrite", "--bs=4k", "--verify=crc32c", "--direct=1", "--ioengine=io_uring"),
        *("--iodepth=8",),
    ),
    "fallocated": ("--rw=write", "--bs=128k", "--verify=sha1", "--fallocate=posix"),
    "holes": ("--rw=write:24k", "--bs=8k", "--verify=crc32c", "--fallocate=truncate"),
    "unaligned": ("--rw=randwrite", "--bsrange=512-9000", "--bs_unaligned", "--verify=crc32c"),
    "several": ("--rw=randwrite", "--bs=4k", "--verify=sha256", "--numjobs=4"),
    "mixed": ("--rw=randrw", "--bsrange=1k-200k", "--verify=sha256", "--numjobs=2"),
}


def _fio(directory: Path, name: str, *options: str) -> None:
    command = [
        program("fio"),
        *("--name=verified", f"--directory={directory}", "--size=24m", "--verify_fatal=1"),
        "--verify_state_save=0",
        *(*VERIFICATIONS[name], *options),
    ]
    run(command, timeout=150).check()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", VERIFICATIONS)
def test_fio(mounter: Mounter, tmp_path: Path, name: str) -> None:
    """W3: fio reads back what it wrote, also without the page cache, after a remount, and through
    a second mount."""
    mount = mounter(life=280.0)
    _fio(mount.directory, name)
    for path in mount.directory.iterdir():
        # The kernel forgets clean pages, so that the second reading comes from the mount.
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    _fio(mount.directory, name, "--verify_only")
    mount.remount()
    _fio(mount.directory, name, "--verify_only")
    _fio(mounter(life=280.0).directory, name, "--verify_only")
    assert mount.peak_memory() < MEMORY_LIMIT


@pytest.mark.parametrize("name", VERIFICATIONS)
def test_fio_locally(tmp_path: Path, name: str) -> None:
    """The control: the same jobs, with the same verification, work on a local file system."""
    _fio(tmp_path, name)
    _fio(tmp_path, name, "--verify_only")
