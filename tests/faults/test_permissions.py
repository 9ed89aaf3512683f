"""Users who may not do everything: what they may, works; the rest is refused at once, and said."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from natsfs.server import Server
from natsfs.store.wire import new_nuid
from tests.faults.secured import natsfs, serving
from tests.mount.foreign import py_client
from tests.mount.mounting import (
    PACKAGE_ROOT,
    Mount,
    natsfs_command,
    private_environment,
    refused,
    wait_until,
)

pytestmark = [pytest.mark.mount, pytest.mark.server]

BUCKET = "models"

#: Seconds that are no time-out, on a busy machine.
AT_ONCE = 5.0

#: What the mounts of these tests may wait for the server: longer than any test.
TIMEOUT = "100s"

INBOX = 'subscribe: "_INBOX.>"'


def documented() -> str:
    """The permissions as the manual has them: definitions of `reader` and `writer`."""
    text = (PACKAGE_ROOT / "natsfs" / "manual" / "permissions.md").read_text()
    found = re.search(r"^```\n(reader = .*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def subjects(role: str) -> list[str]:
    """What *role* may publish to."""
    found = re.search(rf"^{role} = .*?publish: \[(.*?)\]", documented(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return re.findall(r'"([^"]+)"', found[1])


@dataclass
class Guarded:
    """A server with users, and mounts of theirs."""

    server: Server
    directory: Path
    environment: dict[str, str]

    def url(self, user: str, bucket: str = BUCKET) -> str:
        """SOURCE for *user*."""
        return f"nats://{user}:pw@127.0.0.1:{self.server.port}/{bucket}"

    def mount(self, user: str, *options: str, source: str = "") -> Mount:
        """A mount that *user* makes, not started, with a cache of its own."""
        number = len(list(self.directory.glob("mnt-*")))
        top = self.directory / f"mnt-{number}"
        top.mkdir()
        return Mount(
            source or self.url(user),
            top,
            f"--timeout={TIMEOUT}",
            f"--cache-dir={self.directory}/cache-{number}",
            "--purge-delay=0s",
            *options,
            env=self.environment,
            log=self.directory / f"log-{number}",
        )


@contextmanager
def guarded(directory: Path, users: dict[str, str], definitions: str = "") -> Iterator[Guarded]:
    """A server with *users*, each with permissions, and `admin`; its bucket holds `file`."""
    lines = [f"{{ user: {user}, password: pw, permissions: {p} }}" for user, p in users.items()]
    config = "\n".join([definitions, "authorization { users: [ { user: admin, password: pw }"])
    with serving(directory / "server", "\n".join([config, *lines, "] }"])) as server:
        made = Guarded(server, directory, private_environment(directory / "private"))
        with made.mount("admin", "--create") as mount:
            (mount.directory / "file").write_bytes(b"content" * 40_000)
        yield made


@pytest.fixture
def by_the_readme(tmp_path: Path) -> Iterator[Guarded]:
    """A server with the users `reader`, `writer` and `changing`, who may write at first."""
    # A server that has no use for one of the definitions would not take its configuration.
    users = {"reader": "$reader", "writer": "$writer", "changing": "$writer"}
    with guarded(tmp_path, users, documented()) as made:
        yield made


CHANGES: dict[str, Callable[[Path], object]] = {
    "create": lambda top: (top / "new").write_bytes(b"x"),
    "write": lambda top: (top / "file").write_bytes(b"x"),
    "chmod": lambda top: (top / "file").chmod(0o600),
    "mkdir": lambda top: (top / "directory").mkdir(),
    "symlink": lambda top: (top / "link").symlink_to("file"),
    "setxattr": lambda top: os.setxattr(top / "file", "user.a", b"1"),
    "rename": lambda top: (top / "file").rename(top / "other"),
    "unlink": lambda top: (top / "file").unlink(),
}


@pytest.mark.parametrize("options", [[], ["-o", "ro"]])
def test_reader(by_the_readme: Guarded, options: list[str]) -> None:
    """E: with the permissions of the manual to read, everything can be read by every command, and
    a change is EROFS at once, without `-o ro` as with it."""
    mount = by_the_readme.mount("reader", *options)
    with mount:
        top = mount.directory
        assert os.listdir(top) == ["file"]
        assert (top / "file").read_bytes() == b"content" * 40_000
        assert os.statvfs(top).f_flag & os.ST_RDONLY
        begin = time.monotonic()
        assert {refused(lambda: call(top)) for call in CHANGES.values()} == {"EROFS"}  # noqa: B023
        assert time.monotonic() - begin < AT_ONCE
        status = natsfs(by_the_readme.environment, "status", top).check()
        assert "read-only" in status
        with by_the_readme.mount("admin") as other:
            (other.directory / "more").write_bytes(b"x")
            wait_until((top / "more").exists, "what another client stored")
            (other.directory / "more").unlink()
            wait_until(lambda: not (top / "more").exists(), "its end")
    denials = [line for line in mount.log_text().splitlines() if "credentials" in line]
    assert len(denials) == (0 if options else 2)
    if not options:
        assert "allow publish to $O.models.M.*" in denials[0]
        assert "mounted read-only" in denials[1]


def test_commands_of_a_reader(by_the_readme: Guarded) -> None:
    """E: `ls`, `watch`, `fsck` and `bucket info` work with the permissions to read."""
    url, env = by_the_readme.url("reader"), by_the_readme.environment
    assert "file" in natsfs(env, "ls", url).check()
    assert "nothing is wrong" in natsfs(env, "fsck", url).check()
    command = natsfs_command("watch", "--json", "--count=1", url)
    with (
        by_the_readme.mount("admin") as mount,
        subprocess.Popen(command, env=env, cwd="/", stdout=subprocess.PIPE) as watch,
    ):
        # Nobody sees when it has begun to watch.
        wait_until(lambda: seen_by(watch, mount.directory / "file"), "a change")
        assert watch.stdout is not None
        assert json.loads(watch.stdout.read())["name"] == "file"


def put_irregular(made: Guarded) -> bytes:
    """Store `irregular`, whose chunks are of all sizes and not in a row; its content."""
    client = py_client(made.url("admin", "").rstrip("/"), made.environment).of(BUCKET)
    sizes, nuid = (10, 70_000, 1, 5000, 64), new_nuid()
    chunks = [bytes([number]) * size for number, size in enumerate(sizes)]
    for chunk in chunks:
        client.publish(f"$O.{BUCKET}.C.{nuid}", chunk)
        client.publish(f"$O.{BUCKET}.C.{'x' * 22}", b"another's")
    client.put_meta("irregular", nuid=nuid, size=sum(sizes), chunks=len(sizes), mtime="")
    return b"".join(chunks)


def test_irregular_objects(by_the_readme: Guarded) -> None:
    """E, R5: the permissions to read are enough for objects of chunks of all sizes."""
    body = put_irregular(by_the_readme)
    with by_the_readme.mount("reader") as mount:
        with open(mount.directory / "irregular", "rb") as file:
            file.seek(70_005)
            assert file.read(20) == body[70_005:70_025]
        assert (mount.directory / "irregular").read_bytes() == body


def test_irregular_objects_denied(tmp_path: Path) -> None:
    """E, R5: without the permission for them they are EACCES at once."""
    subject = "$JS.API.CONSUMER.CREATE.OBJ_models.*.$O.models.C.*"
    with guarded(tmp_path, {"user": without(subject)}) as made:
        put_irregular(made)
        with made.mount("user") as mount:
            assert outcome((mount.directory / "irregular").read_bytes) == "EACCES"
            assert outcome((mount.directory / "file").read_bytes) == ""
        assert f"allow publish to {subject}" in mount.log_text()


def seen_by(watch: subprocess.Popen[bytes], path: Path) -> bool:
    """Change the file at *path*; whether *watch* has seen such a change and ended."""
    path.touch()
    return watch.poll() == 0


def test_writer(by_the_readme: Guarded) -> None:
    """E: with the permissions of the manual to write, everything works and nothing is denied."""
    with by_the_readme.mount("writer") as mount:
        top = mount.directory
        for call in CHANGES.values():
            if call is not CHANGES["unlink"]:
                call(top)
        (top / "large").write_bytes(os.urandom(3_000_000))
        (top / "large").write_bytes(b"small")
        assert (top / "other").read_bytes() == b"x"
        (top / "other").unlink()
        assert sorted(os.listdir(top)) == ["directory", "large", "link", "new"]
    assert "credentials" not in mount.log_text()
    found = json.loads(
        natsfs(by_the_readme.environment, "gc", "--json", by_the_readme.url("admin")).check()
    )
    assert not found["chunks"]


# -- what changes while it is mounted -------------------------------------------------------------


def allow(made: Guarded, role: str) -> None:
    """Give the user `changing` the permissions of *role*, as an administrator does."""
    path = made.server.directory / "server.conf"
    user = "user: changing, password: pw, permissions: $"
    path.write_text(re.sub(rf"({re.escape(user)})\w+", rf"\g<1>{role}", path.read_text()))
    reloaded = log_of(made).count("Reloaded server configuration")
    os.kill(made.server.pid, signal.SIGHUP)
    wait_until(
        lambda: log_of(made).count("Reloaded server configuration") > reloaded, "it is reloaded"
    )


def log_of(made: Guarded) -> str:
    (path,) = made.server.directory.glob("*.log")
    return path.read_text()


@pytest.mark.parametrize("first", ["write", "mkdir", "rename"])
def test_rights_taken_and_given(by_the_readme: Guarded, first: str) -> None:
    """E: when the right to store is taken away, the next change is refused at once, and the log and
    `natsfs status` say that the mount can only be read; when it is given again, changes work
    without a remount."""
    mount = by_the_readme.mount("changing")
    mount.expect_trouble("can only be read|can be written|is not saved yet")
    with mount:
        top = mount.directory
        allow(by_the_readme, "reader")
        assert outcome(lambda: CHANGES[first](top)) == "EACCES"
        wait_until(lambda: "can only be read from now on" in mount.log_text(), "the log says so")
        assert {outcome(lambda: call(top)) for call in CHANGES.values()} == {"EROFS"}  # noqa: B023
        assert os.listdir(top) == ["file"]
        assert "read-only" in natsfs(by_the_readme.environment, "status", top).check()
        allow(by_the_readme, "writer")
        wait_until(lambda: outcome((top / "made").mkdir) == "", "it can be written")
        for name in ("create", "chmod", "setxattr", "rename"):
            CHANGES[name](top)


def test_what_waits_for_rights(by_the_readme: Guarded) -> None:
    """W7: a file that is open when the right to store is taken away is kept, and is stored when it
    is given again."""
    mount = by_the_readme.mount("changing")
    mount.expect_trouble("can only be read|can be written|is not saved yet|WARNING.*flush")
    with mount, by_the_readme.mount("reader") as other:
        file = os.open(mount.directory / "open", os.O_CREAT | os.O_WRONLY)
        os.write(file, b"precious")
        allow(by_the_readme, "reader")
        assert outcome(lambda: os.close(file)) == "EACCES"
        wait_until(lambda: "can only be read from now on" in mount.log_text(), "the log says so")
        allow(by_the_readme, "writer")
        wait_until(lambda: outcome((mount.directory / "made").mkdir) == "", "it can be written")
        wait_until(lambda: is_there(other.directory / "open", b"precious"), "what waited")


def is_there(path: Path, body: bytes) -> bool:
    return path.exists() and path.read_bytes() == body


# -- what is missing ------------------------------------------------------------------------------


def without(subject: str) -> str:
    """The permissions of a writer but for *subject*."""
    allowed = ", ".join(f'"{one}"' for one in subjects("writer") if one != subject)
    return f"{{ publish: [ {allowed} ], {INBOX} }}"


@pytest.fixture(scope="module")
def incomplete(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server whose users u0, u1, … each lack one of the permissions of a writer."""
    users = {f"u{number}": without(one) for number, one in enumerate(subjects("writer"))}
    with guarded(tmp_path_factory.mktemp("incomplete"), users) as made:
        yield made


