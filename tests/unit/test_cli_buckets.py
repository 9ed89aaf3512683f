"""`natsfs bucket` and `natsfs ls` against a real server."""

from __future__ import annotations

import io
import json
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio

from natsfs import cli
from natsfs.config import ServerConfig
from natsfs.server import Server
from natsfs.store.base import ObjectStore
from natsfs.store.jetstream import JetStreamManager
from natsfs.store.jetstream.api import Api
from natsfs.store.model import BucketConfig, ObjectMeta
from natsfs.store.session import open_session

pytestmark = pytest.mark.server

Outcome = tuple[int, str, str]
Run = Callable[..., Outcome]


@pytest.fixture
def run(
    nats_server: Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs a command on the test's server."""
    monkeypatch.setenv("NATS_URL", nats_server.url)

    def run(*args: str) -> Outcome:
        status = cli.main(args)
        return (status, *capfd.readouterr())

    return run


@pytest.fixture
def name() -> str:
    """A bucket that no other test has."""
    return f"cli-{uuid.uuid4().hex[:12]}"


def fill(server: Server, name: str, work: Callable[[ObjectStore], Any]) -> None:
    """Make the bucket *name* and do *work* in it."""

    async def main() -> None:
        async with open_session(ServerConfig(urls=(server.url,))) as session:
            await work(await JetStreamManager(session).create(BucketConfig(name)))

    trio.run(main)


async def source(data: bytes) -> AsyncIterator[bytes]:
    yield data


def test_life_of_a_bucket(run: Run, name: str) -> None:
    """A bucket is created with its settings, listed, described, sealed and deleted."""
    status, out, err = run(
        *("bucket", "create", name, "--description", "for a test", "--ttl", "1h"),
        *(
            "--max-bytes",
            "64M",
            "--storage",
            "memory",
            "--compress",
            "--metadata",
            "a=b=c",
            "--json",
        ),
    )
    assert (status, err) == (0, "")
    made = json.loads(out)
    assert (made["bucket"], made["description"], made["ttl"]) == (name, "for a test", 3600)
    assert (made["max_bytes"], made["storage"], made["metadata"]) == (2**26, "memory", {"a": "b=c"})
    assert (made["compression"], made["sealed"], made["size"]) == (True, False, 0)
    assert name in [bucket["bucket"] for bucket in json.loads(run("bucket", "list", "--json")[1])]
    assert f"{name} " in run("bucket", "list")[1]
    assert run("bucket", "seal", name, "--force") == (0, "", "")
    assert "Sealed:         yes" in run("bucket", "info", name)[1]
    assert run("bucket", "delete", name, "--yes") == (0, "", "")
    status, _, err = run("bucket", "info", name)
    assert (status, err.count("\n")) == (1, 1)
    assert name in err


def test_create_twice(run: Run, name: str) -> None:
    """A bucket that exists is not made again."""
    assert run("bucket", "create", name)[0] == 0
    status, out, err = run("bucket", "create", name)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert name in err


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 130)])
def test_delete_asks(
    run: Run, name: str, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    """At a terminal, deleting asks first, and takes no for an answer."""
    assert run("bucket", "create", name)[0] == 0
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert run("bucket", "delete", name)[0] == status
    assert run("bucket", "info", name)[0] == (1 if status == 0 else 0)


class Terminal:
    """Somebody who types *answer*."""

    encoding = "utf-8"

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self._answer


def test_delete_without_a_terminal(run: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can be asked, nothing is deleted without --force."""
    assert run("bucket", "create", name)[0] == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert run("bucket", "delete", name)[0] == 1
    assert run("bucket", "info", name)[0] == 0


def test_ls(run: Run, name: str, nats_server: Server) -> None:
    """Objects are listed by name with mode, size and where links lead; deleted ones on request."""

    async def work(store: ObjectStore) -> None:
        mode = {"mode": "0100640", "uid": "7", "gid": "8"}
        await store.put("dir/b", source(b"x" * 2048), ObjectMeta(metadata=mode))
        target = await store.put("a", source(b"1"))
        await store.add_link("dir/link", target)
        await store.put("z\x1b[2J", source(b""))
        await store.put("gone", source(b"2"))
        await store.delete("gone")

    fill(nats_server, name, work)
    status, out, err = run("ls", name)
    lines = out.splitlines()
    assert (status, err) == (0, "")
    assert [line.split(" ")[-1] for line in lines[:2]] == ["a", "dir/b"]
    assert lines[1].startswith("-rw-r----- 7:8 ")
    assert "2.0 KiB" in lines[1]
    assert lines[2].startswith("l")
    assert lines[2].endswith("dir/link -> a")
    assert "\x1b" not in out
    assert "gone" not in out
    assert "deleted" in run("ls", name, "--deleted")[1]
    below = json.loads(run("ls", f"{nats_server.url}/{name}/dir", "--json")[1])
    assert [found["name"] for found in below] == ["dir/b", "dir/link"]
    assert below[0]["metadata"]["mode"] == "0100640"
    assert below[1]["link"] == {"bucket": name, "name": "a"}
    nothing = f"natsfs: bucket '{name}' has nothing at or below 'none'\n"
    assert run("ls", f"{name}/none") == (1, "", nothing)


def test_ls_of_a_missing_bucket(run: Run, name: str) -> None:
    """A bucket that does not exist is one line that says how to find or make one."""
    status, out, err = run("ls", name)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "bucket list" in err


def make_as_others_do(server: Server, name: str, **settings: object) -> None:
    """Create a bucket with none of what natsfs switches on, and with *settings*."""

    async def main() -> None:
        async with open_session(ServerConfig(urls=(server.url,))) as session:
            stream = {"name": f"OBJ_{name}", "subjects": [f"$O.{name}.C.>", f"$O.{name}.M.>"]}
            await Api(session).ask(name, f"STREAM.CREATE.OBJ_{name}", {**stream, **settings})

    trio.run(main)


def test_upgrade(run: Run, name: str, nats_server: Server) -> None:
    """A2: what a bucket lacks is switched on after asking, and nothing else changes."""
    kept = {"discard": "new", "max_msgs": 1000, "max_age": 3600 * 10**9, "no_ack": False}
    kept |= {"duplicate_window": 60 * 10**9, "subject_delete_marker_ttl": 0}
    make_as_others_do(nats_server, name, **kept, metadata={"mine": "this"}, description="kept")
    features = ["rollup headers", "direct get", "message TTLs", "atomic batches"]
    status, out, err = run("bucket", "upgrade", name, "--dry-run")
    assert (status, err) == (0, "")
    assert out.splitlines() == [f"{feature}: would be switched on" for feature in features]
    before = json.loads(run("bucket", "info", name, "--json")[1])
    assert (before["allow_atomic"], before["allow_msg_ttl"]) == (False, False)
    status, out, err = run("bucket", "upgrade", name)
    assert status == 1
    assert "--force" in err
    status, out, err = run("bucket", "upgrade", name, "--yes")
    assert (status, err) == (0, "")
    assert out.splitlines() == [f"{feature}: switched on" for feature in features]
    after = json.loads(run("bucket", "info", name, "--json")[1])
    assert after == {**before, "allow_atomic": True, "allow_msg_ttl": True}
    assert run("bucket", "upgrade", name, "--yes") == (0, f"bucket {name} has all of it\n", "")
    shown = run("bucket", "info", name)[1]
    assert "Atomic batches: yes" in " ".join(shown.split())
    assert "Message TTLs: yes" in " ".join(shown.split())


def test_upgrade_that_is_refused(run: Run, name: str, nats_server: Server) -> None:
    """A2: what the server refuses is said, with its reason, and the rest is switched on."""
    make_as_others_do(nats_server, name, deny_purge=True)
    status, out, err = run("bucket", "upgrade", name, "--yes")
    assert status == 1
    assert "atomic batches: switched on" in out
    assert "rollup headers: not switched on" in err
    assert run("bucket", "seal", name, "--yes")[0] == 0
    status, out, err = run("bucket", "upgrade", name, "--yes")
    assert (status, out) == (1, "")
    assert "sealed" in err
