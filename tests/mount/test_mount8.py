"""mount(8), umount(8) and fstab(5) with natsfs, on a machine of the test's own (see `system`)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import natsfs
from natsfs.server import start_server
from tests.contract.linked import freeze

from .foreign import ForeignClient, py_client
from .mounting import natsfs_command, run, wait_until
from .system import System, new_system, runs

pytestmark = [
    pytest.mark.mount,
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a machine of its own"),
]

ROOT = Path(next(iter(natsfs.__path__))).parent


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    place = tmp_path / "system"
    place.mkdir()
    with new_system(place) as system:
        system.natsfs("install-helper").check()
        yield system


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "a mount"
    directory.mkdir()
    return directory


@pytest.fixture
def source(nats_url: str, bucket: str) -> str:
    return f"{nats_url}/{bucket}"


def no_trouble(system: System) -> None:
    """No mount has logged a warning or an error."""
    assert not re.search("WARNING|ERROR|CRITICAL|Traceback", system.log_text())


@pytest.mark.parametrize("kind", ["natsfs", "fuse.natsfs"])
def test_mount(system: System, source: str, directory: Path, kind: str, py: ForeignClient) -> None:
    """`mount -t natsfs` mounts with options named as the long flags, in the environment of the
    start of a machine, and umount(8) ends the process."""
    py.put("file", b"bytes")
    words = "ro,allow_other,_netdev,cache_size=1G,x-note=1,comment=ours,uid=daemon,noatime"
    system.run("/bin/mount", "-t", kind, source, directory, "-o", words).check()
    shown, shown_kind, options = system.mounted(directory)
    assert (shown, shown_kind) == (source, "fuse.natsfs")
    assert {"ro", "noatime", "allow_other", "default_permissions"} <= set(options.split(","))
    assert system.run("/bin/cat", directory / "file").check() == "bytes"
    assert system.run("/usr/bin/stat", "-c%u", directory / "file").check() == "1\n"
    (pid,) = system.pids()
    system.run("/bin/umount", directory).check()
    assert system.mounted(directory) == []
    assert not runs(pid)
    no_trouble(system)


def readme_line() -> str:
    """The line of fstab that README.md shows."""
    (line,) = re.findall(
        r"^nats://\S+ +/mnt\S+ +natsfs .*$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    return str(line)


def test_readme_fstab(system: System, source: str, bucket: str, nats_url: str) -> None:
    """The line of fstab in the README works, with `mount -a` as often as one likes, with
    `mount DIRECTORY` and `umount DIRECTORY`."""
    shown, where, *rest = readme_line().split()
    system.fstab(" ".join([source, where, *rest]))
    system.run("/bin/mkdir", "-p", where)
    assert system.mounted(Path(where)) == []
    system.run("/bin/mount", "-a").check()
    assert system.mounted(Path(where))[:2] == [source, "fuse.natsfs"]
    assert system.run("/bin/mount", "-a").check() == ""
    assert len(system.pids()) == 1
    system.run("/bin/umount", where).check()
    system.run("/bin/mount", where).check()
    system.run("/bin/umount", "-a", "-t", "fuse.natsfs").check()
    assert system.mounted(Path(where)) == []
    assert shown.startswith("nats://")
    assert system.pids() == []
    no_trouble(system)


def test_shipped_fstab(system: System, nats_url: str, bucket: str, tmp_path: Path) -> None:
    """Every line of the fstab that natsfs brings is understood."""
    system.fstab(system.natsfs("install-helper", "--example", "fstab").check())
    system.run("/bin/mkdir", "-p", "/etc/natsfs").check()
    system.run("/usr/bin/touch", "/etc/natsfs/shared.creds").check()
    for name in ("models", "shared", "scratch", "archive"):
        place = Path("/root") / name
        system.run("/bin/mkdir", "-p", place).check()
        line = system.run(
            "/usr/bin/findmnt", "--fstab", "-n", "-o", "SOURCE,OPTIONS", f"/mnt/{name}"
        )
        shown, words = line.check().split()
        system.run("/sbin/mount.natsfs", shown, place, "-f", "-o", f"rw,{words}").check()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["-o", "bogus"], 1, "unknown mount option 'bogus'"),
        (["-o", "uid"], 1, "'uid' needs a value"),
        (["-o", "remount,ro"], 1, "cannot remount"),
        (["-s", "-f", "-n", "-o", "bogus"], 0, ""),
        (["-r", "-v"], 32, "127.0.0.1:1"),
    ],
)
def test_statuses(
    system: System, directory: Path, arguments: list[str], status: int, said: str
) -> None:
    """The helper ends with the statuses of mount(8) and says in one line what is wrong."""
    nowhere = "nats://127.0.0.1:1/bucket"
    result = system.run("/sbin/mount.natsfs", nowhere, directory, *arguments)
    assert (result.status, said in result.err) == (status, True), result
    assert len(result.err.splitlines()) <= 1
    assert system.mounted(directory) == []


def test_partial_success(system: System, source: str, directory: Path, tmp_path: Path) -> None:
    """`mount -a` says 64 where some of the mounts failed, and mounts the others."""
    other = tmp_path / "other"
    other.mkdir()
    shown = str(directory).replace(" ", "\\040")
    system.fstab(
        f"nats://127.0.0.1:1/bucket {other} natsfs defaults 0 0",
        f"{source} {shown} natsfs defaults 0 0",
    )
    result = system.run("/bin/mount", "-a")
    assert result.status == 64
    assert "natsfs: " in result.err
    assert system.mounted(directory)[0] == source
    system.run("/bin/umount", directory).check()


def test_names_that_mount_takes(system: System, source: str, directory: Path) -> None:
    """Mount(8) takes `user=` for itself; with `nats_` in front the option is natsfs's."""
    system.run("/bin/mount", "-t", "natsfs", source, directory, "-o", "user,nats_user=bob").check()
    system.run("/bin/umount", directory).check()


