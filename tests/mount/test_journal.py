"""What survives the daemon: real mounts, killed while programs write, and servers that are away."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from natsfs.server import Server, start_server
from tests.faults.stranger import Stranger

from .conftest import Mounter
from .foreign import ForeignClient, py_client
from .mounting import Mount, Result, natsfs_command, run, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(180)]

MIB = 1024 * 1024


@dataclass
class Host:
    """A server of the test's own with one bucket, mounts of it, and the natsfs command."""

    server: Server
    client: ForeignClient
    mounter: Mounter
    environment: dict[str, str]

    @property
    def source(self) -> str:
        return f"{self.server.url}/own"

    def mount(self, *options: str, trouble: str = ".*") -> Mount:
        mount = self.mounter("--timeout=2", *options, source=self.source)
        mount.expect_trouble(trouble)
        return mount

    def natsfs(self, *arguments: str) -> Result:
        return run(natsfs_command(*arguments), env=self.environment, cwd=Path("/"), timeout=90)

    def waiting(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.natsfs("recover", "--json").out)
        return found


@pytest.fixture
def host(mounter: Mounter, tmp_path: Path, environment: dict[str, str]) -> Iterator[Host]:
    server: Server = start_server(tmp_path / "store")
    try:
        client = py_client(server.url, environment).of("own")
        client.create()
        yield Host(server, client, mounter, environment)
    finally:
        server.kill()


def body(size: int, seed: str = "") -> bytes:
    """*size* bytes, of which no two MiB are alike."""
    return hashlib.shake_256(f"{size}{seed}".encode()).digest(size)


def write_in_vain(path: Path, data: bytes, *, at: int = 0) -> None:
    """Write *data*, which works, and close, which does not."""
    file = os.open(path, os.O_CREAT | os.O_RDWR)
    os.pwrite(file, data, at)
    with pytest.raises(OSError, match="Input/output"):
        os.close(file)


def test_killed_after_close(host: Host) -> None:
    """W7: what close could not store, because the server was away, survives a daemon that is
    killed; the next mount stores it, with its attributes."""
    host.client.put("old", body(600_000))
    mount = host.mount()
    host.server.kill()
    files = {"small": body(1000), "large": body(5 * MIB)}
    for name, data in files.items():
        write_in_vain(mount.directory / name, data)
    write_in_vain(mount.directory / "old", b"changed", at=300_000)
    (mount.directory / "small").chmod(0o640)
    mount.kill()
    assert {one["name"] for one in host.waiting()} == {"small", "large", "old"}
    assert all(one["finished"] for one in host.waiting())
    assert "left 3 files" in host.natsfs("status").out
    host.server.restart()
    again = host.mount(trouble="mount that died")
    wait_until(lambda: host.client.names() == ["large", "old", "small"], "all are stored")
    assert (again.directory / "small").stat().st_mode == 0o100640
    again.stop()
    for name, data in files.items():
        assert host.client.get(name) == data
    old = body(600_000)
    assert host.client.get("old") == old[:300_000] + b"changed" + old[300_007:]
    assert host.waiting() == []


def test_killed_while_writing(host: Host, tmp_path: Path) -> None:
    """W7, W2: a file that a program was writing when the daemon was killed replaces nothing; every
    byte of it is offered, those included that had been sent to the server already."""
    host.client.put("file", b"old")
    mount = host.mount()
    data = body(24 * MIB)
    file = os.open(mount.directory / "file", os.O_WRONLY | os.O_TRUNC)
    for start in range(0, len(data), MIB):
        os.write(file, data[start : start + MIB])
    mount.kill()
    with suppress(OSError):
        os.close(file)
    (left,) = host.waiting()
    assert (left["name"], left["bytes"], left["finished"]) == ("file", len(data), False)
    again = host.mount(trouble="wait in the journal")
    assert (again.directory / "file").read_bytes() == b"old"
    again.stop()
    result = host.natsfs("recover", host.source)
    assert result.status == 4
    assert re.search(r"^file +24.0 MiB .*was still being written", result.out, re.MULTILINE)
    result = host.natsfs("recover", host.source, "--into", str(tmp_path / "out"))
    assert result.status == 0
    assert (tmp_path / "out" / "file").read_bytes() == data
    assert host.client.get("file") == b"old"
    assert host.waiting() == []


