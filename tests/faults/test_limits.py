"""Limits of a bucket, an account, a server and its disk, as programs meet them in a mount.

What does not fit is refused with the right errno and loses nothing; removing works where nothing
fits any more, and makes room.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from natsfs.server import Server, start_server
from tests.mount.mounting import Mount, refused, run, wait_until

from .ground import Ground, files_of, look, stored

pytestmark = [pytest.mark.server, pytest.mark.mount]

MIB = 1024 * 1024

#: What the log says when something did not fit.
FULL = r"(WARNING|ERROR).*(maximum bytes exceeded|resource limits exceeded|no space|not saved)"


@contextmanager
def grounded(directory: Path, *, config: str = "", store: Path | None = None) -> Iterator[Ground]:
    """A bucket's ground on a server of its own with a piece of configuration."""
    with ExitStack() as stack:
        server = start_server(
            store or directory / "server",
            extra_config=config,
            jetstream="jetstream" not in config,
        )
        stack.callback(server.kill)
        yield stack.enter_context(Ground(directory, server.url))


@pytest.fixture
def ground(nats_server: Server, tmp_path: Path) -> Iterator[Ground]:
    """A bucket on the server that tests share."""
    with Ground(tmp_path, nats_server.url) as ground:
        yield ground


def copy_until_full(mount: Mount, reason: str) -> None:
    """Make files of 200 KB in a tree until cp says *reason*."""
    source = mount.log.with_name("source")
    source.write_bytes(os.urandom(200_000))
    for number in range(100):
        directory = mount.directory / "tree" / f"d{number % 3}"
        copied = run(f"mkdir -p {directory} && cp {source} {directory}/f{number}")
        if copied.status:
            assert reason in copied.err, copied.err
            return
    pytest.fail("it is never full")


def removal_makes_room(ground: Ground, mount: Mount) -> None:
    """rm -r of a tree in what is full works, and then there is room for as much again."""
    before = look(mount.directory)
    assert len(files_of(before)) > 3
    assert run(["rm", "-r", mount.directory / "tree"]).check() == ""
    assert os.listdir(mount.directory) == []
    body = os.urandom(600_000)
    wait_until(lambda: _fits(mount.directory / "again", body), "room")
    assert ground.py().get("again") == body
    assert stored(ground.py()) == files_of(look(mount.directory))


def _fits(path: Path, body: bytes) -> bool:
    """Whether *path* can be written: what was removed may still be on its way out."""
    return run(["dd", f"of={path}", "bs=1M", "status=none"], stdin=body).status == 0


def test_full_bucket(ground: Ground) -> None:
    """E, W6: a bucket that is full is ENOSPC; rm -r works in it, and then writing does again."""
    ground.create("--max-bytes", "2MB")
    mount = ground.mount()
    mount.expect_trouble(FULL)
    copy_until_full(mount, "No space left on device")
    removal_makes_room(ground, mount)


def test_bucket_full_of_names(ground: Ground) -> None:
    """E: a bucket that is full of directories and empty files is ENOSPC, and rm -r works though
    nothing but their metas can be freed."""
    ground.create("--max-bytes", "20kB")
    mount = ground.mount()
    mount.expect_trouble(FULL)
    fill = "for n in $(seq 200); do mkdir -p t/$n && touch t/$n/f || exit 1; done"
    made = run(f"cd {mount.directory} && {fill}")
    assert made.status == 1
    assert "No space left on device" in made.err
    # Not a byte is left.
    ground.py().reconfigure(max_bytes=ground.py().api("STREAM.INFO")["state"]["bytes"])
    assert refused((mount.directory / "x").mkdir) == "ENOSPC"
    run(["rm", "-r", mount.directory / "t"]).check()
    assert os.listdir(mount.directory) == []
    (mount.directory / "x").mkdir()
    assert os.listdir(ground.mount(fresh=True).directory) == ["x"]


_ACCOUNT = """
jetstream {{ store_dir: "{store}" }}
accounts {{ A {{ users: [{{user: a, password: a}}], jetstream: {{ max_file: 3000000 }} }} }}
no_auth_user: a
"""


def test_full_account(tmp_path: Path) -> None:
    """E: an account that is full is EDQUOT; rm -r works in it, and then writing does again."""
    with grounded(tmp_path, config=_ACCOUNT.format(store=tmp_path / "js")) as ground:
        ground.create()
        mount = ground.mount()
        mount.expect_trouble(FULL)
        copy_until_full(mount, "Disk quota exceeded")
        removal_makes_room(ground, mount)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a tmpfs")
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", directory], check=True)
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)


