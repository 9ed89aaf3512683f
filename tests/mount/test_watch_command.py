"""`natsfs watch` as a shell sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import Mounter
from .foreign import ForeignClient, go_client
from .mounting import SETTLE, natsfs_command, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

#: Starts `natsfs watch --json`, and gives back the reader of its lines once it watches.
Starter = Callable[..., "Watch"]


class Watch:
    """A running `natsfs watch --json --initial`, which shows *ready* when it is at work."""

    def __init__(self, source: str, options: tuple[str, ...], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            natsfs_command("watch", source, "--json", *options),
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
        )

    def line(self) -> dict[str, Any]:
        """The next change.  A test that waits in vain is ended by its time-out."""
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def stop_reading(self) -> None:
        """Close the pipe that it writes to."""
        assert self.process.stdout is not None
        self.process.stdout.close()

    def shows(self, event: str, name: str, **fields: object) -> dict[str, Any]:
        """The next change, which has to be this one."""
        found = self.line()
        assert (found["event"], found["name"]) == (event, name)
        assert {key: found.get(key) for key in fields} == fields
        return found

    def end(self) -> tuple[int, str]:
        """Exit status and what it said, once it ends by itself."""
        status = self.process.wait(SETTLE)
        assert self.process.stderr is not None
        return status, self.process.stderr.read().decode()


@pytest.fixture
def watching(nats_url: str, py: ForeignClient, environment: dict[str, str]) -> Iterator[Starter]:
    started: list[Watch] = []

    def start(*options: str, source: str = "", ready: str = "ready") -> Watch:
        py.put(ready, b"")
        where = source or f"{nats_url}/{py.bucket}"
        watch = Watch(where, ("--initial", *options), environment)
        started.append(watch)
        while watch.line()["name"] != ready:
            pass
        return watch

    yield start
    for watch in started:
        watch.process.kill()
        watch.process.wait()
        for stream in (watch.process.stdout, watch.process.stderr):
            assert stream is not None
            stream.close()


def test_what_a_mount_does(watching: Starter, mount: Any) -> None:
    """A1: what programs do in a mount is told, in the words of what they did."""
    watch, root = watching(), mount.directory
    (root / "d").mkdir()
    watch.shows("created", "d/", size=0)
    (root / "d/f").write_bytes(b"data")
    made = watch.shows("created", "d/f", size=4)
    (root / "d/f").chmod(0o600)
    changed = watch.shows("metadata", "d/f", nuid=made["nuid"])
    assert changed["revision"] > made["revision"]
    (root / "d/f").write_bytes(b"other data")
    assert watch.shows("changed", "d/f", size=10)["nuid"] != made["nuid"]
    (root / "l").symlink_to("d/f")
    watch.shows("link", "l", link={"bucket": mount.source.rpartition("/")[2], "name": "d/f"})
    (root / "d/f").rename(root / "g")
    watch.shows("renamed", "g", old_name="d/f", size=10)
    (root / "g").unlink()
    watch.shows("deleted", "g")
    os.close(os.open(root / "exclusive", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    watch.shows("created", "exclusive")


def test_what_others_do(
    watching: Starter, py: ForeignClient, nats_url: str, environment: dict[str, str]
) -> None:
    """A1: renames by purge are renames, purges are told, a malformed meta is a line on stderr."""
    watch = watching()
    py.put("a", b"data")
    watch.shows("created", "a")
    py.put_meta("bad", size="no number", headers=7)
    py.publish(py.meta_subject("worse"), b"no JSON")
    try:
        go_client(nats_url, environment).of(py.bucket).rename("a", "b")
        shown = watch.line()
        while shown["name"] == "bad":
            shown = watch.line()
        assert (shown["event"], shown["name"], shown["old_name"]) == ("renamed", "b", "a")
    except FileNotFoundError:
        py.put("b", b"data")
        watch.shows("created", "b")
    py.api("STREAM.PURGE", filter=py.meta_subject("b"))
    watch.shows("gone", "b")
    watch.process.send_signal(signal.SIGINT)
    status, said = watch.end()
    assert status == 130
    assert "Traceback" not in said
    assert py.meta_subject("worse") in said


def test_below_a_directory(watching: Starter, mounter: Mounter, py: ForeignClient) -> None:
    """A1: a directory in a mount, or a prefix, means what is below it; --count ends."""
    mount = mounter()
    (mount.directory / "d").mkdir()
    py.put("d/ready", b"")
    wait_until((mount.directory / "d/ready").exists, "the object")
    inside = watching("--count", "2", source=str(mount.directory / "d"), ready="d/ready")
    py.put("outside", b"")
    py.put("d/inside", b"")
    inside.shows("created", "d/inside")
    (mount.directory / "d/inside").rename(mount.directory / "left")
    inside.shows("renamed", "left", old_name="d/inside")
    assert inside.end()[0] == 0


def test_nobody_reads(watching: Starter, py: ForeignClient) -> None:
    """E: a reader that goes away ends the watch at the next change, in silence."""
    watch = watching()
    watch.stop_reading()
    py.put("unread", b"")
    assert watch.end() == (141, "")


def test_text(nats_url: str, py: ForeignClient, environment: dict[str, str]) -> None:
    """A1: one line a change for people: time, what happened, revision, size, nuid, name."""
    py.put("a name\x1b", b"data")
    command = natsfs_command("watch", f"{nats_url}/{py.bucket}", "--initial", "--count", "1")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.split()[2:6] == ["exists", str(py.revision("a name\x1b")), "4", "B"]
        assert first.endswith("a name\\x1b\n")
        py.delete("a name\x1b")
        assert process.stdout.readline().split()[2] == "deleted"
        assert process.wait(SETTLE) == 0
