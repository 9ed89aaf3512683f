"""Connections as the `nats` command has them: its contexts, JetStream in another domain or account,
and proxies."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from natsfs.server import Server, start_server
from natsfs.store.wire import meta_subject
from tests.faults.secured import natsfs, serving
from tests.socks import SocksProxy

from .foreign import py_client
from .mounting import Mount, mounted_device, run, wait_until
from .system import new_system

pytestmark = [pytest.mark.mount, pytest.mark.server]

PASSWORD = "pa55-f0r-nobody"
BODY = bytes(range(256)) * 4000

#: An account with JetStream, and one that imports its API under another name.  Answers, and what
#: consumers deliver, cross over where their subjects are exported.
IMPORTED = """
accounts {
  OWNER: { jetstream: enabled, users: [ {user: owner, password: pw} ], exports: [
    { service: "$JS.API.>", response_type: stream }, { service: "$JS.FC.>" }, { service: "$O.>" }
    { stream: "guest.>" }, { stream: "$JS.EVENT.>" } ] }
  GUEST: { users: [ {user: guest, password: pw} ], imports: [
    { service: { account: OWNER, subject: "$JS.API.>" }, to: "acme.JS.>" }
    { service: { account: OWNER, subject: "$JS.FC.>" } }
    { service: { account: OWNER, subject: "$O.>" } }
    { stream: { account: OWNER, subject: "guest.>" } }
    { stream: { account: OWNER, subject: "$JS.EVENT.>" }, to: "acme.EVENT.>" } ] }
}
"""


def add_context(environment: dict[str, str], name: str, **fields: object) -> Path:
    """The context *name* of whoever has *environment*."""
    directory = Path(environment["XDG_CONFIG_HOME"], "nats", "context")
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    path.write_text(json.dumps(fields))
    path.chmod(0o600)
    return path


def work_in(directory: Path) -> None:
    """Write, rename, replace, read and remove in a mount."""
    (directory / "large").write_bytes(BODY)
    (directory / "new").write_bytes(b"small")
    (directory / "new").rename(directory / "renamed")
    (directory / "renamed").write_bytes(b"replaced")
    assert (directory / "large").read_bytes() == BODY
    (directory / "gone").touch()
    (directory / "gone").unlink()
    assert sorted(os.listdir(directory)) == ["large", "renamed"]
    assert (directory / "renamed").read_bytes() == b"replaced"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    place.mkdir()
    return place


def test_contexts(tmp_path: Path, place: Path, environment: dict[str, str]) -> None:
    """E: a context says where the server is and who one is to it, by --context, by `-o context=`,
    by NATS_CONTEXT and by `nats context select`; a mount and the commands in it keep to theirs."""
    login = f'authorization {{ user: me, password: "{PASSWORD}" }}'
    with serving(tmp_path / "server", login) as server:
        add_context(environment, "prod", url=server.url, user="me", password=PASSWORD)
        add_context(environment, "other", url="nats://127.0.0.1:1")
        natsfs(environment, "bucket", "create", "--context", "prod", "b").check()
        natsfs({**environment, "NATS_CONTEXT": "prod"}, "bucket", "info", "b").check()
        natsfs(environment, "mount", "-o", "context=prod", "b", place).check()
        try:
            (place / "file").write_bytes(b"content")
            Path(environment["XDG_CONFIG_HOME"], "nats", "context.txt").write_text("other")
            assert natsfs(environment, "ls", place).check().split()[-1] == "file"
            (told,) = json.loads(natsfs(environment, "status", "--json", place).check())
            assert told["server"]["context"] == "prod"
            head, _, row = natsfs(environment, "status", place).check().splitlines()
            assert re.split(" {2,}", head)[:3] == ["Directory", "Source", "Context"]
            assert re.split(" {2,}", row)[2].strip() == "prod"
            assert PASSWORD not in json.dumps(told) + Path("/proc/mounts").read_text()
            doctor = natsfs(environment, "doctor", place)
            assert "ok       context: 'prod', of " in doctor.out
        finally:
            natsfs(environment, "umount", place).check()
        refused = natsfs(environment, "ls", "b")
        assert (refused.status, "127.0.0.1:1 " in refused.err) == (1, True)
        url = f"--server={server.url}"
        missing = natsfs(environment, "ls", url, "--no-context", "b")
        assert "refused the credentials" in missing.err


def test_unknown_contexts(place: Path, environment: dict[str, str]) -> None:
    """E: every command says in one line which contexts there are; the doctor makes it a finding."""
    add_context(environment, "prod")
    said = "natsfs: there is no context 'prot'; did you mean 'prod'? there are prod\n"
    for command in (("ls", "b"), ("mount", "b", place), ("bucket", "list"), ("recover", "b")):
        done = natsfs(environment, *command, "--context=prot")
        assert (done.status, done.err) == (1, said)
    done = natsfs(environment, "doctor", "--context=prot")
    assert (done.status, done.err) == (1, "")
    assert "problem  connection: there is no context 'prot'" in done.out


def test_completion(environment: dict[str, str]) -> None:
    """E: a shell completes contexts."""
    for name in ("prod", "production", "dev"):
        add_context(environment, name)
    asked = {
        "_NATSFS_COMPLETE": "bash_complete",
        "COMP_WORDS": "natsfs ls --context pr",
        "COMP_CWORD": "3",
    }
    done = natsfs({**environment, **asked})
    assert done.out.split() == ["plain,prod", "plain,production"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a machine of its own")
def test_fstab(tmp_path: Path, place: Path, nats_url: str, bucket: str) -> None:
    """E: a line in fstab names a context of root, who has no HOME when a machine starts."""
    (tmp_path / "system").mkdir()
    with new_system(tmp_path / "system") as system:
        system.natsfs("install-helper").check()
        text = json.dumps({"url": nats_url})
        write = "mkdir -p /root/.config/nats/context; echo '%s' >/root/.config/nats/context/c.json"
        system.run("/bin/sh", "-c", write % text).check()
        system.fstab(f"{bucket} {place} natsfs nats_context=c 0 0")
        system.run("/usr/bin/mount", place).check()
        assert system.mounted(place)[0] == bucket
        system.run("/usr/bin/mount", "--all").check()
        assert len(system.pids()) == 1
        system.run("/bin/sh", "-c", 'echo bytes >"$1/file"', "sh", place).check()
        system.run("/usr/bin/umount", place).check()


@pytest.fixture
def domains(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """A hub and a leaf node of it, each with a JetStream domain of its own."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def start(name: str, leafnodes: str) -> Server:
        store = tmp_path / f"{name}-store"
        domain = f'jetstream {{ domain: {name}, store_dir: "{store}" }}'
        config = f"server_name: {name}\n{domain}\nleafnodes {{ {leafnodes} }}"
        return start_server(tmp_path / name, jetstream=False, extra_config=config)

    hub = start("hub", f'host: "127.0.0.1", port: {port}')
    leaf = start("leaf", f'remotes: [ {{ url: "nats://127.0.0.1:{port}" }} ], reconnect: 1')
    try:
        yield hub, leaf
    finally:
        leaf.kill()
        hub.kill()