def test_full_server_disk(tmp_path: Path, small_disk: Path) -> None:
    """E, A5: a server whose disk is full refuses in time with an errno; what was acknowledged is
    there when it has room and runs again."""
    store = small_disk / "server"
    server = start_server(store)
    try:
        with Ground(tmp_path, server.url) as ground:
            ground.create()
            mount = ground.mount("--timeout", "5s")
            mount.expect_trouble("WARNING|ERROR")
            told: dict[str, bytes] = {}
            for number in range(60):
                body = os.urandom(700_000)
                argv = ["dd", f"of={mount.directory / f'f{number}'}", "bs=1M", "status=none"]
                written = run(argv, stdin=body)
                if written.status:
                    assert "No space left on device" in written.err, written.err
                    break
                told[f"f{number}"] = body
            else:
                pytest.fail("it is never full")
            subprocess.run(["mount", "-o", "remount,size=100m", small_disk], check=True)
            server.kill()
            server.restart()
            wait_until(lambda: _fits(mount.directory / "later", b"later"), "writing again")
            wait_until(lambda: set(told) <= set(ground.py().names()), "what was told")
            for name, body in told.items():
                assert ground.py().get(name) == body
                assert (mount.directory / name).read_bytes() == body
    finally:
        server.kill()


def test_small_payload(tmp_path: Path) -> None:
    """W4, R2: a server that takes 64 KiB in one message stores files in chunks that fit."""
    with grounded(tmp_path, config="max_payload: 65536") as ground:
        ground.create()
        writes_and_reads(ground)


def test_small_messages(ground: Ground) -> None:
    """W4, R2: a stream that takes 32 KiB in one message stores files in chunks that fit, also when
    it gets that limit while it is mounted."""
    ground.create()
    ground.py().reconfigure(max_msg_size=32 * 1024)
    writes_and_reads(ground)


def test_messages_that_become_small(ground: Ground) -> None:
    """W4, E: a stream that gets a limit of messages while it is mounted is written in smaller
    chunks from then on."""
    ground.create()
    mount = ground.mount()
    mount.expect_trouble("(WARNING|ERROR).*message size exceeds")
    (mount.directory / "before").write_bytes(bytes(300_000))
    ground.py().reconfigure(max_msg_size=32 * 1024)
    body = os.urandom(300_000)
    wait_until(lambda: _fits(mount.directory / "after", body), "smaller chunks")
    assert ground.py().get("after") == body


def writes_and_reads(ground: Ground) -> None:
    """Programs write files of all sizes; another client and another mount read them."""
    mount = ground.mount().directory
    bodies = {f"f{size}": os.urandom(size) for size in (0, 1, 65_024, 65_536, 131_072, 3_000_000)}
    for name, body in bodies.items():
        assert _fits(mount / name, body)
    with open(mount / "f3000000", "r+b") as file:
        file.seek(1_000_000)
        file.write(b"changed")
    body = bodies["f3000000"]
    bodies["f3000000"] = body[:1_000_000] + b"changed" + body[1_000_007:]
    afresh = ground.mount(fresh=True).directory
    for name, body in bodies.items():
        assert ground.py().get(name) == body
        assert (afresh / name).read_bytes() == body


def test_mirror(ground: Ground) -> None:
    """A6: the mirror of a bucket is mounted read-only, shows what its origin gets, and refuses
    every change with EROFS."""
    ground.create()
    origin = ground.py()
    body = os.urandom(700_000)
    origin.put("d/f", body)
    mirror = origin.of(f"{ground.bucket}-m")
    # Without rollups the mirrors of servers up to 2.12 stop at the first meta.
    source = {"name": f"OBJ_{origin.bucket}"}
    settings = {"name": f"OBJ_{mirror.bucket}", "mirror": source, "allow_rollup_hdrs": True}
    mirror.api("STREAM.CREATE", **settings)
    ground.bucket = mirror.bucket
    mount = ground.mount().directory
    wait_until((mount / "d" / "f").exists, "what the origin had")
    assert (mount / "d" / "f").read_bytes() == body
    origin.put("g", b"later")
    wait_until((mount / "g").exists, "what the origin gets")
    assert (mount / "g").read_bytes() == b"later"
    for change in (
        (mount / "x").mkdir,
        (mount / "x").touch,
        (mount / "g").unlink,
        lambda: (mount / "g").rename(mount / "h"),
        lambda: (mount / "g").write_bytes(b""),
        lambda: (mount / "g").chmod(0o600),
    ):
        assert refused(change) == "EROFS"
