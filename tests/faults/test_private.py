"""What a mount keeps on this host is its user's alone; nothing in a bucket reaches beyond it."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from natsfs.control import Client, socket_path
from natsfs.filesystem.recollection import LEAST_OBJECTS
from natsfs.server import Server
from natsfs.store.wire import meta_subject, new_nuid
from tests.faults.secured import NOBODY, mounted_by_nobody, natsfs, open_directory
from tests.mount.foreign import py_client
from tests.mount.mounting import Mount, private_environment, run

pytestmark = [pytest.mark.mount, pytest.mark.server]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users")

#: What a terminal obeys: colours, a title, C1 controls, text from right to left.
ESCAPES = "\x1b[31m\x1b]0;title\x07\x9b2J\u202ex"


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A directory that everybody may enter: pytest's own are closed to others."""
    with open_directory() as directory:
        yield directory


@pytest.fixture
def bucket(nats_server: Server, tmp_path: Path) -> str:
    """An empty bucket."""
    name = f"b-{new_nuid()}"
    environment = private_environment(tmp_path / "admin")
    natsfs(environment, "bucket", "create", f"--server={nats_server.url}", name).check()
    return name


@pytest.fixture(scope="module")
def large(nats_server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bucket of so many objects that its tree is kept on disk."""
    name = f"b-{new_nuid()}"
    environment = private_environment(tmp_path_factory.mktemp("admin"))
    natsfs(environment, "bucket", "create", f"--server={nats_server.url}", name).check()
    with socket.create_connection(("127.0.0.1", nats_server.port)) as connection:
        connection.sendall(b'CONNECT {"verbose":false,"headers":true}\r\n')
        block = b"NATS/1.0\r\nNats-Rollup: sub\r\n\r\n"
        for number in range(LEAST_OBJECTS):
            meta = hostile(f"object-{number}")
            subject = meta_subject(name, f"object-{number}")
            head = f"HPUB {subject} {len(block)} {len(block) + len(meta)}\r\n"
            connection.sendall(head.encode() + block + meta + b"\r\n")
        connection.sendall(b"PING\r\n")
        said = b""
        while b"PONG" not in said:
            said += connection.recv(4096)
    return name


def exposed(*directories: Path) -> list[str]:
    """What below *directories* others may do something with."""
    found = []
    for directory in directories:
        for path in (directory, *directory.rglob("*")):
            mode = path.lstat().st_mode
            if stat.S_IMODE(mode) & 0o077 and not stat.S_ISLNK(mode):
                found.append(f"{stat.filemode(mode)} {path}")
    return found


def use(top: Path) -> None:
    """Have the mount keep all that it keeps: blocks, and with the next reading of them more."""
    path = top / new_nuid()
    path.write_bytes(os.urandom(300_000))
    assert len(path.read_bytes()) == 300_000
    with open(path, "r+b") as file:
        file.seek(100_000)
        file.write(b"in the middle")


# -- modes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [False, True])
def test_modes(nats_server: Server, large: str, tmp_path: Path, background: bool) -> None:
    """E: with a umask of 0, and without XDG_RUNTIME_DIR, all that a mount makes on this host is its
    user's alone, also while it runs."""
    environment = private_environment(tmp_path / "private")
    del environment["XDG_RUNTIME_DIR"]
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    for kind in ("CACHE", "STATE"):
        environment[f"XDG_{kind}_HOME"] = str(home / kind.lower())
    if os.geteuid() == 0:
        # Root has its sockets in /run otherwise.
        environment["XDG_RUNTIME_DIR"] = str(home / "runtime")
        (home / "runtime").mkdir(mode=0o700)
    source, top = f"{nats_server.url}/{large}", tmp_path / "mnt"
    top.mkdir()
    umask = os.umask(0)
    try:
        if background:
            natsfs(environment, "mount", source, top).check()
            try:
                use(top)
                assert exposed(*home.iterdir()) == []
            finally:
                natsfs(environment, "umount", top).check()
        else:
            with Mount(source, top, env=environment, log=tmp_path / "log"):
                use(top)
                assert exposed(*home.iterdir()) == []
    finally:
        os.umask(umask)
    kept = {path.name for path in home.rglob("*")}
    assert {"blocks-2", "trees-1"} <= kept
    assert exposed(*home.iterdir()) == []


@needs_root
def test_in_the_home_of_a_user(open_tmp: Path, nats_server: Server, bucket: str) -> None:
    """E: nobody but the user who mounted gets in, root included; sockets lie in the home directory
    where there is no XDG_RUNTIME_DIR, and are nobody else's either."""
    with mounted_by_nobody(
        open_tmp, f"{nats_server.url}/{bucket}", without="XDG_RUNTIME_DIR"
    ) as mounted:
        seen = mounted.inside(
            "sh", "-c", f"echo content > {mounted.top}/file && cat {mounted.top}/*"
        )
        assert seen.check() == "content\n"
        for call in ("cat", "stat", "ls"):
            denied = mounted.inside(call, mounted.top / "file", nobody=False)
            assert "Permission denied" in denied.err
        (path,) = Path(mounted.environment["XDG_STATE_HOME"]).rglob("*.sock")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert path.stat().st_uid == NOBODY.pw_uid


# -- directories that somebody else made before ---------------------------------------------------


def test_open_directories_are_closed(nats_server: Server, bucket: str, tmp_path: Path) -> None:
    """E: directories of the user's own that others may enter are closed before use."""
    environment = private_environment(tmp_path / "private")
    for path in ("cache/natsfs/blocks-2", "runtime/natsfs"):
        (tmp_path / "private" / path).mkdir(parents=True)
        (tmp_path / "private" / path).chmod(0o777)
    top = tmp_path / "mnt"
    top.mkdir()
    with Mount(f"{nats_server.url}/{bucket}", top, env=environment, log=tmp_path / "log"):
        use(top)
        for path in ("cache/natsfs/blocks-2", "runtime/natsfs"):
            assert exposed(tmp_path / "private" / path) == []


#: Traps in the cache directory: what somebody else has put where natsfs keeps something.
TRAPS: dict[str, Callable[[Path, Path], object]] = {
    "a link": lambda place, prey: place.symlink_to(prey),
    "a foreign directory": lambda place, prey: run(["install", "-d", "-o4324", place]).check(),
    "a file": lambda place, prey: place.write_bytes(b"x"),
    "a replaceable one": lambda place, prey: place.parent.chmod(0o777),
}


@needs_root
@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("where", ["blocks-2", "trees-1"])
def test_traps(nats_server: Server, large: str, tmp_path: Path, trap: str, where: str) -> None:
    """E: what somebody else may change is not used as a cache, said once, and costs nothing else;
    nothing is written through links."""
    environment = private_environment(tmp_path / "private")
    cache, prey, top = tmp_path / "shared", tmp_path / "prey", tmp_path / "mnt"
    for directory in (cache, prey, top):
        directory.mkdir()
    TRAPS[trap](cache / where, prey)
    mount = Mount(
        f"{nats_server.url}/{large}",
        top,
        f"--cache-dir={cache}",
        env=environment,
        log=tmp_path / "log",
    )
    mount.expect_trouble("cache|journal")
    with mount:
        use(top)
        path = top / new_nuid()
        path.write_bytes(b"content")
        assert path.read_bytes() == b"content"
    assert not any(prey.iterdir())
    if (cache / where).is_dir():
        assert not [path for path in (cache / where).rglob("*") if path.is_file()]
    said = [line for line in mount.log_text().splitlines() if "cache" in line or "snapshot" in line]
    assert 1 <= len(said) <= 4, said


@needs_root
def test_impostor(open_tmp: Path, nats_server: Server, bucket: str) -> None:
    """E: commands do not take the word of another user's process for where a server is."""
    environment = private_environment(open_tmp / "private")
    directory = Path(environment["XDG_RUNTIME_DIR"]) / "natsfs"
    directory.mkdir(parents=True)
    top = open_tmp / "mnt"
    top.mkdir()
    path = socket_path(directory, top)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        os.seteuid(NOBODY.pw_uid)
        try:
            # Whoever listens is who the kernel names to the other side.
            listener.listen()
        finally:
            os.seteuid(0)
        with pytest.raises(PermissionError):
            Client(path)
        shown = natsfs(environment, "status", "--json").check()
        assert str(top) not in [mount["directory"] for mount in json.loads(shown)]


# -- what comes from a bucket ---------------------------------------------------------------------


def hostile(name: str, **fields: Any) -> bytes:
    """A meta that somebody has made up."""
    meta = {"name": name, "bucket": "b", "nuid": new_nuid(), "size": 0, "chunks": 0, "mtime": ""}
    return json.dumps({**meta, "digest": "", **fields}).encode()


NAMES = ("../../escape", "/etc/escape", "..", "a/../../escape", "nul\0escape", "-rf", "~/escape")
NUIDS = ("../../../../escape", "/tmp/escape", "..", "a/b", "a\0b", "x" * 5000, "*", ">")


def test_no_path_from_a_bucket(nats_server: Server, bucket: str, tmp_path: Path) -> None:
    """E, K6: whatever names and version numbers a bucket holds, a mount that reads and keeps all of
    it makes no file but in its own directories, and those with names of its own."""
    environment = private_environment(tmp_path / "private")
    client = py_client(nats_server.url, environment).of(bucket)
    client.put("good", b"x" * 200_000)
    for name in NAMES:
        client.publish(meta_subject(bucket, name), hostile(name))
    for number, nuid in enumerate(NUIDS):
        name = f"n{number}"
        client.publish(meta_subject(bucket, name), hostile(name, nuid=nuid, size=9, chunks=1))
    top = tmp_path / "mnt"
    top.mkdir()
    mount = Mount(f"{nats_server.url}/{bucket}", top, env=environment, log=tmp_path / "log")
    mount.expect_trouble("WARNING|ERROR")
    with mount:
        for directory, _, files in os.walk(top):
            for name in files:
                try:
                    (Path(directory) / name).read_bytes()
                except OSError:
                    continue
        assert (top / "good").read_bytes() == b"x" * 200_000
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in made if "escape" in path.name]
    own = tmp_path / "private"
    allowed = {tmp_path / "log"}
    assert all(path in allowed or path.is_relative_to(own) for path in made)
    kept = [path for path in (own / "cache").rglob("*") if path.is_file()]
    assert kept
    assert all(set(path.name) <= set("0123456789abcdef-") for path in kept)


