"""`natsfs doctor` on hosts and servers that lack something."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from natsfs.data.runs import LAYOUT
from natsfs.server import start_server
from tests.faults.secured import natsfs

from .conftest import Mounter
from .foreign import ForeignClient
from .mounting import Result, natsfs_command, run

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

#: Where `scripts/setup` puts the oldest server.
OLD_SERVER = Path(sys.prefix, "servers", "2.9.10", "nats-server")

#: Runs `natsfs doctor --json`; its findings, those of one check in a list.
Doctor = Callable[..., "Findings"]


class Findings:
    """What the doctor says, without the mounts of others that run on this host meanwhile."""

    def __init__(self, result: Result, mine: str) -> None:
        assert result.err == ""
        found = json.loads(result.out)
        wrong = any(one["state"] == "problem" for one in found)
        assert result.status == (1 if wrong else 0)
        self.all = [one for one in found if one["check"] != "mount" or mine in one["text"]]

    def of(self, check: str) -> dict[str, Any]:
        """The only finding of *check*."""
        found: dict[str, Any]
        (found,) = [one for one in self.all if one["check"] == check]
        assert bool(found["advice"]) == (found["state"] != "ok")
        return found

    def bad(self) -> dict[str, str]:
        """Check and state of all that is not ok."""
        return {one["check"]: one["state"] for one in self.all if one["state"] != "ok"}


@pytest.fixture
def doctor(environment: dict[str, str], tmp_path: Path) -> Doctor:
    def call(*arguments: str | Path, before: str = "", **env: str) -> Findings:
        command = shlex.join(natsfs_command("doctor", "--json", *arguments))
        done = run(f"{before}\n{command}", env={**environment, **env}, cwd=Path("/"), timeout=60)
        return Findings(done, str(tmp_path))

    return call


# -- the server -----------------------------------------------------------------------------------


def test_all_is_well(nats_url: str, doctor: Doctor, environment: dict[str, str]) -> None:
    """E: with a bucket that natsfs made nothing is found, and nothing is changed."""
    env = {**environment, "NATS_URL": nats_url}
    run(natsfs_command("bucket", "create", "well"), env=env).check()
    info = natsfs_command("bucket", "info", "well", "--json")
    before = run(info, env=env).check()
    found = doctor("well", NATS_URL=nats_url)
    assert found.bad() == {}
    assert {"reading", "following", "writing", "advisories", "clock"} <= {
        one["check"] for one in found.all
    }
    assert run(info, env=env).check() == before
    assert not Path(environment["XDG_CACHE_HOME"], "natsfs").exists()


def test_text(py: ForeignClient, environment: dict[str, str]) -> None:
    """E: each line says how it is, and what to do where it is not good."""
    command = natsfs_command("doctor", f"{py.url}/{py.bucket}")
    lines = run(command, env=environment, cwd=Path("/")).out.splitlines()
    assert f"ok       bucket {py.bucket}: 0 B in 0 messages" in lines
    at = next(number for number, line in enumerate(lines) if line.startswith("warning  settings:"))
    assert "allow_atomic" in lines[at]
    assert lines[at + 1].startswith("           → `natsfs bucket upgrade")


def test_a_server_alone(nats_url: str, doctor: Doctor) -> None:
    """E: without a bucket the server is looked at; one that is named and away is a problem."""
    assert doctor(nats_url).of("server")["state"] == "ok"
    away = doctor("nats://127.0.0.1:9/b", "--timeout=2s").of("server")
    assert away["state"] == "problem"
    assert "127.0.0.1:9" in away["text"]


def test_no_such_bucket(nats_url: str, doctor: Doctor) -> None:
    """E: a bucket that is not there is a problem, with the command that makes it."""
    found = doctor(f"{nats_url}/none").of("bucket")
    assert found["state"] == "problem"
    assert "natsfs bucket create none" in found["advice"]


def test_without_jetstream(tmp_path: Path, doctor: Doctor) -> None:
    """E: a server without JetStream is a problem, and nothing else is asked of it."""
    server = start_server(tmp_path / "server", jetstream=False)
    try:
        found = doctor(f"{server.url}/b", "--timeout=5s")
    finally:
        server.stop()
    assert found.bad() == {"JetStream": "problem"}
    assert "-js" in found.of("JetStream")["advice"]


def test_a_sealed_bucket(py: ForeignClient, doctor: Doctor) -> None:
    """A6: what can never be written is told, and is no problem for who reads."""
    py.seal()
    found = doctor(f"{py.url}/{py.bucket}").of("writing")
    assert (found["state"], found["text"]) == ("warning", "the bucket is sealed")


USERS = """
authorization {
  users: [
    { user: all, password: x }
    { user: reader, password: x, permissions: {
      publish: [ "$JS.API.STREAM.INFO.OBJ_b", "$JS.API.STREAM.MSG.GET.OBJ_b"
                 "$JS.API.DIRECT.GET.OBJ_b", "$JS.API.CONSUMER.CREATE.OBJ_b.*.$O.b.M.>"
                 "$JS.API.CONSUMER.CREATE.OBJ_b.*.$O.b.C.*", "$JS.API.CONSUMER.DELETE.OBJ_b.*"
                 "$JS.FC.OBJ_b.>" ]
      subscribe: [ "_INBOX.>" ] } }
    { user: blind, password: x, permissions: {
      publish: [ "$JS.API.STREAM.INFO.OBJ_b", "$JS.API.INFO" ], subscribe: [ "_INBOX.>" ] } }
  ]
}
"""


def test_permissions(tmp_path: Path, doctor: Doctor, environment: dict[str, str]) -> None:
    """E: what credentials may not is told with the subject to allow; reading is needed, the rest
    is not."""
    server = start_server(tmp_path / "server", extra_config=USERS)
    try:
        url = server.url.replace("://", "://{}:x@") + "/b"
        make = natsfs_command("bucket", "create", url.format("all"))
        run(make, env=environment).check()
        reader = doctor(url.format("reader"))
        blind = doctor(url.format("blind"))
    finally:
        server.stop()
    assert reader.bad() == {"writing": "warning", "advisories": "warning"}
    assert "$O.b.M.*" in reader.of("writing")["text"]
    assert "$JS.EVENT.ADVISORY.API" in reader.of("advisories")["advice"]
    assert blind.of("reading")["state"] == blind.of("following")["state"] == "problem"
    assert "allow publish to $JS.API.CONSUMER.CREATE.OBJ_b" in blind.of("following")["advice"]


@pytest.mark.skipif(not OLD_SERVER.exists(), reason="scripts/test fetches the oldest server")
def test_an_old_server(tmp_path: Path, doctor: Doctor, environment: dict[str, str]) -> None:
    """E: what an old server lacks is told, and what that means."""
    server = start_server(tmp_path / "server", binary=OLD_SERVER)
    try:
        run(natsfs_command("bucket", "create", f"{server.url}/b"), env=environment)
        found = doctor(f"{server.url}/b")
    finally:
        server.stop()
    version = found.of("server version")
    assert version["state"] == "warning"
    assert "atomic batches" in version["text"]
    assert "batched direct get" in version["text"]
    assert found.of("settings")["state"] == "ok"


def test_another_clock(py: ForeignClient, doctor: Doctor, tmp_path: Path) -> None:
    """A4: a clock that is not the server's is told, by how much and in which direction."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import time\nnow = time.time_ns\ntime.time_ns = lambda: now() - 90 * 10**9\n"
    )
    path = f"{tmp_path / 'site'}:{os.environ.get('PYTHONPATH', '')}:{Path.cwd()}"
    found = doctor(f"{py.url}/{py.bucket}", PYTHONPATH=path).of("clock")
    assert found["state"] == "warning"
    assert found["text"] in (
        "this host is 1m30s behind the server",
        "this host is 1m29s behind the server",
    )


