"""What other clients do while a mount is cut off: afterwards its tree is the bucket's, without a
remount, whatever no watch tells of."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from natsfs.server import Server
from tests.faults.ground import files_of, look, stored
from tests.faults.proxy import Once, Proxy
from tests.mount.conftest import Mounter, required
from tests.mount.foreign import ForeignClient, go_client, js_client, py_client
from tests.mount.mounting import Mount, natsfs_command, refused, run, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.server, pytest.mark.timeout(120)]

#: What a mount logs of a server that is away.
USUAL = r"lost the connection|no answer|no connection|connection lost|connection to"

#: What the bucket holds before.
NAMES = ("kept", "replaced", "renamed", "back", "deleted", "d/purged", "d/e/moved", "described")


@dataclass
class Line:
    """A mount of `bucket`, by a line to a server of its own that can be cut."""

    server: Server
    proxy: Proxy
    mount: Mount
    py: ForeignClient
    environment: dict[str, str]

    @property
    def top(self) -> Path:
        return self.mount.directory

    def client(self, make: Callable[..., ForeignClient]) -> ForeignClient:
        """Another client, by a line that is never cut."""
        try:
            return make(self.server.url, self.environment).of(self.py.bucket)
        except FileNotFoundError as missing:
            if required("clients"):
                pytest.fail(f"{missing}: install it, or NATSFS_REQUIRE says that it is not needed")
            pytest.skip(str(missing))

    def fill(self) -> None:
        """Give the bucket what `NAMES` says, and have the kernel look at it."""
        for name in NAMES:
            self.py.put(name, name.encode() * 1000)
        wait_until(self.is_exact, "the files")

    @contextmanager
    def cut(self, *, restart: bool = False) -> Iterator[None]:
        """The mount is cut off while the block runs; with *restart* the server is then killed and
        started again."""
        lost = self.mount.log_text().count("lost the connection")
        self.proxy.leave()
        wait_until(
            lambda: self.mount.log_text().count("lost the connection") > lost, "the loss is noticed"
        )
        yield
        if restart:
            self.server.kill()
            self.server.restart()
        self.proxy.go_on()

    def is_exact(self) -> bool:
        """Whether the mount shows what the bucket holds, all of it and nothing else."""
        self.mount.expect_trouble("was purged")  # of a version that is read while it is replaced
        try:
            return files_of(look(self.top)) == stored(self.py)
        except OSError:
            return False


@pytest.fixture
def line(own_server: Server, mounter: Mounter, environment: dict[str, str]) -> Iterator[Line]:
    client = py_client(own_server.url, environment).of(f"b-{uuid.uuid4().hex[:12]}")
    client.create()
    with closing(Proxy(own_server.port)) as proxy:
        source = f"{proxy.url}/{client.bucket}"
        mount = mounter("--timeout=5s", "--purge-delay=0s", source=source, life=100)
        mount.expect_trouble(USUAL)
        try:
            yield Line(own_server, proxy, mount, client, environment)
        finally:
            proxy.go_on()
            if mount in Mount.alive:
                mount.stop()


def by_nats_go(line: Line) -> None:
    """Renames are a meta with a rollup and a purge that nobody is told of."""
    go = line.client(go_client)
    go.rename("renamed", "new name")
    go.rename("d/e/moved", "elsewhere/moved")
    go.rename("back", "there")
    go.rename("there", "back", "been away")
    go.put("replaced", b"by nats.go")
    go.describe("described", "text")
    go.delete("deleted")
    go.put("f/g", b"new")


def by_nats_js(line: Line) -> None:
    """Metas without a rollup: the old one stays on the subject."""
    js = line.client(js_client)
    js.rename("renamed", "new name")
    js.put("replaced", b"by nats.js")
    js.describe("described", "text")
    js.describe("described", "other text")
    js.delete("deleted")
    js.put("d/purged", b"here")
    js.delete("d/purged")


def by_an_administrator(line: Line) -> None:
    """Purges of metas, of tombstones, of chunks, and of single messages."""
    py = line.py
    for name in ("d/purged", "d/e/moved"):
        py.api("STREAM.PURGE", filter=py.meta_subject(name))
    py.delete("deleted")
    py.api("STREAM.PURGE", filter=py.meta_subject("deleted"))
    # The newest message of two: an older version comes to light.
    py.put_meta(**{**py.meta("replaced"), "description": "second"})
    py.api("STREAM.MSG.DELETE", seq=py.revision("replaced"))


def by_limits(line: Line) -> None:
    """The stream begins later than all that the mount has seen of it."""
    py = line.py
    for name in ("kept", "new"):
        py.put(name, name.encode() * 2)
    last = py.api("STREAM.INFO")["state"]["last_seq"]
    py.put("newest", b"newest")
    py.api("STREAM.PURGE", seq=last)
    # Of `new` the meta alone is left.
    py.delete("new")


def by_emptying(line: Line) -> None:
    """Nothing is left, not even a tombstone; then there is something again."""
    line.py.api("STREAM.PURGE")
    line.py.put("d/purged", b"here again")


WAYS = [by_nats_go, by_nats_js, by_an_administrator, by_limits, by_emptying]
RESTARTED = [
    pytest.param(way, True, marks=[] if way is by_nats_go else pytest.mark.nightly) for way in WAYS
]


@pytest.mark.parametrize(("way", "restart"), [*((way, False) for way in WAYS), *RESTARTED])
def test_changes_by_others(way: Callable[[Line], None], restart: bool, line: Line) -> None:
    """A5: whatever others did to a bucket while the mount was cut off, its tree is the bucket's
    afterwards, and every name can be used."""
    line.fill()
    with line.cut(restart=restart):
        way(line)
    wait_until(line.is_exact, "the bucket's tree")
    for name in NAMES:
        path = line.top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"mine")
        assert line.py.get(name) == b"mine"
    assert line.is_exact()


@pytest.mark.parametrize("restart", [False, True], ids=["cut", "restarted"])
def test_sealed_while_cut_off(restart: bool, line: Line) -> None:
    """A6: a bucket that was sealed meanwhile is EROFS as soon as the mount is connected again."""
    line.mount.expect_trouble("can only be read from now on")
    line.fill()
    with line.cut(restart=restart):
        line.py.put("last", b"last")
        line.py.seal()
    wait_until(line.is_exact, "the bucket's tree")
    assert refused((line.top / "new").mkdir) == "EROFS"
    assert refused((line.top / "kept").unlink) == "EROFS"


def test_tombstones_that_gc_took(line: Line) -> None:
    """A5: names whose tombstones were purged while the mount was cut off can be made again, by
    every exclusive call too."""
    line.fill()
    (line.top / "kept").unlink()
    line.py.delete("deleted")
    wait_until(lambda: not (line.top / "deleted").exists(), "the deletion")
    with line.cut():
        for name in ("kept", "deleted"):
            line.py.api("STREAM.PURGE", filter=line.py.meta_subject(name))
        line.py.put("sign", b"")
    wait_until((line.top / "sign").exists, "a foreign file")
    (line.top / "kept").mkdir()
    with open(line.top / "deleted", "xb") as file:
        file.write(b"again")
    assert line.py.get("deleted") == b"again"
    assert line.is_exact()


def test_expired_while_cut_off(line: Line) -> None:
    """A6: objects whose life, or that of all of the bucket, ended while the mount was cut off are
    gone, and so are their tombstones: their names can be used."""
    line.py.reconfigure(allow_msg_ttl=True)
    line.fill()
    line.py.delete("deleted")
    brief = {**line.py.meta("kept"), "name": "brief"}
    line.py.publish(line.py.meta_subject("brief"), json.dumps(brief).encode(), "2s")
    wait_until((line.top / "brief").exists, "the brief one")
    with line.cut():
        wait_until(lambda: "brief" not in line.py.names(), "its end")
    wait_until(line.is_exact, "the bucket's tree")
    with line.cut():
        second = 10**9
        line.py.reconfigure(max_age=second, duplicate_window=second)
        wait_until(lambda: not line.py.api("STREAM.INFO")["state"]["messages"], "the end of all")
        line.py.reconfigure(max_age=0)
        line.py.put("new", b"new")
    wait_until(line.is_exact, "the bucket's tree")
    for name in ("brief", "deleted", "kept"):
        (line.top / name).mkdir()


@pytest.mark.parametrize("grown", [False, True], ids=["shorter", "as long"])
def test_set_back(grown: bool, line: Line, tmp_path: Path) -> None:
    """A6: a server that comes back with an older state of its disk, after a crash that took its
    last minutes or from a backup, has another history: the mount follows, though revisions that it
    knew mean something else now, or nothing."""
    line.mount.expect_trouble("earlier state")
    line.fill()
    copy, directory = tmp_path / "copy", line.server.directory
    with line.cut():
        line.server.stop()
        shutil.copytree(directory, copy)
        line.server.restart()
    line.py.put("replaced", b"lost")
    line.py.delete("deleted")
    line.py.put("d/lost", b"lost")
    (line.top / "own").write_bytes(b"lost")
    wait_until(lambda: (line.top / "d/lost").exists() and line.is_exact(), "the files")
    with line.cut():
        line.server.kill()
        shutil.rmtree(directory)
        shutil.copytree(copy, directory)
        line.server.restart()
        if grown:
            for number in range(6):
                line.py.put("described", f"text {number}".encode())
            line.py.put("d/other", b"other")
    wait_until(line.is_exact, "the bucket's tree")
    assert (line.top / "deleted").read_bytes() == b"deleted" * 1000
    for name in ("own", "d/lost", "replaced"):
        (line.top / name).write_bytes(b"mine")
        assert line.py.get(name) == b"mine"
    assert line.is_exact()


def test_made_again_while_files_wait(line: Line) -> None:
    """W7, A4: what could not be stored before the bucket was deleted and made again does not go
    into the new one by itself, nor over what others stored there: it waits for `natsfs recover`."""
    line.mount.expect_trouble("is not saved yet|flush: no connection|cannot be saved and stays")
    line.mount.expect_trouble("could not be saved and stay in the journal")
    line.fill()
    with line.cut():
        for name in ("waits", "kept"):
            assert refused(partial((line.top / name).write_bytes, b"mine")) == "EIO"
        line.py.drop()
        line.py.create()
        line.py.put("kept", b"by another")
    aside = "cannot be saved and stays in the journal"

    wait_until(lambda: line.mount.log_text().count(aside) == 2, "they are set aside")
    wait_until(line.is_exact, "the bucket's tree")
    assert line.py.names() == ["kept"]
    with line.cut():
        assert refused(partial((line.top / "waits").write_bytes, b"new")) == "EIO"
    wait_until(lambda: "waits" in line.py.names(), "what was written to the new one")
    assert line.py.get("waits") == b"new"
    source = f"{line.proxy.url}/{line.py.bucket}"
    line.mount.stop()
    command = natsfs_command("recover", source, "--former=store")
    assert run(command, env=line.environment, timeout=60).check().startswith("2 files are saved.")
    assert line.py.get("kept") == b"by another"
    assert len(line.py.names()) == 4


#: What programs may be at when the line is cut.
UNDER_WAY = {
    "a small file": 'write("new", b"mine")',
    "a file replaced": 'write("kept", b"mine")',
    "a large file": 'write("new", bytes(9 << 20))',
    "a directory": 'os.mkdir("new")',
    "a removal": 'os.unlink("kept")',
    "a rename": 'os.rename("kept", "new")',
    "a mode": 'os.chmod("kept", 0o600)',
}

#: Does one of these in its directory, and says what that came to.
PROGRAM = """
import errno, os, pathlib
write = lambda name, data: pathlib.Path(name).write_bytes(data)
try:
    {work}
    print("done")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


