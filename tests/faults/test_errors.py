"""Table E of semantics.md, row by row: each condition is brought about for real, and a program that
uses a mount meets the errno of that row.  What may be denied to a user: `test_permissions`."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from natsfs.server import Server, start_server
from natsfs.store.wire import new_nuid
from tests.contract.linked import freeze
from tests.faults.secured import natsfs
from tests.mount.foreign import ForeignClient, py_client
from tests.mount.mounting import Mount, private_environment, refused, run, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.server]

KIB = 1024


@dataclass
class Ground:
    """A server, a bucket on it, another client of that, and mounts."""

    server: Server
    client: ForeignClient
    environment: dict[str, str]
    directory: Path
    mounts: ExitStack

    def mount(self, *options: str, bucket: str = "", env: dict[str, str] | None = None) -> Mount:
        """A mount of the bucket, or another, with a cache of its own."""
        number = len(list(self.directory.glob("mnt-*")))
        top = self.directory / f"mnt-{number}"
        top.mkdir()
        mount = Mount(
            f"{self.server.url}/{bucket or self.client.bucket}",
            top,
            f"--cache-dir={self.directory}/cache-{number}",
            *options,
            env=env or self.environment,
            log=self.directory / f"log-{number}",
        )
        return self.mounts.enter_context(mount)


@contextmanager
def ground(server: Server, directory: Path) -> Iterator[Ground]:
    """A new bucket on *server*; what is mounted by the end is unmounted and judged."""
    environment = private_environment(directory / "private")
    client = py_client(server.url, environment).of(f"b-{new_nuid()}")
    client.create()
    with ExitStack() as mounts:
        yield Ground(server, client, environment, directory, mounts)


@pytest.fixture
def shared(nats_server: Server, tmp_path: Path) -> Iterator[Ground]:
    """On the server of all tests."""
    with ground(nats_server, tmp_path) as made:
        yield made


@pytest.fixture
def own(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Ground]:
    """On a server of the test's own, with the configuration that it is parametrised with."""
    server = start_server(tmp_path / "server", extra_config=getattr(request, "param", ""))
    try:
        with ground(server, tmp_path) as made:
            yield made
    finally:
        server.kill()


# -- names ----------------------------------------------------------------------------------------


def test_nothing_there(shared: Ground) -> None:
    """E: what is not there, or deleted by anybody, is ENOENT."""
    shared.client.put("file", b"x")
    top = shared.mount().directory
    for call in (os.stat, os.unlink, os.rmdir, os.readlink, os.listdir):
        assert refused(lambda: call(top / "nothing")) == "ENOENT"  # noqa: B023
    assert (top / "file").read_bytes() == b"x"
    shared.client.delete("file")
    wait_until(lambda: not (top / "file").exists(), "the end of the file")
    assert refused((top / "file").read_bytes) == "ENOENT"