# -- the host -------------------------------------------------------------------------------------


def test_a_dead_mount(mounter: Mounter, doctor: Doctor, py: ForeignClient) -> None:
    """W7: a mount whose process has died is a problem, what is in its journal a warning."""
    mount = mounter()
    mounts = doctor(py.url)
    assert mounts.bad() == {}
    file = os.open(mount.directory / "f", os.O_CREAT | os.O_WRONLY)
    os.write(file, b"unsaved")
    process = mount._process
    assert process is not None
    process.kill()
    process.wait()
    try:
        found = doctor(py.url)
        assert found.of("mount")["text"] == f"the process of {mount.directory} has died"
        assert str(mount.directory) in found.of("mount")["advice"]
        assert found.of("journals")["state"] == "warning"
        assert "natsfs recover" in found.of("journals")["advice"]
    finally:
        with suppress(OSError):
            os.close(file)
        mount.kill()
    assert "mount" not in doctor(py.url).bad()


def test_a_mount_that_hangs(mounter: Mounter, doctor: Doctor, py: ForeignClient) -> None:
    """E: a mount that does not answer is told of, and the doctor does not hang with it."""
    mount = mounter()
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        found = doctor(py.url).of("mount")
    finally:
        os.kill(mount.pid, signal.SIGCONT)
    assert found["state"] == "warning"
    assert "does not answer" in found["text"]


