"""Old servers: what they offer works, what they lack falls back, and nobody is left waiting.

The oldest is Debian 12's 2.9.10, which has no atomic batches, no batched direct get, no message
TTLs, no metadata of streams, and no answer to a direct get that nobody serves.  `scripts/test`
fetches it; `pytest --server=PATH` runs this against any other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from natsfs.server import Server, start_server
from tests.mount.mounting import refused, run, wait_until
from tests.mount.trees import assert_same, tree

from .ground import Ground, files_of, look, stored

pytestmark = [pytest.mark.server, pytest.mark.mount]

#: Where `scripts/setup` puts it.
OLD_SERVER = Path(sys.prefix, "servers", "2.9.10", "nats-server")


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Server]:
    """The old server."""
    binary = pytestconfig.getoption("--server") or OLD_SERVER
    if not binary.exists():
        reason = f"{binary} is missing: scripts/test fetches it"
        if "server" in os.environ.get("NATSFS_REQUIRE", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    server = start_server(tmp_path_factory.mktemp("old"), binary=binary)
    yield server
    server.stop()


@pytest.fixture
def ground(server: Server, tmp_path: Path) -> Iterator[Ground]:
    """A bucket that natsfs made."""
    with Ground(tmp_path, server.url) as ground:
        ground.create()
        yield ground


def test_programs(ground: Ground, tmp_path: Path) -> None:
    """W3, A2, K5, K7: cp, rsync, mv of files and directories, ln and rm leave what they leave on a
    local disk, for this mount, another one and another client."""
    mount = ground.mount().directory
    source = make_source(tmp_path / "source")
    commands = (
        "cp -a {source} {top}/copied",
        "rsync -a {source}/ {top}/synchronised/",
        "mv {top}/copied {top}/moved",
        "echo replaced > {top}/a && echo by > {top}/b && mv {top}/b {top}/a",
        "mkdir {top}/made && mv {top}/a {top}/made/a && chmod 640 {top}/made/a",
        "ln {top}/made/a {top}/hard && ln -s made/a {top}/soft && ln -s nowhere {top}/dangling",
        "cp -a {source} {top}/removed && rm -r {top}/removed",
        "rm {top}/hard && cat {top}/soft",
    )
    local = tmp_path / "local"
    local.mkdir()
    for command in commands:
        outcomes = [run(command.format(source=source, top=top)).check() for top in (local, mount)]
        assert outcomes[0] == outcomes[1]
    expected = tree(local, times=False)
    assert_same(expected, tree(mount, times=False))
    assert_same(expected, tree(ground.mount(fresh=True).directory, times=False))


def make_source(top: Path) -> Path:
    """A small tree for copying."""
    for number in range(40):
        path = top / f"d{number % 4}" / ("deeper" if number % 3 else "") / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom((0, 1, 4000, 150_000, 700_000)[number % 5]))
        path.chmod((0o644, 0o600, 0o755)[number % 3])
        os.utime(path, ns=(1, 10**18 + number))
    (top / "empty").mkdir()
    (top / "link").symlink_to("d0/f0")
    return top


def test_large_file(ground: Ground) -> None:
    """R2, W4: a large file is written, read at random places and read through."""
    mount = ground.mount().directory
    body = os.urandom(24 * 1024 * 1024)
    (mount / "large").write_bytes(body)
    with open(ground.mount(fresh=True).directory / "large", "rb") as file:
        for start in (5_000_000, 23_999_000, 0, 131_071):
            file.seek(start)
            assert file.read(200_000) == body[start : start + 200_000]
        file.seek(0)
        assert file.read() == body
    assert ground.py().get("large")[-1000:] == body[-1000:]


def test_foreign_changes(ground: Ground) -> None:
    """A1, A6: what another client puts, replaces, deletes and purges shows here, unasked."""
    py, mount = ground.py(), ground.mount()
    path = mount.directory / "d" / "f"
    mount.expect_trouble("WARNING.*was purged")
    py.put("d/f", b"one")
    wait_until(lambda: path.exists() and path.read_bytes() == b"one", "a foreign object")
    py.put("d/f", b"second")
    wait_until(lambda: path.stat().st_size == 6 and path.read_bytes() == b"second", "a new version")
    py.delete("d/f")
    wait_until(lambda: not path.exists(), "a deletion")
    py.put("d/g", b"three")
    wait_until((path.parent / "g").exists, "another object")
    py.api("STREAM.PURGE", filter=py.meta_subject("d/g"))
    wait_until(lambda: not (path.parent / "g").exists(), "a purge")


def test_exclusive_creation(ground: Ground) -> None:
    """A3: of two mounts one creates a file, a directory, a link."""
    one, two = (ground.mount(fresh=True).directory for _ in range(2))
    (one / "f").touch(exist_ok=False)
    assert refused(lambda: (two / "f").touch(exist_ok=False)) == "EEXIST"
    (two / "d").mkdir()
    assert refused((one / "d").mkdir) == "EEXIST"
    (two / "l").symlink_to("f")
    assert refused(lambda: (one / "l").symlink_to("d")) == "EEXIST"


_MKDIR = """
import os, sys
for number in range(20):
    try:
        os.mkdir(f"{sys.argv[1]}/{sys.argv[2]}{number}")
        print(number)
    except FileExistsError:
        pass