def outcome(call: Callable[[], object]) -> str:
    """The errno of *call*, empty for none; fails when it took long."""
    begin = time.monotonic()
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    finally:
        assert time.monotonic() - begin < AT_ONCE
    return ""


NOT_MOUNTED = (
    "$JS.API.STREAM.INFO.OBJ_models",
    "$JS.API.CONSUMER.CREATE.OBJ_models.*.$O.models.M.>",
)


@pytest.mark.parametrize("subject", NOT_MOUNTED)
def test_not_enough_to_mount(incomplete: Guarded, subject: str, tmp_path: Path) -> None:
    """E: where a mount cannot be, it is refused at once by one line that says what to allow."""
    user = f"u{subjects('writer').index(subject)}"
    (tmp_path / "mnt").mkdir()
    begin = time.monotonic()
    result = natsfs(incomplete.environment, "mount", incomplete.url(user), tmp_path / "mnt")
    assert time.monotonic() - begin < AT_ONCE
    assert result.status == 32
    assert len(result.err.splitlines()) == 1
    assert f"allow publish to {subject}" in result.err


#: What each missing permission costs: reading, storing, changing metadata, `df`.
COSTS: dict[str, tuple[str, str, str, str]] = {
    "$JS.API.DIRECT.GET.OBJ_models": ("EACCES", "", "", ""),
    "$JS.API.STREAM.MSG.GET.OBJ_models": ("", "", "", ""),
    "$JS.API.CONSUMER.CREATE.OBJ_models.*.$O.models.C.*": ("", "", "", ""),
    "$JS.API.CONSUMER.DELETE.OBJ_models.*": ("", "", "", ""),
    "$JS.FC.OBJ_models.>": ("", "", "", ""),
    "$JS.API.INFO": ("", "", "", ""),
    "$O.models.C.*": ("", "EACCES", "", ""),
    "$O.models.M.*": ("", "EROFS", "EROFS", ""),
    "$JS.API.STREAM.PURGE.OBJ_models": ("", "", "", ""),
}