def test_directories(doctor: Doctor, nats_url: str, environment: dict[str, str]) -> None:
    """R4: a cache that others may change, or that cannot be, is a problem with its remedy."""
    cache = Path(environment["XDG_CACHE_HOME"], "natsfs")
    assert "will be made" in doctor(nats_url).of("cache directory")["text"]
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    found = doctor(nats_url).of("cache directory")
    assert found["state"] == "problem"
    assert "chmod" in found["advice"]
    cache.rmdir()
    cache.touch()
    assert doctor(nats_url).of("cache directory")["state"] == "problem"
    found = doctor(nats_url, f"--cache-dir={cache}/none").of("cache directory")
    assert found["state"] == "problem"
    cache.unlink()
    os.symlink("/tmp", cache)
    assert doctor(nats_url).of("cache directory")["state"] == "problem"


@pytest.mark.parametrize(("limit", "state"), [(90, "problem"), (500, "warning"), (1024, "ok")])
def test_few_descriptors(doctor: Doctor, nats_url: str, limit: int, state: str) -> None:
    """E: too few descriptors for a mount are told, with how to get more."""
    found = doctor(nats_url, before=f"ulimit -n {limit}").of("open files")
    assert (found["state"], found["text"]) == (state, f"{limit} at a time")


def test_nothing_is_named(doctor: Doctor) -> None:
    """E: a host without a server is no problem as long as nobody names one."""
    found = doctor("--timeout=2s").of("server")
    assert found["state"] in ("warning", "ok")
    if found["state"] == "warning":
        assert "none is named" in found["text"]
        assert "--embedded" in found["advice"]


def test_journals_that_cannot_be_read(tmp_path: Path, environment: dict[str, str]) -> None:
    """E: where the cache, or the place of the journals in it, is a file, each command says so in
    one line of its own."""
    cache = tmp_path / "file"
    cache.touch()
    said = f"natsfs: cannot read the journals in {cache}: Not a directory\n"
    recover = natsfs(environment, "recover", "--cache-dir", cache)
    assert (recover.status, recover.out, recover.err) == (1, "", said)
    assert natsfs(environment, "cache", "show", "--cache-dir", cache).err == said
    doctor = natsfs(environment, "doctor", "--cache-dir", cache)
    assert "problem  cache directory: " in doctor.out
    assert doctor.err == ""
    cache.unlink()
    cache.mkdir(mode=0o700)
    (cache / LAYOUT).touch()
    doctor = natsfs(environment, "doctor", "--cache-dir", cache)
    assert "problem  journals: cannot read the journals in " in doctor.out
    assert doctor.err == ""
    home = Path(environment["XDG_CACHE_HOME"])
    home.touch()
    status = natsfs(environment, "status")
    assert status.status == 0
    assert status.err == f"natsfs: cannot read the journals in {home}/natsfs: Not a directory\n"
