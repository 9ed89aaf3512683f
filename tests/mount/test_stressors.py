"""stress-ng and fio on the mount: nothing fails, nothing reads other than it was written."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from .conftest import Mounter, required
from .mounting import run

pytestmark = [pytest.mark.mount, pytest.mark.nightly]

#: Stressors that are not about the file system that they are pointed at, or need a block device;
#: copy-file insists on 128 MiB; fsize counts the refusals of its own substitute for fallocate as
#: failures (test_posix_files has RLIMIT_FSIZE).
NOT_HERE = "bind-mount,binderfs,copy-file,eventfd,fsize,ioprio,procfs"

#: Seconds for each stressor, of which there are about 40.
EACH = 2

#: Every run writes, reads back and compares; together they mix sizes, orders, engines and syncs.
VERIFICATIONS: Mapping[str, Sequence[str]] = {
    "random": ("--rw=randwrite", "--bs=4k", "--verify=crc32c", "--fsync=500"),
    "mixed": ("--rw=randrw", "--bsrange=1k-200k", "--verify=sha256", "--numjobs=2"),
    "mapped": ("--rw=randwrite", "--bs=4k", "--verify=crc32c", "--ioengine=mmap"),
    "direct": (
        "--rw=write",
        "--bs=64k",
        "--verify=md5",
        "--direct=1",
        "--ioengine=libaio",
        "--iodepth=8",
    ),
    "vectors": ("--rw=randwrite", "--bs=16k", "--verify=xxhash", "--ioengine=pvsync"),
    "fallocated": ("--rw=write", "--bs=128k", "--verify=sha1", "--fallocate=posix"),
}


def program(name: str) -> str:
    """The path of a program; skips the test where it is missing."""
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is missing: install the Debian package of that name"
        if required(name):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.mark.timeout(600)
def test_stress_ng(mounter: Mounter) -> None:
    """W3: stress-ng's file system stressors find no failure, and what they use is removed."""
    directory = mounter(life=580.0).directory
    sizes = ("--hdd-bytes", "32M", "--iomix-bytes", "16M", "--fallocate-bytes", "8M")
    command = [
        program("stress-ng"),
        *("--sequential", "1", "--class", "filesystem", "--exclude", NOT_HERE),
        *("--timeout", f"{EACH}s", "--verify", "--temp-path", os.fspath(directory)),
        *("--sync-file-bytes", "8M", *sizes),
    ]
    done = run(command, timeout=560)
    assert done.status == 0, done.err
    assert not re.findall(r"^stress-ng: (?:fail|error):.*", done.err, re.MULTILINE)
    assert os.listdir(directory) == []


@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", VERIFICATIONS)
def test_fio(directory: Path, name: str) -> None:
    """W3: fio reads back what it wrote, and what it wrote is there without the page cache."""
    command = [
        program("fio"),
        *("--name=verified", f"--directory={directory}", "--size=24m", "--verify_fatal=1"),
        *VERIFICATIONS[name],
    ]
    run(command, timeout=150).check()
    # The kernel forgets clean pages, so that the second reading comes from the mount.
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    run([*command, "--verify_only"], timeout=150).check()