#: What such a short life does not need: reading at the leader, flow control, and objects whose
#: chunks are of all sizes.
SELDOM = (
    "$JS.API.STREAM.MSG.GET.OBJ_models",
    "$JS.FC.OBJ_models.>",
    "$JS.API.CONSUMER.CREATE.OBJ_models.*.$O.models.C.*",
)


def test_all_permissions_are_tried() -> None:
    """E: no permission is left out of these tests."""
    assert {*COSTS, *NOT_MOUNTED} == set(subjects("writer"))


@pytest.mark.parametrize("subject", COSTS)
def test_one_missing(incomplete: Guarded, subject: str) -> None:
    """E: what needs the missing permission is refused at once, the rest works, and one line of the
    log says what to allow."""
    user = f"u{subjects('writer').index(subject)}"
    mount = incomplete.mount(user)
    mount.expect_trouble("is not saved yet|could not be saved")
    with mount:
        top = mount.directory
        new = top / f"new-{user}"
        found = (
            outcome((top / "file").read_bytes),
            outcome(lambda: new.write_bytes(b"x" * 1000)),
            outcome(lambda: (top / "file").chmod(0o600)),
            outcome(lambda: os.statvfs(top)),
        )
        assert found == COSTS[subject]
        if not found[1]:
            new.write_bytes(b"y")
            new.rename(top / "renamed")
            (top / "renamed").unlink()
    lines = [line for line in mount.log_text().splitlines() if "session.denials" in line]
    lines = [line for line in lines if f"allow publish to {subject}" in line]
    unneeded = subject in SELDOM
    assert len(lines) == (0 if unneeded else 1), mount.log_text()


