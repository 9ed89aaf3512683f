"""Single messages lost, doubled or broken off in every phase of a change: what the program was told
and what the bucket holds agree, and nothing is half, twice or left over.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from natsfs.server import Server
from tests.faults.inspection import contents
from tests.faults.proxy import Answer, Fate, Once, Proxy, nothing, subject_of
from tests.mount.conftest import Mounter
from tests.mount.mounting import Mount, wait_until
from tests.mount.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2

pytestmark = [pytest.mark.mount, pytest.mark.server, pytest.mark.timeout(120)]

#: Bytes of a chunk, of what goes in one chain, and of what leaves while it is written.
CHUNK = 128 * 1024
SMALL = CHUNK + 1000
LARGE = 10 * CHUNK

#: What may happen to a message and to its answer.
FAULTS: dict[str, tuple[str, Fate]] = {
    "request lost": ("request", Fate.LOSE),
    "request doubled": ("request", Fate.TWICE),
    "request cut": ("request", Fate.HALF),
    "answer lost": ("answer", Fate.LOSE),
    "answer doubled": ("answer", Fate.TWICE),
    "answer cut": ("answer", Fate.HALF),
    "cut after the answer": ("answer", Fate.LAST),
}


@dataclass(frozen=True)
class Phase:
    """The *nth* message of a kind: `C` a chunk, `M` a meta, `PURGE` the freeing of chunks."""

    kind: str
    nth: int = 1
    #: Whether the server is asked for an answer to it.
    answered: bool = True

    def __call__(self, frame: bytes) -> bool:
        subject = subject_of(frame).decode()
        return frame.startswith((b"PUB", b"HPUB")) and bool(
            re.search(rf"^\$O\.[^.]+\.{self.kind}\.|STREAM\.{self.kind}\.", subject)
        )


@dataclass(frozen=True)
class Change:
    """Something that a program does to a directory, which has *before* and then *after* in it."""

    act: Callable[[Path], object]
    phases: tuple[Phase, ...]
    after: Mapping[str, bytes]
    before: Mapping[str, bytes] = field(default_factory=dict)


SMALL_BODY = os.urandom(SMALL)
LARGE_BODY = os.urandom(LARGE)
REWRITTEN = SMALL_BODY[:1000] + b"rewritten" + SMALL_BODY[1009:]


def rewrite(directory: Path) -> None:
    with open(directory / "f", "r+b") as file:
        file.seek(1000)
        file.write(b"rewritten")


def rename(flags: int) -> Callable[[Path], object]:
    return lambda directory: renameat2(directory / "a", directory / "b", flags)


CHANGES = {
    "small put": Change(
        lambda directory: (directory / "f").write_bytes(SMALL_BODY),
        (Phase("C", answered=False), Phase("C", 2, answered=False), Phase("M")),
        {"f": SMALL_BODY},
    ),
    "streaming put": Change(
        lambda directory: (directory / "f").write_bytes(LARGE_BODY),
        (Phase("C"), Phase("C", 5), Phase("C", 10), Phase("M")),
        {"f": LARGE_BODY},
    ),
    "rewrite": Change(
        rewrite,
        (Phase("C", answered=False), Phase("M")),
        {"f": REWRITTEN},
        before={"f": SMALL_BODY},
    ),
    "unlink": Change(
        lambda directory: (directory / "a").unlink(),
        (Phase("M"), Phase("PURGE")),
        {},
        before={"a": b"a"},
    ),
    "mkdir": Change(lambda directory: (directory / "d").mkdir(), (Phase("M"),), {"d/": b""}),
    "rename": Change(rename(0), (Phase("M"), Phase("M", 2)), {"b": b"a"}, before={"a": b"a"}),
    "replacing rename": Change(
        rename(0), (Phase("M"), Phase("M", 2)), {"b": b"a"}, before={"a": b"a", "b": b"b"}
    ),
    "exclusive rename": Change(
        rename(RENAME_NOREPLACE), (Phase("M"), Phase("M", 2)), {"b": b"a"}, before={"a": b"a"}
    ),
    "exchange": Change(
        rename(RENAME_EXCHANGE),
        (Phase("M"), Phase("M", 2)),
        {"a": b"b", "b": b"a"},
        before={"a": b"a", "b": b"b"},
    ),
    "directory rename": Change(
        rename(0),
        (Phase("M"), Phase("M", 3, answered=False), Phase("M", 6)),
        {"b/": b"", "b/x": b"x", "b/y": b"y"},
        before={"a/": b"", "a/x": b"x", "a/y": b"y"},
    ),
}


def prepare(directory: Path, files: Mapping[str, bytes]) -> None:
    directory.mkdir()
    for name, body in files.items():
        if name.endswith("/"):
            (directory / name).mkdir()
        else:
            (directory / name).write_bytes(body)


def shown(directory: Path) -> dict[str, bytes]:
    """What is in *directory*, as `Change.after` has it."""
    return {
        f"{path.relative_to(directory)}{'/' if path.is_dir() else ''}": (
            b"" if path.is_dir() else path.read_bytes()
        )
        for path in directory.rglob("*")
    }


def disturb(proxy: Proxy, phase: Phase, fault: str) -> Once | Answer:
    """Have *fault* happen to the message of *phase*."""
    place, fate = FAULTS[fault]
    if place == "request":
        proxy.up = request = Once(phase, fate, phase.nth)
        return request
    answer = Answer(phase, fate, phase.nth)
    proxy.up, proxy.down = answer.request, answer.answer
    return answer


def suffer(mount: Mount, proxy: Proxy, change: Change, phase: Phase, fault: str) -> str:
    """Do *change* with *fault* in *phase* and give the name of its directory."""
    name = f"{phase.kind}{phase.nth}-{fault.replace(' ', '-')}"
    directory = mount.directory / name
    prepare(directory, change.before)
    happened = disturb(proxy, phase, fault)
    change.act(directory)
    wait_until(happened.done.is_set, f"{fault} in {phase}")
    proxy.up = proxy.down = nothing
    assert shown(directory) == change.after, name
    return name


#: Those that go the way of another one, nearly.
NIGHTLY = ("rewrite", "rename", "exchange")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.nightly] if n in NIGHTLY else []) for n in CHANGES],
)
def test_one_message(name: str, proxy: Proxy, mounter: Mounter, nats_server: Server) -> None:
    """A5, W2, A2: whatever happens to one message of a change or to its answer, the change
    succeeds, once and whole, and leaves no chunks behind."""
    change, bucket = CHANGES[name], f"b-{uuid.uuid4().hex[:12]}"
    mount = mounter(
        *("--create", "--timeout=2s", "--purge-delay=0s"), source=f"{proxy.url}/{bucket}", life=100
    )
    mount.expect_trouble("lost the connection")
    expected: dict[str, bytes] = {}
    for phase in change.phases:
        for fault, (place, _) in FAULTS.items():
            if place == "request" or phase.answered:
                directory = suffer(mount, proxy, change, phase, fault)
                expected[f"{directory}/"] = b""
                expected |= {f"{directory}/{key}": body for key, body in change.after.items()}
    mount.stop()
    found = contents(nats_server.url, bucket)
    assert found.objects == expected
    assert found.stray == 0


@pytest.mark.parametrize(
    "words",
    [
        b'{"error":{"code":409,"err_code":10158,"description":"duplicate message id"}}',
        b'{"stream":"s","seq":0,"duplicate":true}',
    ],
    ids=["error", "acknowledgement"],
)
def test_chunk_on_its_way(
    words: bytes, proxy: Proxy, mounter: Mounter, nats_server: Server
) -> None:
    """A5, W2: a server with replicas that says of a chunk that it has not got it everywhere yet, as
    one does after a change of the leader, is asked again; the file is there, once and whole."""
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    mount = mounter("--create", source=f"{proxy.url}/{bucket}", life=100)
    told = Answer(Phase("C"), words, nth=2)
    proxy.up, proxy.down = told.request, told.answer
    # The chunks of a small file are not answered here: with replicas, they are sent as these are.
    (mount.directory / "f").write_bytes(LARGE_BODY)
    assert told.done.is_set()
    mount.stop()
    found = contents(nats_server.url, bucket)
    assert found.objects == {"f": LARGE_BODY}
    assert found.stray == 0