"""


def test_one_creates_a_bucket(ground: Ground) -> None:
    """A3, B2: of two mounts of all buckets one makes each bucket, though the server takes an equal
    creation for a success and streams have no metadata to tell them apart."""
    prefix = f"{ground.bucket}-"
    name, ground.bucket = ground.bucket, ""
    mounts = [ground.mount(fresh=True).directory for _ in range(2)]
    ground.bucket = name
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", _MKDIR, mount, prefix], stdout=subprocess.PIPE, text=True
        )
        for mount in mounts
    ]
    won = [number for program in programs for number in program.communicate(timeout=60)[0].split()]
    assert sorted(won, key=int) == [str(number) for number in range(20)]


def test_bucket_that_goes(ground: Ground) -> None:
    """A6, E: the files of a bucket that is deleted fail soon, not after the time-out, though the
    server does not say that nobody serves a direct get."""
    mount = ground.mount()
    mount.expect_trouble("WARNING|ERROR")
    ground.py().put("f", os.urandom(1_000_000))
    path = mount.directory / "f"
    wait_until(path.exists, "the file")
    begin = time.monotonic()
    with open(path, "rb") as file:
        ground.py().drop()
        with pytest.raises(OSError):  # noqa: PT011  (ESTALE or EIO: who was faster decides)
            file.read()
    assert time.monotonic() - begin < 20
    wait_until(lambda: refused(lambda: os.listdir(mount.directory)) == "ENODEV", "the end")


def test_restart(server: Server, ground: Ground) -> None:
    """A5, W1: the server is killed while a file is written, and comes back: the program succeeds,
    and all is there."""
    mount = ground.mount()
    mount.expect_trouble("WARNING.*lost the connection")
    body = os.urandom(12 * 1024 * 1024)
    # A process of its own has the file open: a fork of this one would close it, too, and wait for
    # the server that it is to start.
    argv = ["dd", f"of={mount.directory / 'f'}", "bs=1M", "iflag=fullblock", "status=none"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as program:
        assert program.stdin is not None
        program.stdin.write(body[: len(body) // 2])
        server.kill()
        server.restart()
        program.stdin.write(body[len(body) // 2 :])
        program.stdin.close()
        assert program.wait(60) == 0
    (mount.directory / "f").rename(mount.directory / "g")
    assert (mount.directory / "g").read_bytes() == body
    assert stored(ground.py()) == files_of(look(mount.directory))


def test_what_the_server_lacks(ground: Ground) -> None:
    """A2: who asks for what the server does not have is told so, in one line for each."""
    created = ground.natsfs(
        *("bucket", "create", f"{ground.url}/{ground.bucket}-c", "--compress"),
        *("--metadata", "owner=me"),
    )
    assert created.status == 0
    lines = created.err.splitlines()
    assert len(lines) == 2
    assert all("does not offer" in line for line in lines), lines
    planned = ground.natsfs("bucket", "upgrade", f"{ground.url}/{ground.bucket}", "--dry-run")
    assert planned.status == 0
    assert planned.out == f"bucket {ground.bucket} has all that its server offers\n"
    assert "atomic batches: not switched on: nats-server 2." in planned.err
    upgraded = ground.natsfs("bucket", "upgrade", f"{ground.url}/{ground.bucket}", "--yes")
    assert upgraded.status == 1
    assert len(upgraded.err.splitlines()) == 2
    assert "atomic batches" in upgraded.err
    assert "message TTLs" in upgraded.err
    found = ground.natsfs("fsck", f"{ground.url}/{ground.bucket}")
    assert found.status == 0, found.err
    freed = ground.natsfs("gc", f"{ground.url}/{ground.bucket}")
    assert freed.status == 0, freed.err


def test_mirror(ground: Ground) -> None:
    """A6: one line says that a mirror on such a server may be out of date: it ends at the first
    object that was stored on a condition."""
    mirror = ground.py().of(f"{ground.bucket}-m")
    source = {"name": f"OBJ_{ground.bucket}"}
    settings = {"name": f"OBJ_{mirror.bucket}", "mirror": source, "allow_rollup_hdrs": True}
    mirror.api("STREAM.CREATE", **settings)
    ground.py().put("before", b"by nats-py")
    mount = ground.mount(bucket=mirror.bucket)
    mount.expect_trouble("WARNING.*is a mirror on a server before 2.12")
    assert mount.log_text().count("is a mirror on a server before 2.12") == 1
    wait_until((mount.directory / "before").exists, "what came before")
    assert refused((mount.directory / "new").mkdir) == "EROFS"
