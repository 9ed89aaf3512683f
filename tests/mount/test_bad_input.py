"""What natsfs says when it cannot do what it is asked, and what it leaves behind: nothing.

Each refusal is one line on standard error that names the cause and a way out, an exit status of
mount(8) (1 usage or permissions, 2 this host, 32 the mount failed), no mount and no process.
"""

from __future__ import annotations

import json
import os
import pwd
import shlex
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from natsfs.server import Server, start_server

from .conftest import Mounter
from .foreign import ForeignClient
from .mounting import (
    Mount,
    Result,
    mounted_device,
    natsfs_command,
    private_environment,
    run,
    wait_until,
)

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

USAGE = 1
SYSTEM = 2
MOUNT_FAILED = 32

#: Payloads of metas that no reader can make an object of.
UNREADABLE = (b"no JSON", b"[]", b'{"name": 7}', b'{"name": "x", "size": "?"}')

NOBODY = pwd.getpwnam("nobody")


@dataclass
class Attempt:
    """A call of `natsfs mount` that is to fail, and a look at what it left behind."""

    directory: Path
    env: dict[str, str]
    options: list[str]
    #: In the environment of every process that the attempt starts.
    mark: str

    def mount(
        self,
        source: str,
        *more: str,
        directory: Path | None = None,
        wrap: Callable[[list[str]], list[str]] = list,
    ) -> Result:
        """Run the command; *wrap* puts other commands in front of it."""
        command = natsfs_command("mount", source, directory or self.directory, *self.options, *more)
        return run(wrap(command), cwd=Path("/"), env={**self.env, "MARK": self.mark}, timeout=60)

    def assert_nothing_is_left(self) -> None:
        """No mount, and no process that knows the mark."""
        assert mounted_device(self.directory) is None
        wait_until(lambda: not self._processes(), f"the end of {self._processes()}")

    def _processes(self) -> list[str]:
        found = []
        for process in Path("/proc").iterdir():
            try:
                if f"MARK={self.mark}".encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_text().replace("\0", " "))
            except (OSError, UnicodeDecodeError):
                continue
        return [line for line in found if line]


@pytest.fixture(params=["foreground", "background"])
def attempt(
    request: pytest.FixtureRequest, tmp_path: Path, environment: dict[str, str]
) -> Iterator[Attempt]:
    """An attempt in either mode, judged for what it left behind."""
    directory = tmp_path / "mnt"
    directory.mkdir()
    options = ["-f"] if request.param == "foreground" else []
    made = Attempt(directory, environment, options, mark=uuid.uuid4().hex)
    yield made
    made.assert_nothing_is_left()


def assert_refused(result: Result, status: int, *words: str) -> None:
    """One line on standard error that has all the *words*, nothing else, and the exit status."""
    lines = result.err.splitlines()
    assert len(lines) == 1, result
    assert result.status == status, result
    assert result.out == ""
    for word in words:
        assert word.lower() in lines[0].lower(), f"{word!r} not in {lines[0]!r}"