#: Those that are not tried every time.
AT_NIGHT = ("a file replaced", "a directory", "a removal", "a mode")


@pytest.mark.parametrize(
    "what",
    [pytest.param(w, marks=[pytest.mark.nightly] if w in AT_NIGHT else []) for w in UNDER_WAY],
)
def test_made_again_during_a_change(what: str, line: Line) -> None:
    """A6, W7: a change that was under way when the line was cut, and that is tried again when it is
    back, does not go into the bucket that was made meanwhile: the program hears of it, and what
    it wrote waits for `natsfs recover`."""
    line.mount.expect_trouble("another bucket of its name|written to an earlier bucket")
    line.mount.expect_trouble("could not be saved and stay in the journal")
    line.fill()
    sent = line.proxy.up = Once(lambda frame: frame.startswith(b"HPUB $O."))
    code = PROGRAM.format(work=UNDER_WAY[what])
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=line.top, stdout=subprocess.PIPE, text=True) as program:
        assert sent.done.wait(20)
        with line.cut():
            line.py.drop()
            line.py.create()
            line.py.put("kept", b"by another")
        said, _ = program.communicate(timeout=60)
    assert said == "ESTALE\n"
    wait_until(line.is_exact, "the bucket's tree")
    assert line.py.names() == ["kept"]
    assert line.py.get("kept") == b"by another"
    (line.top / "kept").write_bytes(b"again")
    assert line.py.get("kept") == b"again"