def test_flow_control_denied(tmp_path: Path) -> None:
    """E: a bucket that is too large to come without flow control is refused at once, not loaded for
    ever, where answering that is not allowed."""
    subject = "$JS.FC.OBJ_models.>"
    with guarded(tmp_path, {"user": without(subject)}) as made:
        with made.mount("admin") as mount:
            for number in range(90):
                path = mount.directory / f"heavy-{number}"
                path.touch()
                os.setxattr(path, "user.weight", os.urandom(40_000))
        (tmp_path / "mnt").mkdir()
        result = natsfs(made.environment, "mount", made.url("user"), tmp_path / "mnt")
    assert result.status == 32
    assert f"allow publish to {subject}" in result.err


def test_no_list_of_buckets(by_the_readme: Guarded, tmp_path: Path) -> None:
    """B1: who may not list the buckets is told so, at once."""
    (tmp_path / "all").mkdir()
    url = by_the_readme.url("reader", "").rstrip("/")
    result = natsfs(by_the_readme.environment, "mount", url, tmp_path / "all")
    assert result.status == 32
    assert "allow publish to $JS.API.STREAM.LIST" in result.err


def test_all_buckets_of_a_reader(tmp_path: Path) -> None:
    """B1: in a mount of all buckets one that may only be read is EROFS, one that may not be looked
    at is EACCES, both at once."""
    allowed = ", ".join(f'"{one}"' for one in [*subjects("reader"), "$JS.API.STREAM.LIST"])
    users = {"reader": f"{{ publish: [ {allowed} ], {INBOX} }}"}
    with guarded(tmp_path, users) as made:
        natsfs(
            made.environment, "bucket", "create", f"--server={made.url('admin', '')[:-1]}", "closed"
        ).check()
        with made.mount("reader", source=made.url("reader", "")[:-1]) as mount:
            top = mount.directory
            assert sorted(os.listdir(top)) == ["closed", BUCKET]
            assert (top / BUCKET / "file").read_bytes() == b"content" * 40_000
            assert outcome(lambda: (top / BUCKET / "new").touch()) == "EROFS"
            assert outcome(lambda: os.listdir(top / "closed")) == "EACCES"
            assert outcome(lambda: (top / "made").mkdir()) == "EACCES"
            assert outcome(lambda: (top / BUCKET).rmdir()) in ("EACCES", "ENOTEMPTY")