def create(environment: dict[str, str], server: Server, *options: str) -> None:
    """The bucket `b`, as soon as the leaf node has reached its hub."""
    command = ("bucket", "create", f"--server={server.url}", "--timeout=5s", *options, "b")
    wait_until(lambda: natsfs(environment, *command).status == 0, "the bucket")


def test_a_domain(
    tmp_path: Path, place: Path, environment: dict[str, str], domains: tuple[Server, Server]
) -> None:
    """E: a mount by way of a leaf node works in the domain of its hub, and so do the commands."""
    hub, leaf = domains
    create(environment, leaf, "--js-domain=hub")
    add_context(environment, "hub", url=leaf.url, jetstream_domain="hub")
    options = ("-o", "context=hub")
    with Mount("b", place, *options, env=environment, log=tmp_path / "log"):
        work_in(place)
        (told,) = json.loads(natsfs(environment, "status", "--json", place).check())
        assert told["server"]["subjects"]["domain"] == "hub"
        found = natsfs(environment, "ls", place).check()
        assert [line.split()[-1] for line in found.splitlines()] == ["large", "renamed"]
        assert (
            natsfs(environment, "ls", f"--server={hub.url}", "--no-context", "b").check() == found
        )
        natsfs(environment, "fsck", place).check()
        assert "ok       writing: is allowed" in natsfs(environment, "doctor", place).out
        py_client(hub.url, environment).of("b").put("foreign", b"bytes")
        wait_until(lambda: "foreign" in os.listdir(place), "what the hub was told")
    listed = natsfs(environment, "bucket", "list", f"--server={leaf.url}")
    assert "no buckets" in listed.err