def test_recover_without_a_mount(host: Host) -> None:
    """W7: `natsfs recover SOURCE` stores what waits and returns when the server has it; what was
    unfinished is stored beside."""
    mount = host.mount()
    (mount.directory / "b").write_bytes(b"old")
    host.server.kill()
    write_in_vain(mount.directory / "a", body(3 * MIB))
    file = os.open(mount.directory / "b", os.O_WRONLY)
    os.write(file, b"new")
    mount.kill()
    with suppress(OSError):
        os.close(file)
    result = host.natsfs("recover", host.source)
    assert result.status == 1
    host.server.restart()
    result = host.natsfs("recover", host.source, "--unfinished=store", "--json")
    assert result.status == 0
    assert json.loads(result.out) == {"saved": 1, "left": []}
    assert host.client.get("a") == body(3 * MIB)
    assert host.client.get("b") == b"old"
    (beside,) = set(host.client.names()) - {"a", "b"}
    assert beside.startswith("b.recovered-")
    assert host.client.get(beside) == b"new"


def leave_in_part(host: Host, top: Path) -> bytes:
    """Close in vain a file of which the server got the greater part, and went away; its bytes.

    No process may begin meanwhile: that closes a copy of the descriptor, and the mount stores."""
    data = body(16 * MIB)
    with Stranger(host.server.url, host.client.bucket) as stranger:
        file = os.open(top / "file", os.O_CREAT | os.O_WRONLY)
        os.write(file, data[: 15 * MIB])
        wait_until(lambda: stranger.api("STREAM.INFO")["state"]["bytes"] > 8 * MIB, "it leaves")
    host.server.kill()
    assert os.write(file, data[15 * MIB :]) == MIB
    with pytest.raises(OSError, match="Input/output"):
        os.close(file)
    return data


@pytest.mark.parametrize("alive", [False, True], ids=["dead", "alive"])
def test_gc_spares_what_waits(host: Host, alive: bool) -> None:
    """W7: of a large file that the server has in part, `gc` frees nothing while the rest waits in a
    journal of this host, however old it is; the file is stored whole when the server is back."""
    mount = host.mount()
    data = leave_in_part(host, mount.directory)
    if not alive:
        mount.kill()
        assert [one["bytes"] for one in host.waiting()] == [len(data)]
    host.server.restart()
    told = host.natsfs("gc", host.source, "--min-age=0s", "--delete").check()
    if not alive:
        assert "1 versions are left alone: files in journals of this host need them" in told
        host.natsfs("recover", host.source).check()
    wait_until(lambda: host.client.names() == ["file"], "it is stored")
    assert host.client.get("file") == data


def test_gc_of_another_host(host: Host, tmp_path: Path) -> None:
    """W7: where the sent part of a file was freed all the same, by a host that does not know its
    journal, one line says so, nothing is stored in its place, and the rest can be had."""
    mount = host.mount()
    data = leave_in_part(host, mount.directory)
    mount.kill()
    host.server.restart()
    elsewhere = f"--cache-dir={tmp_path / 'elsewhere'}"
    told = host.natsfs("gc", host.source, "--min-age=0s", "--delete", elsewhere).check()
    assert "left alone" not in told
    result = host.natsfs("recover", host.source)
    assert result.status == 4
    assert "what the bucket had of it is gone" in result.out
    assert host.client.names() == []
    assert [one["name"] for one in host.waiting()] == ["file"]
    into = tmp_path / "out"
    result = host.natsfs("recover", host.source, f"--into={into}")
    assert result.status == 0
    assert "bytes are zeros, because the bucket does not have them" in result.err
    saved = (into / "file").read_bytes()
    assert len(saved) == len(data)
    assert saved[-MIB:] == data[-MIB:]


def make_again(host: Host) -> None:
    """Another bucket of the same name."""
    host.client.drop()
    host.client.create()


