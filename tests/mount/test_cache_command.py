"""`natsfs cache` as a shell sees it, beside mounts that run."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from .conftest import Mounter
from .foreign import ForeignClient
from .mounting import Mount, Result, natsfs_command, run, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

#: Runs `natsfs cache`.
Cache = Callable[..., Result]


@pytest.fixture
def cache(environment: dict[str, str]) -> Cache:
    def call(*arguments: str | Path) -> Result:
        command = natsfs_command("cache", *arguments)
        return run(command, env=environment, cwd=Path("/"), timeout=60)

    return call


def shown(cache: Cache, *arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cache("show", "--json", *arguments).check())
    return found


def read_through(mount: Mount, py: ForeignClient, name: str, body: bytes) -> None:
    """Store and read an object, so that it is cached."""
    py.put(name, body)
    wait_until((mount.directory / name).exists, "the object")
    assert (mount.directory / name).read_bytes() == body


def test_nothing_there(cache: Cache, environment: dict[str, str]) -> None:
    """R4: where nothing was cached there is nothing to show or to clear, and nothing is made."""
    found = shown(cache)
    assert found["blocks"] == found["snapshots"] == {"files": 0, "bytes": 0}
    assert found["journals"] == []
    assert cache("clear").check() == "0 files removed, 0 B.\n"
    assert not Path(environment["XDG_CACHE_HOME"], "natsfs").exists()


def test_clear_while_mounted(mount: Mount, py: ForeignClient, cache: Cache) -> None:
    """R4: what is cleared is fetched again; the mount, open files and journals are unharmed."""
    body = os.urandom(500_000)
    read_through(mount, py, "f", body)
    wait_until(lambda: shown(cache)["blocks"]["bytes"] >= 500_000, "the cache")
    with (
        open(mount.directory / "f", "rb") as reading,
        open(mount.directory / "g", "wb", buffering=0) as writing,
    ):
        writing.write(b"x" * 100_000)
        (run,) = shown(cache)["journals"]
        assert (run["bucket"], run["mount"], run["alive"]) == (
            py.bucket,
            str(mount.directory),
            True,
        )
        assert run["pid"] == mount.pid
        removed = json.loads(cache("clear", "--json").check())
        assert removed["blocks"]["bytes"] >= 500_000
        assert shown(cache)["blocks"] == {"files": 0, "bytes": 0}
        assert len(shown(cache)["journals"]) == 1
        assert reading.read() == body
        writing.write(b"y" * 100_000)
    assert py.get("g") == b"x" * 100_000 + b"y" * 100_000
    mount.remount()
    assert (mount.directory / "f").read_bytes() == body


def test_one_bucket(mount: Mount, mounter: Mounter, py: ForeignClient, cache: Cache) -> None:
    """R4: with SOURCE only what that bucket has is counted and cleared."""
    other = py.of(f"b-{uuid.uuid4().hex[:12]}")
    other.create()
    second = mounter(source=f"{py.url}/{other.bucket}")
    read_through(mount, py, "f", os.urandom(300_000))
    read_through(second, other, "f", os.urandom(200_000))
    source = f"{py.url}/{py.bucket}"
    wait_until(lambda: shown(cache)["blocks"]["files"] == 2, "the cache")
    assert shown(cache, source)["blocks"]["files"] == 1
    assert 300_000 <= shown(cache, source)["blocks"]["bytes"] < 400_000
    assert cache("clear", mount.directory).check().startswith("1 files removed, ")
    assert shown(cache, source)["blocks"]["files"] == 0
    assert shown(cache)["blocks"]["files"] == 1
    result = cache("clear", f"{source}/d")
    assert (result.status, result.err.count("\n")) == (1, 1)
    assert "whole buckets" in result.err


def test_journals_of_the_dead_stay(
    mounter: Mounter, py: ForeignClient, cache: Cache, environment: dict[str, str]
) -> None:
    """W7: clearing touches no journal, and what is in one is saved by the next mount."""
    mount = mounter()
    writing = os.open(mount.directory / "f", os.O_CREAT | os.O_WRONLY)
    os.write(writing, b"unsaved")
    mount.kill()
    with suppress(OSError):
        os.close(writing)
    assert cache("clear").status == 0
    (left,) = shown(cache)["journals"]
    assert (left["alive"], left["bucket"]) == (False, py.bucket)
    text = cache("show").check()
    assert "died; see `natsfs recover`" in text
    listed = run(natsfs_command("recover", "--json"), env=environment, cwd=Path("/"))
    assert [one["name"] for one in json.loads(listed.out)] == ["f"]


def test_a_tree_is_cleared(mounter: Mounter, py: ForeignClient, cache: Cache, bucket: str) -> None:
    """R4: without its snapshot a large bucket is loaded as ever."""
    mount = mounter("--writeback")
    for number in range(5100):
        os.symlink("x", mount.directory / f"l{number}")
    mount.stop()
    source = f"{py.url}/{bucket}"
    assert shown(cache, source)["snapshots"]["files"] == shown(cache)["snapshots"]["files"] == 1
    removed = json.loads(cache("clear", source, "--json").check())
    assert removed["snapshots"]["files"] == 1
    assert shown(cache)["snapshots"]["files"] == 0
    mount = mounter()
    assert len(os.listdir(mount.directory)) == 5100
