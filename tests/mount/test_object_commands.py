"""`natsfs stat`, `du`, `meta`, `link`, `seal`, `serve` and `completion` as a shell sees them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Mounter
from .foreign import ForeignClient
from .mounting import SETTLE, Mount, Result, natsfs_command, run, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

#: Runs a natsfs command; `{}` in an argument is the test's bucket as SOURCE.
Natsfs = Callable[..., Result]


@pytest.fixture
def natsfs(py: ForeignClient, environment: dict[str, str]) -> Natsfs:
    def call(*arguments: str | Path, env: dict[str, str] | None = None) -> Result:
        filled = [str(argument).replace("{}", f"{py.url}/{py.bucket}") for argument in arguments]
        command = natsfs_command(*filled)
        return run(command, env={**environment, **(env or {})}, cwd=Path("/"), timeout=60)

    return call


def read(result: Result) -> Any:
    return json.loads(result.check())


def refused(result: Result, *words: str, status: int = 1) -> None:
    """The command says in one line what is wrong."""
    assert (result.status, result.out, result.err.count("\n")) == (status, "", 1), result
    assert result.err.startswith("natsfs: ")
    for word in words:
        assert word in result.err


# -- stat -----------------------------------------------------------------------------------------


def test_stat_of_a_file(mount: Mount, py: ForeignClient, natsfs: Natsfs) -> None:
    """M4: stat says what NATS knows of a file, named by its path or its object."""
    path = mount.directory / "d" / "f"
    path.parent.mkdir()
    path.write_bytes(b"x" * 300_000)
    path.chmod(0o640)
    meta = py.meta("d/f")
    found = read(natsfs("stat", path, "--json"))
    assert found == read(natsfs("stat", "{}/d/f", "--json"))
    assert {key: found[key] for key in ("name", "size", "chunks", "nuid", "digest")} == {
        key: meta[key] for key in ("name", "size", "chunks", "nuid", "digest")
    }
    assert (found["revision"], found["subject"]) == (py.revision("d/f"), py.meta_subject("d/f"))
    assert found["metadata"]["mode"] == "0100640"
    text = natsfs("stat", path).check()
    for line in (
        "Name:           d/f",
        "Size:           300000 bytes, 293 KiB",
        "Chunks:         3 of 128 KiB",
        f"Nuid:           {meta['nuid']}",
        "Metadata mode:  0100640",
    ):
        assert line in text.splitlines(), text


def test_stat_of_links_and_directories(mount: Mount, py: ForeignClient, natsfs: Natsfs) -> None:
    """K6, N4: a link shows where it leads, a directory the object that describes it."""
    (mount.directory / "d").mkdir()
    (mount.directory / "f").touch()
    (mount.directory / "to").symlink_to("f")
    assert read(natsfs("stat", mount.directory / "to", "--json"))["link"] == {
        "bucket": py.bucket,
        "name": "f",
    }
    assert read(natsfs("stat", mount.directory / "d", "--json"))["name"] == "d/"


def test_stat_of_what_is_gone(py: ForeignClient, natsfs: Natsfs) -> None:
    """E: a deleted object is shown as such, one that never was is an error of one line."""
    py.put("f", b"x")
    py.delete("f")
    assert read(natsfs("stat", "{}/f", "--json"))["deleted"] is True
    assert "(deleted)" in natsfs("stat", "{}/f").check()
    refused(natsfs("stat", "{}/g"), "'g'", "natsfs ls")
    refused(natsfs("stat", "{}"), "natsfs bucket info")


# -- du -------------------------------------------------------------------------------------------


def test_du(mount: Mount, py: ForeignClient, natsfs: Natsfs) -> None:
    """R1: du counts what every directory holds without reading it; links count for nothing."""
    for name, size in (("a", 10), ("d/b", 200_000), ("d/e/c", 5), ("x/y/z", 1)):
        py.put(name, b"x" * size)
    os.link(mount.directory / "a", mount.directory / "d" / "again")
    (mount.directory / "empty").mkdir()
    (mount.directory / "gone").touch()
    (mount.directory / "gone").unlink()
    found = read(natsfs("du", "{}", "--json"))
    assert found["total"] == {"objects": 5, "bytes": 200_016, "chunks": 5}
    sizes = {entry["path"]: (entry["bytes"], entry["objects"]) for entry in found["directories"]}
    assert sizes == {
        "": (200_016, 5),
        "d/": (200_005, 3),
        "d/e/": (5, 1),
        "empty/": (0, 0),
        "x/": (1, 1),
        "x/y/": (1, 1),
    }
    shallow = read(natsfs("du", "{}", "--max-depth=1", "--json"))
    assert [entry["path"] for entry in shallow["directories"]] == ["", "d/", "empty/", "x/"]
    assert shallow["directories"][1]["bytes"] == 200_005
    below = natsfs("du", mount.directory / "d", "-s").check().splitlines()
    assert below[-1].split() == ["195", "KiB", "3", "3", f"{py.bucket}/d/"]
    refused(natsfs("du", "{}/nothing"), "nothing below 'nothing'")


def test_du_reads_nothing(py: ForeignClient, natsfs: Natsfs) -> None:
    """R1: du works where not one chunk is left."""
    py.put("f", b"x" * 200_000)
    py.api("STREAM.PURGE", filter=f"$O.{py.bucket}.C.>")
    assert read(natsfs("du", "{}", "--json"))["total"]["bytes"] == 200_000


# -- meta -----------------------------------------------------------------------------------------


def test_meta(mount: Mount, py: ForeignClient, natsfs: Natsfs) -> None:
    """M5, M6: what is set is there for every client; times, bytes and unknown fields survive."""
    path = mount.directory / "f"
    path.write_bytes(b"content")
    before = path.stat()
    foreign = {**py.meta("f"), "foreign": {"kept": 1}}
    py.publish(py.meta_subject("f"), json.dumps(foreign).encode())
    wait_until(lambda: path.stat().st_ctime_ns > before.st_ctime_ns, "the foreign change")
    natsfs(
        *("meta", "set", "{}/f", "colour=red=ish", "empty=", "--description", "a file"),
        *("--header", "X-A=1", "--header", "X-A=2"),
    ).check()
    found = read(natsfs("meta", "get", path, "--json"))
    assert found["description"] == "a file"
    assert found["headers"] == {"X-A": ["1", "2"]}
    assert (found["metadata"]["colour"], found["metadata"]["empty"]) == ("red=ish", "")
    assert py.meta("f")["foreign"] == {"kept": 1}
    assert py.get("f") == b"content"
    wait_until(lambda: "user.colour" in os.listxattr(path), "the attribute")
    assert os.getxattr(path, "user.colour") == b"red=ish"
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert natsfs("meta", "get", path, "colour").check() == "red=ish\n"
    natsfs("meta", "set", path, "--unset", "colour", "--unset-header", "X-A", "mode=100600").check()
    assert "Header" not in natsfs("meta", "get", path).check()
    refused(natsfs("meta", "get", path, "colour"), "no metadata colour")
    wait_until(lambda: path.stat().st_mode == 0o100600, "the mode")


def test_meta_compare_and_set(py: ForeignClient, natsfs: Natsfs) -> None:
    """M5: with --revision a change that came in between is not overwritten."""
    py.put("f", b"x")
    seen = read(natsfs("stat", "{}/f", "--json"))["revision"]
    py.describe("f", "theirs")
    refused(natsfs("meta", "set", "{}/f", "a=b", f"--revision={seen}"), f"not {seen}")
    assert py.meta("f")["description"] == "theirs"
    now = py.revision("f")
    assert read(natsfs("meta", "set", "{}/f", "a=b", f"--revision={now}", "--json"))["name"] == "f"
    assert py.meta("f")["metadata"]["a"] == "b"
    assert py.meta("f")["description"] == "theirs"


def test_meta_refusals(py: ForeignClient, natsfs: Natsfs) -> None:
    """E: what cannot be set is refused, and nothing changes."""
    py.put("f", b"x")
    before = py.revision("f")
    refused(natsfs("meta", "set", "{}/f"), "nothing is to be changed")
    refused(natsfs("meta", "set", "{}/f", "colour"), "'colour' is no KEY=VALUE")
    refused(natsfs("meta", "set", "{}/f", "mode=rw-r--r--"), "mode='rw-r--r--'", "octal")
    refused(natsfs("meta", "set", "{}/g", "a=b"), "no object 'g'")
    assert py.revision("f") == before
    py.seal()
    refused(natsfs("meta", "set", "{}/f", "a=b"), "sealed")


# -- link and seal --------------------------------------------------------------------------------


def test_link(mount: Mount, py: ForeignClient, foreign: ForeignClient, natsfs: Natsfs) -> None:
    """K6: every client follows the link, and a mount shows a symlink."""
    py.put("f", b"content")
    assert natsfs("link", "{}/f", "{}/to").check() == "to -> f\n"
    if foreign.links:
        assert foreign.get("to") == b"content"
    at = mount.directory / "to"
    wait_until(at.is_symlink, "the link")
    assert at.read_bytes() == b"content"
    # Paths in a mount, and a bare bucket beside one.
    natsfs("link", mount.directory / "f", mount.directory / "again").check()
    assert py.meta("again")["options"]["link"]["name"] == "f"
    made = read(natsfs("link", py.bucket, mount.directory / "all", "--json"))
    assert made["link"] == {"bucket": py.bucket, "name": None}


def test_link_refusals(py: ForeignClient, natsfs: Natsfs) -> None:
    """E: an object is not replaced by a link, a link is no target, nor is what is not there."""
    py.put("f", b"x")
    py.put("g", b"y")
    refused(natsfs("link", "{}/f", "{}/g"), "'g' exists")
    refused(natsfs("link", "{}/h", "{}/to"), "'h'")
    natsfs("link", "{}/f", "{}/to").check()
    refused(natsfs("link", "{}/to", "{}/chain"), "is itself a link")
    refused(natsfs("link", "{}/f", "{}"), "BUCKET/NAME")
    refused(natsfs("link", "nats://127.0.0.9:1/b/f", "{}/z"), "one server")
    assert py.get("g") == b"y"


def test_seal(py: ForeignClient, natsfs: Natsfs) -> None:
    """A6: `natsfs seal` is `natsfs bucket seal`, and asks first."""
    refused(natsfs("seal", "{}"), "nobody is there to be asked")
    py.put("f", b"x")
    natsfs("seal", "{}", "--yes").check()
    assert py.api("STREAM.INFO")["config"]["sealed"] is True


# -- serve and completion -------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve(
    tmp_path: Path, environment: dict[str, str], natsfs: Natsfs, number: signal.Signals
) -> None:
    """A6: the server can be used when its URL is printed, and ends with the command."""
    store = tmp_path / "store"
    command = natsfs_command("serve", store)
    with subprocess.Popen(
        command, env=environment, cwd="/", stdout=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stdout is not None
        url = serving.stdout.readline().strip()
        created = read(natsfs("bucket", "create", f"{url}/b", "--json"))
        assert created["bucket"] == "b"
        # A mount with --embedded would use the same server.
        listed = read(natsfs("bucket", "list", f"--embedded={store}", "--json"))
        assert [status["bucket"] for status in listed] == ["b"]
        serving.send_signal(number)
        assert serving.wait(SETTLE) == 0
    refused(natsfs("bucket", "list", f"--server={url}", "--timeout=2s"), "--embedded")


def test_serve_again(tmp_path: Path, environment: dict[str, str], natsfs: Natsfs) -> None:
    """A6: another port for a server that runs is refused, and a server that dies is told of."""
    store = tmp_path / "store"
    command = natsfs_command("serve", store, "--json")
    with subprocess.Popen(
        command, env=environment, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stdout is not None
        said = "".join(iter(serving.stdout.readline, "}\n")) + "}"
        found = json.loads(said)
        port = int(found["url"].rpartition(":")[2])
        other = 1024 if port != 1024 else 1025
        refused(natsfs("serve", store, f"--port={other}"), "runs already", found["url"])
        os.kill(found["pid"], signal.SIGKILL)
        _, err = serving.communicate(timeout=SETTLE)
    assert serving.returncode == 1
    assert "nats-server has ended" in err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(natsfs: Natsfs, shell: str, tmp_path: Path) -> None:
    """E: the shell gets a script that it understands, and commands are completed by it."""
    script = natsfs("completion", shell).check()
    assert "_NATSFS_COMPLETE" in script
    if shell == "bash":
        path = tmp_path / "completion"
        path.write_text(script)
        assert run(["bash", "-n", path]).status == 0
    words = {"COMP_WORDS": "natsfs st", "COMP_CWORD": "1" if shell != "fish" else "st"}
    asked = natsfs(env={**words, "_NATSFS_COMPLETE": f"{shell}_complete"})
    assert asked.status == 0
    assert "stat" in asked.out
    assert "status" in asked.out
    refused(natsfs("completion", "tcsh"), "bash")


def test_a_mount_of_all(mounter: Mounter, py: ForeignClient, natsfs: Natsfs) -> None:
    """B1: in a mount of all buckets a path names bucket and object."""
    py.put("d/f", b"x")
    mount = mounter(source=py.url)
    at = mount.directory / py.bucket / "d"
    assert read(natsfs("stat", at / "f", "--json"))["name"] == "d/f"
    assert read(natsfs("du", at, "--json"))["total"]["objects"] == 1
    refused(natsfs("du", mount.directory), "all buckets")


@pytest.mark.parametrize("command", ["umount", "status", "top"])
def test_mount_points_are_completed(mount: Mount, natsfs: Natsfs, command: str) -> None:
    """E: a shell completes where something is mounted."""
    words = {"COMP_WORDS": f"natsfs {command} {mount.directory.parent}", "COMP_CWORD": "2"}
    found = natsfs(env={**words, "_NATSFS_COMPLETE": "bash_complete"}).check()
    assert f"plain,{mount.directory}" in found.splitlines()