def test_a_bucket_made_again(host: Host) -> None:
    """W7, A4: what was written to a bucket that was deleted meanwhile is not stored in its namesake
    unasked; the mount says that it is there, and `recover --former=store` stores it, in the place
    of nothing."""
    mount = host.mount()
    host.server.kill()
    for name in ("free", "taken"):
        write_in_vain(mount.directory / name, body(2 * MIB, name))
    file = os.open(mount.directory / "unfinished", os.O_CREAT | os.O_WRONLY)
    os.write(file, b"half")
    mount.kill()
    with suppress(OSError):
        os.close(file)
    host.server.restart()
    make_again(host)
    host.client.put("taken", b"by another")
    again = host.mount(trouble="wait in the journal")
    assert "3 files" in again.log_text()
    assert "earlier bucket of this name" in again.log_text()
    assert os.listdir(again.directory) == ["taken"]
    again.stop()
    result = host.natsfs("recover", host.source)
    assert (result.status, host.client.names()) == (4, ["taken"])
    assert result.out.count("earlier bucket of this name") == 3
    # Whoever discards what was unfinished means nothing of this.
    host.natsfs("recover", host.source, "--unfinished=discard")
    assert len(host.waiting()) == 3
    assert host.natsfs("recover", host.source, "--former=store").check().startswith("3 files are")
    assert host.waiting() == []
    assert host.client.get("free") == body(2 * MIB, "free")
    assert host.client.get("taken") == b"by another"
    beside = dict.fromkeys(set(host.client.names()) - {"free", "taken"})
    assert {name.partition("-")[0] for name in beside} == {"taken.conflict", "unfinished.recovered"}
    assert {host.client.get(name) for name in beside} == {body(2 * MIB, "taken"), b"half"}


@pytest.mark.parametrize("waits", [False, True], ids=["nothing waits", "a file waits"])
def test_made_again_under_a_mount(waits: bool, host: Host) -> None:
    """W7, A6: what is written to a bucket that was made again under a mount, and is not stored when
    that is killed, is stored by the next mount; what was written to the one before is not."""
    mount = host.mount()
    if waits:
        host.server.kill()
        write_in_vain(mount.directory / "old", body(MIB, "old"))
        host.server.restart()
    make_again(host)
    host.client.put("sign", b"new bucket")
    # Until it is noticed that the old one is gone, the root is ENODEV.
    wait_until(lambda: os.path.exists(mount.directory / "sign"), "the new bucket")
    if waits:
        wait_until(lambda: "stays in the journal" in mount.log_text(), "it is set aside")
    host.server.kill()
    write_in_vain(mount.directory / "new", body(2 * MIB, "new"))
    mount.kill()
    host.server.restart()
    again = host.mount(trouble="journal|mount that died")
    wait_until(lambda: host.client.names() == ["new", "sign"], "it is stored")
    assert host.client.get("new") == body(2 * MIB, "new")
    again.stop()
    result = host.natsfs("recover", host.source)
    assert (result.status, result.out.count("earlier bucket of this name")) == (4 * waits, waits)
    assert [one["name"] for one in host.waiting()] == ["old"] * waits


def test_a_part_of_a_bucket_made_again(host: Host, tmp_path: Path) -> None:
    """W7: of a file of which the bucket that was deleted had a part, nothing is stored; the rest is
    saved when its user says so."""
    mount = host.mount()
    data = leave_in_part(host, mount.directory)
    mount.kill()
    host.server.restart()
    make_again(host)
    result = host.natsfs("recover", host.source, "--former=store")
    assert (result.status, host.client.names()) == (4, [])
    assert "the rest of it was in the bucket that is gone" in result.out
    assert [one["name"] for one in host.waiting()] == ["file"]
    assert host.natsfs("recover", host.source, f"--into={tmp_path / 'out'}").status == 0
    assert (tmp_path / "out" / "file").read_bytes()[-MIB:] == data[-MIB:]
    assert host.waiting() == []


