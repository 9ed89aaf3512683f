"""`natsfs gc` and `natsfs fsck` as a shell sees them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Mounter
from .foreign import ForeignClient
from .mounting import Mount, Result, natsfs_command, run, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

#: Runs a command on the test's bucket.
Command = Callable[..., Result]


@pytest.fixture
def natsfs(py: ForeignClient, environment: dict[str, str]) -> Command:
    def call(command: str, *options: str, source: str = "") -> Result:
        where = source or f"{py.url}/{py.bucket}"
        arguments = natsfs_command(command, where, *options)
        return run(arguments, env=environment, cwd=Path("/"), timeout=60)

    return call


def read(result: Result) -> Any:
    return json.loads(result.out)


def leave_chunks(py: ForeignClient, nuid: str) -> None:
    """What a writer leaves that dies before its meta."""
    py.publish(f"$O.{py.bucket}.C.{nuid}", b"x" * 1000)


def test_gc(mount: Mount, py: ForeignClient, natsfs: Command) -> None:
    """W6: `natsfs gc` says what a dead writer left, frees it when it is told to, and touches no
    file, whether it is being read or written."""
    body = os.urandom(300_000)
    (mount.directory / "kept").write_bytes(body)
    leave_chunks(py, "A" * 22)
    told = natsfs("gc", "--min-age=0s").check()
    assert re.search(r"^chunks without an object +1 +1000 B$", told, re.MULTILINE)
    assert "Nothing was changed; --delete frees it." in told
    assert read(natsfs("gc", "--min-age=0s", "--json"))["chunks"][0]["nuid"] == "A" * 22
    assert natsfs("gc", "--min-age=0s", "--delete").check().endswith("Freed 1000 B.\n")
    assert read(natsfs("gc", "--min-age=0s", "--json"))["chunks"] == []
    assert (mount.directory / "kept").read_bytes() == body
    assert py.get("kept") == body


def test_gc_after_a_crash(mounter: Mounter, py: ForeignClient, natsfs: Command) -> None:
    """W4, W6: what had left of a large file when the daemon was killed is freed, all of it, once
    nobody wants the rest any more, which the journal has (W7)."""

    def stored() -> int:
        found: int = py.api("STREAM.INFO")["state"]["bytes"]
        return found

    mount = mounter()
    writer = subprocess.Popen(["dd", "if=/dev/zero", f"of={mount.directory / 'file'}", "bs=1M"])
    try:
        wait_until(lambda: stored() > 16 * 1024 * 1024, "the file leaves")
        mount.kill()
    finally:
        writer.kill()
        writer.wait()
    freed = natsfs("gc", "--min-age=0s", "--delete").check()
    assert "1 versions are left alone: files in journals of this host need them" in freed
    assert read(natsfs("gc", "--min-age=0s", "--json"))["waiting"] == 1
    assert stored() > 16 * 1024 * 1024
    natsfs("recover", "--unfinished=discard").check()
    left = read(natsfs("gc", "--min-age=0s", "--delete", "--json"))
    assert len(left["chunks"]) + left["waiting"] <= 1
    assert stored() < 100_000
    # dd closes a copy of its descriptor before it writes: that stored an empty file.
    assert py.get("file") == b""


def test_gc_waits(py: ForeignClient, natsfs: Command) -> None:
    """W6: without an age, nothing is freed that somebody may be writing."""
    leave_chunks(py, "A" * 22)
    told = natsfs("gc", "--delete").check()
    assert "1 versions without an object are too young to judge." in told
    assert "Freed 0 B." in told
    assert read(natsfs("gc", "--json"))["young"] == 1


def test_gc_names_what_blocks_it(py: ForeignClient, natsfs: Command) -> None:
    """E: one line says which object cannot be understood."""
    leave_chunks(py, "A" * 22)
    py.publish(py.meta_subject("broken"), b"{")
    result = natsfs("gc", "--min-age=0s", "--delete")
    assert result.status == 0
    assert py.meta_subject("broken") in result.err
    assert result.err.count("\n") == 1
    assert "Freed 0 B." in result.out


def test_gc_refuses_a_part(py: ForeignClient, natsfs: Command) -> None:
    """E: what has no name cannot be chosen by name."""
    result = natsfs("gc", source=f"{py.url}/{py.bucket}/d")
    assert result.status == 1
    assert "leave out the path" in result.err


def test_gc_in_a_sealed_bucket(py: ForeignClient, natsfs: Command) -> None:
    """A6: a sealed bucket can be looked at, and says that nothing can be freed."""
    leave_chunks(py, "A" * 22)
    py.seal()
    assert len(read(natsfs("gc", "--min-age=0s", "--json"))["chunks"]) == 1
    result = natsfs("gc", "--min-age=0s", "--delete")
    assert result.status == 1
    assert "sealed" in result.err
    assert result.err.count("\n") == 1


def test_fsck(mount: Mount, py: ForeignClient, natsfs: Command) -> None:
    """R3: fsck names what is damaged, with exit status 4, and puts it aside when it is told to; a
    mount follows."""
    for name in ("sound", "broken"):
        (mount.directory / name).write_bytes(os.urandom(300_000))
    assert natsfs("fsck").check().startswith("2 objects checked, 586 KiB read: nothing is wrong")
    nuid = py.meta("broken")["nuid"]
    py.api("STREAM.PURGE", filter=f"$O.{py.bucket}.C.{nuid}")
    for options in ((), ("--quick",)):
        result = natsfs("fsck", *options)
        assert result.status == 4
        assert result.out.startswith("broken: 3 of 3 chunks are missing\n")
    # A directory of the mount names the bucket as well.
    result = natsfs("fsck", "--repair", "--json", source=str(mount.directory))
    assert result.status == 4
    assert read(result)["problems"][0]["moved_to"] == "lost+found/broken"
    assert py.names() == ["lost+found/broken", "sound"]
    assert sorted(os.listdir(mount.directory)) == ["lost+found", "sound"]