def as_nobody(command: list[str]) -> list[str]:
    """*command* run by the user nobody, who is lent the right to read, for a Python under /root."""
    lent = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    ids = (f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups")
    return ["setpriv", *ids, *lent, *command]


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_no_server(attempt: Attempt) -> None:
    """Without a server: says which address was tried and how to name another one."""
    port = free_port()
    result = attempt.mount(f"nats://127.0.0.1:{port}/bucket")
    assert_refused(result, MOUNT_FAILED, f"127.0.0.1:{port}", "--server")


def test_no_server_by_default(attempt: Attempt) -> None:
    """A server from NATS_URL that is not there is named like one from the command line."""
    port = free_port()
    attempt.env["NATS_URL"] = f"nats://localhost:{port}"
    assert_refused(attempt.mount("bucket"), MOUNT_FAILED, f"localhost:{port}", "NATS_URL")


def test_unknown_host(attempt: Attempt) -> None:
    """A host name that does not resolve is named."""
    assert_refused(attempt.mount("nats://no-such-host.invalid/b"), MOUNT_FAILED, "no-such-host")


def test_server_of_another_kind(attempt: Attempt) -> None:
    """A port on which nothing speaks NATS is given up, not waited for without end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert_refused(attempt.mount(f"nats://{address}/bucket"), MOUNT_FAILED, address)


def test_wrong_bucket(attempt: Attempt, nats_url: str) -> None:
    """A bucket that does not exist: says its name and how to make it."""
    result = attempt.mount(f"{nats_url}/no-such-bucket")
    assert_refused(result, MOUNT_FAILED, "no-such-bucket", "--create")


@pytest.mark.parametrize("name", ["not.a.bucket", "two words", "ümlaut"])
def test_malformed_bucket(attempt: Attempt, nats_url: str, name: str) -> None:
    """A name that no bucket can have is refused as such."""
    assert_refused(attempt.mount(f"{nats_url}/{name}"), USAGE, name, "bucket")


@pytest.mark.parametrize("scheme", ["http", "nat", "file"])
def test_wrong_scheme(attempt: Attempt, scheme: str) -> None:
    """A URL of another scheme: says which ones there are."""
    result = attempt.mount(f"{scheme}://127.0.0.1:4222/bucket")
    assert_refused(result, USAGE, scheme, "nats://", "tls://")


def test_wrong_port(attempt: Attempt) -> None:
    """A port that cannot be is refused without trying."""
    assert_refused(attempt.mount("nats://127.0.0.1:123456/bucket"), USAGE, "123456")


def test_wrong_password(attempt: Attempt, tmp_path: Path) -> None:
    """Credentials that the server refuses: says so, and does not repeat the password."""
    users = 'authorization { users: [{user: "u", password: "right"}] }'
    started = start_server(tmp_path / "auth", extra_config=users)
    try:
        for login in ("u:wrong-secret@", ""):
            url = started.url.replace("://", f"://{login}")
            result = attempt.mount(f"{url}/bucket")
            assert_refused(result, MOUNT_FAILED, "credentials", "--creds")
            assert "wrong-secret" not in result.err
    finally:
        started.stop()


@pytest.fixture(scope="module")
def plain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without JetStream."""
    started = start_server(tmp_path_factory.mktemp("plain"), jetstream=False)
    yield started
    started.stop()


def test_server_without_jetstream(attempt: Attempt, plain_server: Server) -> None:
    """A server without JetStream: says so and how it is switched on."""
    for options in ([], ["--create"]):
        result = attempt.mount(f"{plain_server.url}/bucket", *options)
        assert_refused(result, MOUNT_FAILED, "JetStream", "-js")


def test_missing_directory(attempt: Attempt, nats_url: str, bucket: str, tmp_path: Path) -> None:
    """A directory that does not exist: says so and how it is made."""
    missing = tmp_path / "no" / "such"
    result = attempt.mount(f"{nats_url}/{bucket}", directory=missing)
    assert_refused(result, MOUNT_FAILED, str(missing), "mkdir")
    assert not missing.exists()


def test_file_as_directory(attempt: Attempt, nats_url: str, bucket: str, tmp_path: Path) -> None:
    """A file cannot be mounted on."""
    (tmp_path / "file").touch()
    result = attempt.mount(f"{nats_url}/{bucket}", directory=tmp_path / "file")
    assert_refused(result, MOUNT_FAILED, str(tmp_path / "file"), "directory")


def test_directory_already_mounted(attempt: Attempt, mount: Mount) -> None:
    """A directory that is mounted already: says so and how that is ended; the mount lives on."""
    (mount.directory / "f").write_bytes(b"x")
    result = attempt.mount(mount.source, directory=mount.directory)
    assert_refused(result, MOUNT_FAILED, str(mount.directory), "already", "umount")
    assert (mount.directory / "f").read_bytes() == b"x"


def test_directory_of_a_dead_mount(attempt: Attempt, mount: Mount) -> None:
    """A directory whose mount died: says so and how it is freed."""
    run(["kill", "-KILL", str(mount.pid)]).check()
    wait_until(lambda: not_connected(mount.directory), "the end of the daemon")
    result = attempt.mount(mount.source, directory=mount.directory)
    mount.kill()
    assert_refused(result, MOUNT_FAILED, str(mount.directory), "umount")


def not_connected(directory: Path) -> bool:
    """Whether nobody serves the mount on *directory* any more."""
    try:
        directory.stat()
    except OSError:
        return True
    return False


def with_device(mode: int | None) -> Callable[[list[str]], list[str]]:
    """For `Attempt.mount`: with a /dev of its own whose fuse has *mode*, or that has no fuse."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a mount namespace with another /dev/fuse")
    nodes = {"null": "1 3", "urandom": "1 9"}
    script = ["mount -t tmpfs none /dev", *(f"mknod /dev/{n} c {d}" for n, d in nodes.items())]
    script.append("chmod 666 /dev/*")
    if mode is not None:
        script.append(f"mknod /dev/fuse c 10 229 && chmod {mode:o} /dev/fuse")

    def wrap(command: list[str]) -> list[str]:
        line = " && ".join([*script, f"exec {shlex.join(command)}"])
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", line]

    return wrap


def test_no_fuse_device(attempt: Attempt, nats_url: str, bucket: str) -> None:
    """Without /dev/fuse: says how the host or the container gets it."""
    result = attempt.mount(f"{nats_url}/{bucket}", wrap=with_device(None))
    assert_refused(result, SYSTEM, "/dev/fuse", "modprobe")


@pytest.fixture
def stranger(attempt: Attempt) -> Iterator[Attempt]:
    """An attempt of the user nobody at a directory that it may look at and not write."""
    with tempfile.TemporaryDirectory(prefix="natsfs-") as name:
        top = Path(name)
        top.chmod(0o755)
        attempt.directory = top / "mnt"
        attempt.directory.mkdir(mode=0o755)
        attempt.env = private_environment(top / "private")
        for path in (top / "private", *(top / "private").iterdir()):
            os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
        yield attempt


def test_no_permission_for_the_device(stranger: Attempt, nats_url: str, bucket: str) -> None:
    """A user who may not open /dev/fuse is told so."""
    os.chown(stranger.directory, NOBODY.pw_uid, NOBODY.pw_gid)
    wrap = with_device(0o600)
    result = stranger.mount(f"{nats_url}/{bucket}", wrap=lambda argv: wrap(as_nobody(argv)))
    assert_refused(result, USAGE, "/dev/fuse", "may not")


def test_no_permission_for_the_directory(stranger: Attempt, nats_url: str, bucket: str) -> None:
    """A user who may not write the directory is told so."""
    wrap = with_device(0o666)
    result = stranger.mount(f"{nats_url}/{bucket}", wrap=lambda argv: wrap(as_nobody(argv)))
    assert_refused(result, USAGE, str(stranger.directory), "may not")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--no-such-option"], "--no-such-option"),
        (["-o", "no_such_option"], "no_such_option"),
        (["--timeout", "soon"], "soon"),
        (["--timeout", "-1"], "timeout"),
        (["--creds", "/no/such/file"], "/no/such/file"),
        (["--server", "nats://127.0.0.1:1"], "--server"),
        (["one", "too-many"], "too-many"),
    ],
)
def test_unknown_options(
    attempt: Attempt, nats_url: str, bucket: str, options: list[str], word: str
) -> None:
    """An option or value that does not exist is named, with where to look."""
    assert_refused(attempt.mount(f"{nats_url}/{bucket}", *options), USAGE, word)


def test_no_arguments(attempt: Attempt) -> None:
    """Without SOURCE and DIR: says what is missing and where help is."""
    for arguments, help_ in (([], "--help"), (["bucket"], "--all DIRECTORY")):
        result = run(natsfs_command("mount", *arguments), env=attempt.env)
        assert_refused(result, USAGE, help_)


def test_umount_of_what_is_not_mounted(attempt: Attempt) -> None:
    """`natsfs umount` of a directory that is no mount says so and fails."""
    result = run(natsfs_command("umount", attempt.directory), env=attempt.env)
    assert result.status != 0
    assert len(result.err.splitlines()) == 1
    assert str(attempt.directory) in result.err


def test_unreadable_meta(mounter: Mounter, py: ForeignClient, environment: dict[str, str]) -> None:
    """E: a meta that cannot be decoded is in `natsfs status`, logged once, and hurts no other."""
    py.put("good", b"good")
    for number, payload in enumerate(UNREADABLE):
        py.publish(py.meta_subject(f"bad-{number}"), payload)
    py.put("later", b"later")
    mount = mounter()
    mount.expect_trouble("WARNING.*cannot be shown")
    assert sorted(path.name for path in mount.directory.iterdir()) == ["good", "later"]
    assert (mount.directory / "good").read_bytes() == b"good"
    (mount.directory / "new").write_bytes(b"new")
    (mount.directory / "good").rename(mount.directory / "renamed")
    assert py.get("renamed") == b"good"
    status = shown_status(mount, environment)
    reasons = {entry["name"]: entry["reason"] for entry in status["malformed"]}
    assert set(reasons) == {py.meta_subject(f"bad-{number}") for number in range(4)}
    assert all(reasons.values())
    lines = mount.log_text().splitlines()
    assert [len([line for line in lines if subject in line]) for subject in reasons] == [1] * 4


def test_unreadable_meta_comes_and_goes(
    mount: Mount, py: ForeignClient, environment: dict[str, str]
) -> None:
    """E: a file whose meta becomes unreadable while mounted is reported until it is mended."""
    mount.expect_trouble("WARNING.*cannot be shown")
    (mount.directory / "f").write_bytes(b"x")
    py.publish(py.meta_subject("f"), b"broken")
    wait_until(lambda: shown_status(mount, environment)["malformed"], "the report")
    py.put("g", b"others work")
    wait_until((mount.directory / "g").exists, "the other object")
    py.put("h", b"mended")
    py.publish(py.meta_subject("f"), json.dumps({**py.meta("h"), "name": "f"}).encode())
    wait_until(lambda: not shown_status(mount, environment)["malformed"], "the end of the report")
    assert (mount.directory / "f").read_bytes() == b"mended"


def shown_status(mount: Mount, environment: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    """What `natsfs status --json` says of *mount*."""
    text = run(natsfs_command("status", "--json", mount.directory), env=environment).check()
    found = json.loads(text)
    mine: dict[str, list[dict[str, str]]] = found[0] if isinstance(found, list) else found
    return mine