def test_umount_force(host: Host) -> None:
    """W7: without a server `natsfs umount --force` ends the mount at once and says what stays."""
    mount = host.mount()
    host.server.kill()
    write_in_vain(mount.directory / "file", body(2 * MIB))
    began = time.monotonic()
    result = host.natsfs("umount", "--force", str(mount.directory))
    assert time.monotonic() - began < 20
    assert (result.status, result.out) == (0, "")
    assert "1 files, 2.0 MiB, are not stored and stay in the journal" in result.err
    mount.ended(5)
    host.server.restart()
    again = host.mount(trouble="mount that died")
    wait_until(lambda: host.client.names() == ["file"], "it is stored")
    again.stop()
    assert host.client.get("file") == body(2 * MIB)


def test_writeback(host: Host, source_tree: Path) -> None:
    """W8: with writeback `cp -r` returns without a server, what it wrote can be read, survives the
    daemon, and is stored by the next mount."""
    mount = host.mount("-o", "writeback")
    (mount.directory / "first").write_bytes(b"first")
    wait_until(lambda: host.client.names() == ["first"], "it is stored")
    (mount.directory / "tree").mkdir()
    host.server.kill()
    files = {f"{number}": body(3000 * number, "wb") for number in range(60)}
    for name, data in files.items():
        (mount.directory / "tree" / name).write_bytes(data)
    for name, data in files.items():
        assert (mount.directory / "tree" / name).read_bytes() == data
    mount.kill()
    host.server.restart()
    again = host.mount("-o", "writeback", trouble="mount that died")
    again.stop()
    for name, data in files.items():
        assert host.client.get(f"tree/{name}") == data
    assert host.waiting() == []


def test_saved_as_editors_do(host: Host) -> None:
    """W8, A2: without a server a program writes a new file and renames it over the old one, which
    waits as well; what has that name then survives the daemon.  A name that the server would have
    to be told of stays."""
    mount = host.mount(
        "-o", "writeback", "--timeout=1", trouble="rename: no connection|not saved yet"
    )
    config, new = mount.directory / "config", mount.directory / "config.new"
    config.write_bytes(b"stored")
    (mount.directory / "stored").write_bytes(b"stays")
    wait_until(lambda: host.client.names() == ["config", "stored"], "they are stored")
    host.server.kill()
    for text in (b"closed", b"closed again", b"last"):
        new.write_bytes(text)
        new.rename(config)
        assert config.read_bytes() == text
    with pytest.raises(OSError, match="Input/output error"):
        (mount.directory / "stored").rename(config)
    assert sorted(os.listdir(mount.directory)) == ["config", "stored"]
    assert config.read_bytes() == b"last"
    mount.kill()
    host.server.restart()
    host.mount("-o", "writeback", trouble="mount that died").stop()
    assert host.client.names() == ["config", "stored"]
    assert host.client.get("config") == b"last"
    assert host.client.get("stored") == b"stays"
    assert host.waiting() == []


def test_umount_waits(host: Host) -> None:
    """W8: `natsfs umount` returns when the server has what was written back."""
    mount = host.mount("-o", "writeback")
    for number in range(200):
        (mount.directory / f"{number}").write_bytes(body(5000, str(number)))
    (mount.directory / "large").write_bytes(body(20 * MIB))
    assert host.natsfs("umount", str(mount.directory)) == Result(0, "", "")
    mount.ended(5)
    assert len(host.client.names()) == 201
    assert host.client.get("large") == body(20 * MIB)
    assert host.client.get("199") == body(5000, "199")


def test_fsync_of_written_back(host: Host) -> None:
    """W8, W1: fsync returns when the server has the file; without a server it is EIO."""
    mount = host.mount("-o", "writeback")
    with open(mount.directory / "file", "wb") as file:
        file.write(b"data")
        file.flush()
        os.fsync(file.fileno())
        assert host.client.get("file") == b"data"
        host.server.kill()
        file.write(b" and more")
        file.flush()
        with pytest.raises(OSError, match="Input/output"):
            os.fsync(file.fileno())
    host.server.restart()
    mount.stop()
    assert host.client.get("file") == b"data and more"