def test_one_name_in_two_domains(
    tmp_path: Path, place: Path, environment: dict[str, str], domains: tuple[Server, Server]
) -> None:
    """E, A3: a bucket of that name in the leaf's own domain takes what is for the hub and says so
    first: that is not stored, and who writes hears of it."""
    _, leaf = domains
    create(environment, leaf, "--js-domain=hub")
    create(environment, leaf)
    url, log = f"{leaf.url}/b", tmp_path / "log"
    with Mount(url, place, "--js-domain=hub", env=environment, log=log) as mount:
        mount.expect_trouble("has a bucket of that name, too|could not be saved|fuse_release")
        with pytest.raises(OSError, match="Input/output error"):
            write_many(place)


def write_many(directory: Path) -> None:
    """Write files: on a busy machine the right one of two answers may come first now and then."""
    for number in range(100):
        (directory / f"file-{number}").write_bytes(b"bytes")


def purge(environment: dict[str, str], url: str, name: str) -> None:
    """Purge what the bucket `b` says of *name*, which no consumer hears of."""
    script = """
import asyncio, sys, nats
async def main(url, subject):
    client = await nats.connect(url)
    await client.jetstream().purge_stream("OBJ_b", subject=subject)
    await client.close()
asyncio.run(main(*sys.argv[1:]))
"""
    run([sys.executable, "-c", script, url, meta_subject("b", name)], env=environment).check()


def test_an_imported_api(tmp_path: Path, place: Path, environment: dict[str, str]) -> None:
    """E: an account that imports JetStream under another prefix mounts the buckets of its owner,
    where that exports what answers and data go by."""
    with serving(tmp_path / "server", IMPORTED) as server:
        url = server.url.replace("//", "//guest:pw@")
        prefixes = {"jetstream_api_prefix": "acme.JS", "inbox_prefix": "guest"}
        add_context(environment, "guest", url=url, **prefixes)
        natsfs(environment, "bucket", "create", "--context=guest", "b").check()
        options = (
            *("--js-api-prefix=acme.JS", "--inbox-prefix=guest"),
            "--js-event-prefix=acme.EVENT",
        )
        with Mount(f"{url}/b", place, *options, env=environment, log=tmp_path / "log"):
            work_in(place)
            # The mount does not tell its login.
            found = natsfs(environment, "ls", "--context=guest", place).check()
            assert [line.split()[-1] for line in found.splitlines()] == ["large", "renamed"]
            owner = server.url.replace("//", "//owner:pw@")
            assert natsfs(environment, "ls", f"--server={owner}", "b").check() == found
            purge(environment, owner, "renamed")
            wait_until(lambda: os.listdir(place) == ["large"], "what the owner has purged")


def test_a_proxy(
    tmp_path: Path, place: Path, environment: dict[str, str], nats_server: Server, bucket: str
) -> None:
    """E: all connections of a mount go through the SOCKS proxy, whose login nobody sees."""
    with SocksProxy("me", PASSWORD) as proxy:
        name = f"nats://no-such-host.invalid:{nats_server.port}"
        way = f"socks5://me:{PASSWORD}@127.0.0.1:{proxy.port}"
        natsfs(environment, "mount", f"--socks-proxy={way}", f"{name}/{bucket}", place).check()
        try:
            work_in(place)
            (told,) = json.loads(natsfs(environment, "status", "--json", place).check())
            process = Path("/proc", str(told["pid"]))
            shown = json.dumps(told) + (process / "cmdline").read_text()
            assert PASSWORD not in shown
            found = natsfs({**environment, "NATS_SOCKS_PROXY": way}, "ls", place).check()
            assert "renamed" in found
        finally:
            natsfs(environment, "umount", place).check()
        assert mounted_device(place) is None
        assert {host for host, _ in proxy.asked} == {"no-such-host.invalid"}