def test_umount_waits(system: System, directory: Path, tmp_path: Path) -> None:
    """W1, W8: umount(8) returns when the server has what was written, not before."""
    server = start_server(tmp_path / "store")
    try:
        client = py_client(server.url, {**os.environ}).of("own")
        client.create()
        shown = f"{server.url}/own"
        system.run("/bin/mount", "-t", "natsfs", shown, directory, "-o", "writeback").check()
        freeze(server)
        script = f"echo late >'{directory}/file'"
        system.run("/bin/sh", "-c", script).check()
        with subprocess.Popen(system.inside("/bin/umount", directory), cwd="/") as ending:
            wait_until(lambda: not system.mounted(directory), "the directory is free")
            assert ending.poll() is None
            os.kill(server.pid, signal.SIGCONT)
            assert ending.wait(60) == 0
        assert client.get("file") == b"late\n"
    finally:
        os.kill(server.pid, signal.SIGCONT)
        server.kill()


@pytest.mark.parametrize("options", ["rw", "hard"])
def test_umount_without_a_server(
    system: System, directory: Path, tmp_path: Path, options: str
) -> None:
    """A5: umount(8) does not wait for a server that hangs and has all that was written."""
    server = start_server(tmp_path / "store")
    try:
        py_client(server.url, {**os.environ}).of("own").create()
        shown = f"{server.url}/own"
        system.run("/bin/mount", "-t", "natsfs", shown, directory, "-o", options).check()
        # The time of the directory and an old version are left to be dealt with.
        (pid,) = system.pids()
        script = f"mkdir '{directory}/d' && for i in 1 2; do echo $i >'{directory}/d/file'; done"
        system.run("/bin/sh", "-c", script).check()
        freeze(server)
        begin = time.monotonic()
        system.run("/bin/umount", directory).check()
        assert time.monotonic() - begin < 20
        assert not runs(pid)
        assert system.mounted(directory) == []
    finally:
        os.kill(server.pid, signal.SIGCONT)
        server.kill()


def test_helpers_of_others_stay(system: System, tmp_path: Path) -> None:
    """Install-helper overwrites and removes nothing that it did not write; --uninstall removes
    what it did."""
    foreign = Path("/sbin/mount.fuse.natsfs")
    system.run("/bin/sh", "-c", f"rm {foreign}; echo mine >{foreign}").check()
    for arguments in ([], ["--uninstall"]):
        result = system.natsfs("install-helper", *arguments)
        assert result.status == 1
        assert f"{foreign} is not from natsfs install-helper" in result.err
    assert system.run("/bin/cat", foreign).check() == "mine\n"
    system.run("/bin/rm", foreign).check()
    system.natsfs("install-helper", "--uninstall").check()
    left = system.run("/bin/sh", "-c", "ls /sbin/*mount*.natsfs").out
    assert left == ""


def test_prefix(tmp_path: Path, environment: dict[str, str]) -> None:
    """The programs can be written anywhere, and a place that cannot be is named."""

    def install(*arguments: str | Path) -> str:
        result = run(natsfs_command("install-helper", *arguments), env=environment)
        return result.check() if result.status == 0 else result.err

    assert install("--prefix", tmp_path) == ""
    programs = sorted(path.name for path in tmp_path.glob("*mount*"))
    assert programs == ["mount.fuse.natsfs", "mount.natsfs", "umount.fuse.natsfs", "umount.natsfs"]
    assert all(os.access(tmp_path / name, os.X_OK) for name in programs)
    assert re.search("/missing: No such file", install("--prefix", tmp_path / "missing"))