def test_two_mounts_at_once(host: Host) -> None:
    """W7: a mount takes nothing from one that lives, whatever that has not stored."""
    one = host.mount("-o", "writeback")
    host.server.kill()
    (one.directory / "file").write_bytes(b"data")
    host.server.restart()
    other = host.mount(trouble="mount that died")
    other.stop()
    assert "that died" not in other.log_text()
    one.stop()
    assert host.client.get("file") == b"data"


@pytest.mark.parametrize("removed", ["cache", "journal"])
def test_cache_is_removed(host: Host, removed: str) -> None:
    """W7, W8: somebody removes the cache under the mount: what is written then is stored, and close
    does not promise what the disk does not have."""
    mount = host.mount("-o", "writeback")
    (mount.directory / "a").write_bytes(b"a")
    cache = Path(host.environment["XDG_CACHE_HOME"]) / "natsfs"
    parts = list(cache.glob("journal-*")) if removed == "journal" else [cache]
    subprocess.run(["rm", "-rf", *parts], check=True)
    for number in range(5):
        (mount.directory / f"{number}").write_bytes(body(2 * MIB, str(number)))
        with open(mount.directory / "a", "r+b") as file:
            file.write(b"%d" % number)
    mount.stop()
    for number in range(5):
        assert host.client.get(f"{number}") == body(2 * MIB, str(number))
    assert host.client.get("a") == b"4"


@contextmanager
def filesystem(directory: Path, *mount: str) -> Iterator[Path]:
    """A file system of the test's own on *directory*."""
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", *mount, directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


def test_the_machine_crashes(host: Host, tmp_path: Path) -> None:
    """W8, W7: what was closed survives a power cut: it is on the disk, and not only in memory."""
    image, crashed = tmp_path / "disk", tmp_path / "crashed"
    with image.open("wb") as file:
        file.truncate(96 * MIB)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    files = {"small": body(1000), "large": body(5 * MIB), "old": body(600_000)}
    host.client.put("old", files["old"])
    with filesystem(tmp_path / "cache", "-o", "loop", str(image)) as cache:
        cache.chmod(0o700)
        mount = host.mount("-o", f"writeback,cache_dir={cache}")
        host.server.kill()
        for name in ("small", "large"):
            (mount.directory / name).write_bytes(files[name])
        change(mount.directory / "old", b"changed", at=300_000)
        # What the device has now is what would be there after a power cut.
        shutil.copyfile(image, crashed)
        mount.kill()
    files["old"] = files["old"][:300_000] + b"changed" + files["old"][300_007:]
    host.server.restart()
    with filesystem(tmp_path / "after", "-o", "loop", str(crashed)) as cache:
        result = host.natsfs("recover", host.source, f"--cache-dir={cache}", "--json")
    assert (result.status, json.loads(result.out)) == (0, {"saved": 3, "left": []})
    for name, data in files.items():
        assert host.client.get(name) == data


def change(path: Path, data: bytes, *, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def test_no_room_for_the_journal(host: Host, tmp_path: Path) -> None:
    """W8, W1: where the local disk is full close waits for the server again, and one line says
    that what is being written would not survive."""
    with filesystem(tmp_path / "cache", "-t", "tmpfs", "-o", "size=1M", "cache") as cache:
        cache.chmod(0o700)
        mount = host.mount("-o", f"writeback,cache_dir={cache}", trouble="journal cannot be")
        for number in range(3):
            (mount.directory / f"{number}").write_bytes(body(3 * MIB, str(number)))
            assert host.client.get(f"{number}") == body(3 * MIB, str(number))
        assert mount.log_text().count("the journal cannot be written") == 1
        mount.stop()


def test_umount_helper(host: Host) -> None:
    """W8: umount(8) calls `umount.natsfs` with options of its own, and waits for it."""
    mount = host.mount("-o", "writeback")
    (mount.directory / "file").write_bytes(body(3 * MIB))
    program = "import sys; from natsfs.cli import umount_helper; sys.exit(umount_helper())"
    arguments = [str(mount.directory), "-n", "-v", "-t", "fuse.natsfs"]
    called = run([sys.executable, "-c", program, *arguments], env=host.environment, cwd=Path("/"))
    assert called == Result(0, "", "")
    mount.ended(1)
    assert host.client.get("file") == body(3 * MIB)