def test_terminals_are_safe(nats_server: Server, tmp_path: Path) -> None:
    """E: names, descriptions and reasons that hold terminal escapes are escaped by every command,
    in JSON too, and in the log, where a name does not begin a line of its own."""
    environment = private_environment(tmp_path / "private")
    server, bucket = f"--server={nats_server.url}", f"b-{new_nuid()}"
    evil = f"{ESCAPES}\n2026-01-01 00:00:00,000 INFO natsfs: lie"
    settings = ("--description", evil, "--metadata", f"k={evil}")
    natsfs(environment, "bucket", "create", server, bucket, *settings).check()
    client = py_client(nats_server.url, environment).of(bucket)
    client.publish(meta_subject(bucket, "bad"), hostile("other" + evil))
    client.put(evil, b"content")
    client.publish(meta_subject(bucket, "gone"), hostile(evil + "gone", size=9, chunks=1))
    top = tmp_path / "mnt"
    top.mkdir()
    mount = Mount(f"{nats_server.url}/{bucket}", top, "-v", env=environment, log=tmp_path / "log")
    mount.expect_trouble("WARNING|ERROR")
    with mount:
        for name in os.listdir(top):
            refused_or_read(top / name)
        commands = [
            ("ls", bucket),
            ("ls", "--json", bucket),
            ("fsck", bucket),
            ("fsck", "--json", bucket),
            ("gc", bucket),
            ("gc", "--json", bucket),
            ("bucket", "info", bucket),
            ("bucket", "info", "--json", bucket),
            ("bucket", "list"),
            ("bucket", "list", "--json"),
            ("ls", f"{bucket}/{evil}"),
            ("ls", evil),
        ]
        for command in commands:
            shown = natsfs({**environment, "NATS_URL": nats_server.url}, *command)
            assert_safe(shown.out + shown.err, *command)
        for flags in ([], ["--json"]):
            shown = natsfs(environment, "status", *flags, top)
            assert_safe(shown.out + shown.err, "status", *flags)
    assert_safe(mount.log_text(), "log")
    assert "\n2026-01-01" not in mount.log_text()


def refused_or_read(path: Path) -> None:
    """Look at a file, which may be unreadable."""
    try:
        path.read_bytes()
    except OSError:
        path.lstat()


def assert_safe(text: str, *where: str) -> None:
    """Nothing in *text* that a terminal would obey but line ends."""
    bad = {c for c in text if not c.isprintable() and c not in "\n\t"}
    assert not bad, f"{where}: {bad!r} in {text!r}"


def test_commands_follow_no_links(nats_server: Server, bucket: str, tmp_path: Path) -> None:
    """K7: a link in a mount that leads out of it is not followed by `natsfs ls`."""
    environment = private_environment(tmp_path / "private")
    top = tmp_path / "mnt"
    top.mkdir()
    with Mount(f"{nats_server.url}/{bucket}", top, env=environment, log=tmp_path / "log"):
        (top / "out").symlink_to("/etc")
        (top / "back").symlink_to(top)
        for name, status in (("out", 0), ("out/hostname", 1), ("back", 0)):
            shown = natsfs(environment, "ls", top / name)
            assert "hostname" not in shown.out
            assert shown.status == status, shown