def test_something_there(shared: Ground) -> None:
    """E: exclusive creation of what exists, or of what another mount is just making, is EEXIST."""
    one, other = shared.mount().directory, shared.mount().directory
    file = os.open(one / "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    shared.mounts.callback(os.close, file)
    exclusive: tuple[Callable[[], object], ...] = (
        lambda: os.open(other / "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY),
        lambda: (other / "new").mkdir(),
        lambda: (other / "new").symlink_to("x"),
    )
    assert {refused(call) for call in exclusive} == {"EEXIST"}
    os.write(file, b"x")
    os.fsync(file)
    wait_until(lambda: reads(other / "new") == b"x", "the file")
    assert {refused(call) for call in exclusive} == {"EEXIST"}


def test_names_that_cannot_be_stored(shared: Ground) -> None:
    """E: a name of more than 255 bytes, or one whose object would have no subject, is ENAMETOOLONG;
    text that is no name of a bucket is EINVAL."""
    top = shared.mount().directory
    assert refused(lambda: (top / ("x" * 256)).touch()) == "ENAMETOOLONG"
    (top / ("ä" * 127)).touch()
    deep = top
    found = ""
    for _ in range(40):
        deep = deep / ("d" * 250)
        try:
            os.mkdir(deep)
        except OSError as error:
            found = errno.errorcode[error.errno or 0]
            break
    assert found == "ENAMETOOLONG"
    assert sorted(os.listdir(top)) == ["d" * 250, "ä" * 127]


@pytest.mark.parametrize("own", [""], indirect=True)
def test_names_of_buckets(own: Ground) -> None:
    """E, B2: a name that no bucket can have is EINVAL."""
    top = own.directory / "all"
    top.mkdir()
    own.mounts.enter_context(
        Mount(own.server.url, top, env=own.environment, log=own.directory / "log-all")
    )
    for name in ("with.dot", "with blank", "ä", "a*", "a>b"):
        assert refused((top / name).mkdir) == "EINVAL"
    assert os.listdir(top) == [own.client.bucket]


# -- read-only ------------------------------------------------------------------------------------


def changes(top: Path) -> set[str]:
    """The errnos of all kinds of changes."""
    calls: tuple[Callable[[], object], ...] = (
        lambda: (top / "new").write_bytes(b"x"),
        lambda: (top / "file").write_bytes(b"x"),
        lambda: (top / "new").mkdir(),
        lambda: (top / "file").chmod(0o600),
        lambda: (top / "file").rename(top / "new"),
        lambda: (top / "file").unlink(),
        lambda: (top / "new").symlink_to("file"),
        lambda: os.setxattr(top / "file", "user.a", b"1"),
        lambda: os.truncate(top / "file", 0),
    )
    return {refused(call) for call in calls}


def test_a_sealed_bucket(shared: Ground) -> None:
    """E: in a sealed bucket all changes are EROFS, whether it was sealed before or meanwhile."""
    shared.client.put("file", b"content")
    mount = shared.mount()
    mount.expect_trouble("can only be read from now on")
    shared.client.seal()
    wait_until(lambda: "can only be read from now on" in mount.log_text(), "the seal to be seen")
    for top in (mount.directory, shared.mount().directory):
        assert changes(top) == {"EROFS"}
        assert (top / "file").read_bytes() == b"content"


def test_a_mirror(shared: Ground) -> None:
    """E: a mirror is EROFS."""
    shared.client.put("file", b"content")
    name = f"m-{new_nuid()}"
    mirror = {"name": f"OBJ_{name}", "mirror": {"name": f"OBJ_{shared.client.bucket}"}}
    shared.client.of(name).api("STREAM.CREATE", **mirror, allow_direct=True)
    top = shared.mount(bucket=name).directory
    wait_until((top / "file").exists, "the mirror's copy")
    assert changes(top) == {"EROFS"}
    assert (top / "file").read_bytes() == b"content"


def test_a_read_only_mount(shared: Ground) -> None:
    """E: a mount with `-o ro` is EROFS."""
    shared.client.put("file", b"content")
    top = shared.mount("-o", "ro").directory
    assert changes(top) == {"EROFS"}
    assert (top / "file").read_bytes() == b"content"


# -- full -----------------------------------------------------------------------------------------


def stores(top: Path) -> str:
    """The errno of storing 600 KiB, empty for none."""
    try:
        (top / "large").write_bytes(os.urandom(600 * KIB))
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def stored_at_last(path: Path) -> None:
    """Store 90 KiB as soon as the bytes of a file that could not be saved are freed, which the
    mount finds out when it next tries to save it."""
    wait_until(lambda: not errno_of(lambda: path.write_bytes(b"x" * 90 * KIB)), "room")


#: Nothing of a large file fits, and the file is saved once there is room, or given up.
UNSAVED = "not saved yet|could not be saved|exceeded|WARNING.*full|insufficient"


@pytest.mark.parametrize("limit", [{"max_bytes": 500 * KIB}, {"max_msgs": 6}])
def test_a_full_bucket(shared: Ground, limit: dict[str, int]) -> None:
    """E: a bucket that takes no more bytes, or no more messages, is ENOSPC; deleting works, and
    then storing does."""
    shared.client.put("old", b"x" * 100 * KIB)
    shared.client.reconfigure(**limit, discard="new")
    mount = shared.mount()
    mount.expect_trouble(UNSAVED)
    top = mount.directory
    assert stores(top) == "ENOSPC"
    assert (top / "old").read_bytes() == b"x" * 100 * KIB
    (top / "large").unlink()
    (top / "old").unlink()
    stored_at_last(top / "small")
    assert shared.client.names() == ["small"]


@pytest.mark.parametrize("own", ["jetstream { max_file_store: 500KB }"], indirect=True)
def test_a_reservation(own: Ground) -> None:
    """E: a bucket that reserves more than the server has is refused with ENOSPC's words, and a
    server without room is ENOSPC."""
    wanted = ("bucket", "create", f"--server={own.server.url}", "big", "--max-bytes=1G")
    result = natsfs(own.environment, *wanted)
    assert result.status == 1
    assert "insufficient storage" in result.err
    mount = own.mount()
    mount.expect_trouble(UNSAVED)
    assert stores(mount.directory) == "ENOSPC"
    (mount.directory / "large").unlink()


ACCOUNT = """
accounts {
  A { jetstream { max_file: 500KB, max_mem: 1MB }, users: [ { user: me, password: pw } ] }
}
no_auth_user: me
"""


@pytest.mark.parametrize("own", [ACCOUNT], indirect=True)
def test_a_full_account(own: Ground) -> None:
    """E: an account that has used up its storage is EDQUOT; deleting works, and then storing."""
    own.client.put("old", b"x" * 100 * KIB)
    mount = own.mount("--purge-delay=0s")
    mount.expect_trouble(UNSAVED)
    assert stores(mount.directory) == "EDQUOT"
    (mount.directory / "large").unlink()
    (mount.directory / "old").unlink()
    stored_at_last(mount.directory / "small")
    assert own.client.names() == ["small"]


# -- no answer ------------------------------------------------------------------------------------


def test_no_answer(own: Ground) -> None:
    """E: what the server does not answer within `timeout` is EIO, logged as a time-out, and goes
    on when it answers again."""
    mount = own.mount("--timeout=2s")
    mount.expect_trouble("lost the connection|no answer|no connection|not saved yet")
    top = mount.directory
    (top / "file").write_bytes(b"content" * 30_000)
    own.client.put("other", b"y" * 200_000)
    wait_until((top / "other").exists, "the other file")
    freeze(own.server)
    try:
        begin = time.monotonic()
        assert refused((top / "other").read_bytes) == "EIO"
        assert refused((top / "directory").mkdir) == "EIO"
        assert refused((top / "file").unlink) == "EIO"
        assert time.monotonic() - begin < 30
        assert sorted(os.listdir(top)) == ["file", "other"]
    finally:
        os.kill(own.server.pid, signal.SIGCONT)
    lines = [line for line in mount.log_text().splitlines() if "WARNING" in line]
    told = [line for line in lines if "no answer from" in line or "no connection" in line]
    assert {word for line in told for word in ("mkdir", "read", "unlink") if word in line}
    wait_until(lambda: reads(top / "other") == b"y" * 200_000, "the server's answers")


def reads(path: Path) -> bytes:
    """The content, empty while it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


# -- content --------------------------------------------------------------------------------------


def test_a_version_purged_under_a_reader(shared: Ground) -> None:
    """E, R1: who reads a version that another client has purged gets ESTALE, who opens the file
    again the new one."""
    body = os.urandom(3_000_000)
    shared.client.put("file", body)
    mount = shared.mount()
    mount.expect_trouble("was purged")
    path = mount.directory / "file"
    file = os.open(path, os.O_RDONLY)
    try:
        shared.client.put("file", b"new")
        wait_until(lambda: path.stat().st_size == 3, "the new version")
        assert refused(lambda: os.pread(file, 1000, 2_500_000)) == "ESTALE"
    finally:
        os.close(file)
    assert path.read_bytes() == b"new"


def damaged(client: ForeignClient, **fields: object) -> None:
    """Store the object `bad` with one chunk, described by *fields*."""
    body, nuid = b"x" * 1000, new_nuid()
    client.publish(f"$O.{client.bucket}.C.{nuid}", body)
    digest = "SHA-256=" + urlsafe_b64encode(hashlib.sha256(body).digest()).decode()
    usual = {
        "nuid": nuid,
        "size": 1000,
        "chunks": 1,
        "digest": digest,
        "mtime": "2026-01-01T00:00:00Z",
    }
    client.put_meta("bad", **{**usual, **fields})


WRONG_DIGEST = "SHA-256=" + urlsafe_b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"digest": WRONG_DIGEST}, "ERROR.*SHA-256"),
        ({"chunks": 2, "size": 2000}, "ERROR.*missing"),
        ({"nuid": "N" * 22}, "ERROR.*missing"),
    ],
    ids=["digest", "chunk missing", "all chunks missing"],
)
def test_damaged_content(shared: Ground, fields: dict[str, object], said: str) -> None:
    """E, R3: another digest than promised, and missing chunks, are EIO and an error in the log, of
    which there is one for a digest; other files can be read."""
    damaged(shared.client, **fields)
    shared.client.put("good", b"good")
    mount = shared.mount()
    mount.expect_trouble(said)
    assert refused((mount.directory / "bad").read_bytes) == "EIO"
    errors = mount.log_text().count(" ERROR ")
    # The kernel may ask again for what it read ahead.
    assert errors == 1 if "digest" in fields else errors in (1, 2)
    assert (mount.directory / "good").read_bytes() == b"good"


def test_an_undecodable_meta(shared: Ground) -> None:
    """E: a file that is open when its meta becomes unreadable stays readable; its name is not shown
    and cannot be made anew, which is EIO; other files are not concerned."""
    shared.client.put("file", b"content")
    shared.client.put("good", b"good")
    mount = shared.mount()
    mount.expect_trouble("WARNING")
    top = mount.directory
    with open(top / "file", "rb") as file:
        shared.client.publish(shared.client.meta_subject("file"), b"\xff no meta")
        status = ("status", "--json", top)
        wait_until(
            lambda: (
                "malformed" in natsfs(shared.environment, *status).out
                and '"reason"' in natsfs(shared.environment, *status).out
            ),
            "the meta to be reported",
        )
        assert file.read() == b"content"
    assert os.listdir(top) == ["good"]
    assert refused(lambda: os.open(top / "file", os.O_CREAT | os.O_EXCL)) == "EIO"
    assert (top / "good").read_bytes() == b"good"


# -- the bucket, and what nobody foresaw ----------------------------------------------------------


def test_a_bucket_that_is_gone(shared: Ground) -> None:
    """E, A6: when the bucket is deleted the root of the mount is ENODEV, what was below it ESTALE,
    and a bucket of that name made again is shown."""
    shared.client.put("directory/file", b"content")
    mount = shared.mount()
    mount.expect_trouble("bucket|stream")
    top = mount.directory
    directory = os.open(top / "directory", os.O_RDONLY | os.O_DIRECTORY)
    file = os.open(top / "directory/file", os.O_RDONLY)
    shared.client.drop()
    wait_until(lambda: errno_of(lambda: os.listdir(top)) == "ENODEV", "the end of the bucket")
    assert refused(lambda: os.stat(top / "directory")) in ("ENODEV", "ESTALE")
    assert refused(lambda: (top / "new").touch()) == "ENODEV"
    assert refused(lambda: os.stat("file", dir_fd=directory)) == "ESTALE"
    assert refused(lambda: os.pread(file, 1, 0)) == "ESTALE"
    for descriptor in (file, directory):
        assert errno_of(lambda: os.close(descriptor)) in ("", "ESTALE")  # noqa: B023
    shared.client.create()
    shared.client.put("again", b"x")
    wait_until(lambda: errno_of(lambda: os.listdir(top)) == "", "the new bucket")
    wait_until((top / "again").exists, "its file")


def errno_of(call: Callable[[], object]) -> str:
    """The name of the errno of *call*, empty where it succeeds."""
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


#: Put in front of natsfs: it makes a mistake in one handler, with a secret about.
MISTAKE = """
from natsfs.filesystem.xattrs import Xattrs

def names(self, node):
    password = "{secret}"
    return {{}}[f"nats://me:{{password}}@host"]

Xattrs.names = names
"""


def test_the_unforeseen(shared: Ground) -> None:
    """E: what nobody foresaw is EIO with a traceback in the log, which shows no login, and the
    mount lives on."""
    secret = "pa55-f0r-nobody"
    code = shared.directory / "code"
    code.mkdir()
    (code / "sitecustomize.py").write_text(MISTAKE.format(secret=secret))
    path = f"{code}:{shared.environment['PYTHONPATH']}"
    mount = shared.mount(env={**shared.environment, "PYTHONPATH": path})
    mount.expect_trouble("ERROR.*listxattr|Traceback")
    file = mount.directory / "file"
    file.write_bytes(b"content")
    assert refused(lambda: os.listxattr(file)) == "EIO"
    assert file.read_bytes() == b"content"
    log = mount.log_text()
    assert "Traceback" in log
    assert "KeyError: 'nats://host'" in log
    assert secret not in log


#: Put in front of natsfs: a release takes as long as it does where memory or the disk is short.
SLOW = """
import trio
from natsfs.filesystem.files import Files

fast = Files.release

async def release(self, handle):
    await fast(self, handle)
    await trio.sleep(1)

Files.release = release
"""


def test_a_release_that_ends_after_the_mount(shared: Ground) -> None:
    """E: umount(2) waits for no release: one that ends after the mount is no error."""
    code = shared.directory / "slow"
    code.mkdir()
    (code / "sitecustomize.py").write_text(SLOW)
    path = f"{code}:{shared.environment['PYTHONPATH']}"
    mount = shared.mount("-v", env={**shared.environment, "PYTHONPATH": path})
    (mount.directory / "file").write_bytes(b"content")
    run(["umount", "-i", mount.directory]).check()
    mount.ended(60)
    assert shared.client.get("file") == b"content"
    assert "a release ended when the mount was over" in mount.log_text()
