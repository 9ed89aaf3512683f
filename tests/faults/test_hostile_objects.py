"""What strangers may put into a bucket, and a mount that shows it: nothing of it ends the mount,
hides another object or keeps a program waiting.

Everything is stored as an attacker or a broken client stores it, message by message.  Then a
program looks at all of the mount as a backup does.  What cannot be shown is in `natsfs status`;
what cannot be read is EIO; each with one line in the log.
"""

# ruff: noqa: F401, F811  (fixtures are found by their names)
from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from natsfs.store.foreign_json import MAX_NAME
from natsfs.store.wire import new_nuid, render_digest
from tests.mount.conftest import (
    Mounter,
    bucket,
    environment,
    mount,
    mounter,
    nats_url,
)
from tests.mount.mounting import Mount, natsfs_command, refused, run, wait_until

from .objects import lines_with, put, told, visit
from .stranger import Stranger

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

#: Values that no field of a meta should have; some have one of them by right.
WRONG: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    2**63,
    10**400,
    1e300,
    "",
    "x",
    "..",
    "\0\x1b[2J\n",
    "\ud800",
    "y" * 3000,
    [],
    [[None]],
    {},
    {"a": {}, "": None},
    {"link": {"bucket": "x", "name": [0]}, "max_chunk_size": "?"},
)
FIELDS = [
    "name",
    "description",
    "headers",
    "metadata",
    "options",
    "bucket",
    "nuid",
    "size",
    "mtime",
    "chunks",
    "digest",
    "deleted",
]


@pytest.fixture
def stranger(nats_url: str, bucket: str) -> Iterator[Stranger]:
    """Somebody who may publish to the test's bucket."""
    with Stranger(nats_url, bucket) as made:
        yield made


def malformed(mount: Mount, env: dict[str, str]) -> dict[str, str]:
    """The objects that `natsfs status` says are not shown, by subject."""
    text = run(natsfs_command("status", "--json", mount.directory), env=env).check()
    return {entry["name"]: entry["reason"] for entry in json.loads(text)[0]["malformed"]}


def test_wrong_types_everywhere(
    mounter: Mounter,
    stranger: Stranger,
    environment: dict[str, str],
) -> None:
    """E: whatever stands in the fields of metas, every object is shown or in `natsfs status`, with
    one line in the log, and what is shown is read or is EIO."""
    put(stranger, "good", b"good")
    good = stranger.meta("good")
    subjects = {}
    for field in FIELDS:
        for number, value in enumerate(WRONG):
            name = f"{field}-{number}"
            subjects[stranger.subject(name)] = name
            fields = {**good, "name": name, field: value}
            stranger.store_meta(name, fields, subject=stranger.subject(name))
            if field == "name":
                subjects.pop(stranger.subject(name))  # it may be shown under any name
    put(stranger, "last", b"last")
    mounted = mounter()
    mounted.expect_trouble("WARNING.*an object cannot be shown")
    mounted.expect_trouble("ERROR.*(names no version|are missing)")
    found = visit(mounted.directory)
    assert found["good"] == told(b"good")
    assert found["last"] == told(b"last")
    hidden = malformed(mounted, environment)
    tombstones = {stranger.subject("deleted-1")}
    for subject, name in subjects.items():
        assert (name in found) + (subject in hidden) + (subject in tombstones) == 1, name
    ends = {what.split()[0] for what in found.values()}
    assert ends <= {"file", "directory", "link", "EIO"}
    assert all(len(lines_with(mounted, f"{subject}:")) == 1 for subject in hidden)
    unreadable = [name for name, what in found.items() if what == "EIO"]
    assert len(lines_with(mounted, " ERROR ")) <= len(unreadable)
    (mounted.directory / "written").write_bytes(b"x")
    assert (mounted.directory / "good").read_bytes() == b"good"


#: Payloads that break readers of JSON.
BROKEN_JSON = (
    b"",
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"name":"x","metadata":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
    b'{"name":"x","size":1e400}',
    b'{"name":"x","size":NaN}',
    b'{"name":"x","size":' + b"9" * 100_000 + b"}",
    b'{"name":"' + b"n" * 500_000 + b'"}',
    b'{"name":"' + b"d/" * 100_000 + b'"}',
    b'"name"',
    b"null",
)


def test_broken_json(
    mounter: Mounter,
    stranger: Stranger,
    environment: dict[str, str],
) -> None:
    """E: metas that are no JSON, or JSON that no reader survives, are reported and hurt nobody;
    duplicate keys and bytes that are no UTF-8 do not even hide their object."""
    put(stranger, "good", b"good")
    names = [f"broken-{number}" for number in range(len(BROKEN_JSON))]
    stranger.store(
        [(stranger.subject(name), data) for name, data in zip(names, BROKEN_JSON, strict=True)]
    )
    stranger.store([(stranger.subject("twice"), b'{"name":"no","size":7,"name":"twice","size":0}')])
    stranger.store([(stranger.subject("odd"), b'{"name":"odd","description":"\xff\xc3"}')])
    mounted = mounter()
    mounted.expect_trouble("WARNING.*an object cannot be shown")
    found = visit(mounted.directory)
    assert found == {"good": told(b"good"), "twice": told(b""), "odd": told(b"")}
    assert set(malformed(mounted, environment)) == {stranger.subject(name) for name in names}
    assert len(lines_with(mounted, " WARNING ")) == len(names)
    # And so while it is mounted.
    stranger.store([(stranger.subject("odd"), BROKEN_JSON[3])])
    wait_until(lambda: not (mounted.directory / "odd").exists(), "the end of the object")
    put(stranger, "later", b"later")
    wait_until((mounted.directory / "later").exists, "the next object")


def test_large_metas(mounter: Mounter, stranger: Stranger) -> None:
    """M6: metas as large as a message can be are read, and what is in them can be seen."""
    many = {f"k{number}": "v" * 80 for number in range(8_000)}
    put(stranger, "map", b"a", metadata=many)
    put(stranger, "value", b"b", metadata={"v": "w" * 900_000})
    put(stranger, "headers", b"c", headers={"h": ["x" * 10] * 50_000})
    put(stranger, "extra", b"d", unknown=[{"a": 1}] * 80_000)
    put(stranger, "description", b"e", description="\n" * 400_000)
    directory = mounter().directory
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == {
        "map": b"a",
        "value": b"b",
        "headers": b"c",
        "extra": b"d",
        "description": b"e",
    }
    for path in directory.iterdir():
        # The kernel has room for 64 KiB of names, or of one value.
        try:
            os.listxattr(path)
        except OSError as error:
            assert error.errno in (errno.E2BIG, errno.ERANGE)  # noqa: PT017
    assert refused(lambda: os.getxattr(directory / "value", "user.v")) == "E2BIG"
    (directory / "value").rename(directory / "renamed")
    assert stranger.meta("renamed")["metadata"]["v"] == "w" * 900_000


HOSTILE_NAMES = {
    "..": "．．‛",
    "../../etc/passwd": "．．/．．/etc/passwd",
    "/etc/shadow": "／/etc/shadow",
    "a//b": "a/／/b",
    "./c": "．/c",
    "n\0ul": "n␀ul",
    "new\nline": "new\nline",
    "esc\x1b]0;x\x07": "esc\x1b]0;x\x07",
    "\u202egnp.exe": "\u202egnp.exe",
    " ": " ",
    "*": "*",
    "-rf": "-rf",
}


def test_hostile_names(mounter: Mounter, stranger: Stranger) -> None:
    """N2: names that would lead out, or that a path cannot hold, are shown inside the mount; each
    can be read, renamed and removed."""
    for name in HOSTILE_NAMES:
        put(stranger, name, name.encode())
    directory = mounter().directory
    for name, shown in HOSTILE_NAMES.items():
        assert (directory / shown).read_bytes() == name.encode()
        (directory / shown).rename(directory / "moved")
        (directory / "moved").unlink()
    left = [names for _, _, names in os.walk(directory)]
    assert not any(left)


def test_long_and_deep_names(
    mounter: Mounter,
    stranger: Stranger,
    environment: dict[str, str],
) -> None:
    """N4: components of thousands of bytes and paths of ten thousand directories are shown, at no
    cost for others; a name that is longer than any subject could say is reported."""
    put(stranger, "good", b"good")
    long = [letter * 2880 for letter in "xyz"] + ["x" * 2878 + "é"]
    for name in long:
        put(stranger, name, name[:1].encode())
    deep = "d/" * 10_000 + "leaf"
    odd = [f"$O.{stranger.bucket}.M.deep-{number}" for number in range(3)]
    for name, subject in zip((deep, "/" * 10_000 + "x", "e" * (MAX_NAME + 1)), odd, strict=True):
        stranger.store_meta(name, {}, subject=subject)
    mounted = mounter()
    mounted.expect_trouble("WARNING.*an object cannot be shown.*a name of")
    directory = mounted.directory
    assert set(malformed(mounted, environment)) == {odd[2]}
    shown = [name for name in os.listdir(directory) if name not in ("good", "d", "／")]
    assert len(shown) == len(long)
    assert all(200 < len(os.fsencode(name)) <= 255 for name in shown)
    assert sorted((directory / name).read_bytes() for name in shown) == [b"x", b"x", b"y", b"z"]
    descend = (
        "import os, sys\nos.chdir(sys.argv[1])\n"
        "for _ in range(10_000): os.chdir('d')\n"
        "assert os.listdir() == ['leaf']\nos.unlink('leaf')"
    )
    run([sys.executable, "-c", descend, str(directory)], timeout=60).check()
    assert (directory / "good").read_bytes() == b"good"


def test_links_of_all_kinds(mounter: Mounter, stranger: Stranger) -> None:
    """K2, K3: loops, links to themselves, to nothing and to odd buckets are links that lead
    nowhere; texts that no program could use are EIO, with one line each."""

    def link(name: str, to: str | None, bucket: str = "", **metadata: str) -> None:
        target = {"bucket": bucket or stranger.bucket, **({} if to is None else {"name": to})}
        stranger.store_meta(name, {"options": {"link": target}, "metadata": metadata})

    def text(name: str, target: str) -> None:
        stranger.store_meta(name, {"metadata": {"mode": "0120777", "symlink": target}})

    put(stranger, "good", b"good")
    link("self", "self")
    for number in range(3):
        link(f"loop-{number}", f"loop-{(number + 1) % 3}")
        link(f"hard-{number}", f"hard-{(number + 1) % 3}", hardlink="true")
    link("hard-self", "hard-self", hardlink="true")
    link("below", "below/below")
    link("above", "../../../etc/passwd")
    link("nothing", None, "no-such-bucket")
    link("elsewhere", "x", "no-such-bucket")
    text("out", "../../../../../../../etc/passwd")
    text("absolute", "/etc/passwd")
    text("long", "x" * 5000)
    text("nul", "good\0evil")
    text("empty", "")
    mounted = mounter()
    mounted.expect_trouble("WARNING.*metadata of '(long|nul|empty)' cannot be used")
    directory = mounted.directory
    found = visit(directory)
    assert found["good"] == told(b"good")
    assert found["long"] == found["nul"] == found["empty"] == "EIO"
    assert len(lines_with(mounted, " WARNING ")) == 3
    assert os.readlink(directory / "out") == "../../../../../../../etc/passwd"
    loops = ["self", *(f"{kind}-{number}" for kind in ("loop", "hard") for number in range(3))]
    for name in loops:
        assert refused((directory / name).read_bytes) in ("ELOOP", "ENOENT", "EIO"), name
    for name in ("below", "above", "nothing", "elsewhere", "empty"):
        assert refused((directory / name).read_bytes) in ("ENOENT", "ENOTDIR", "EIO", "ELOOP"), name
    for name in [*found]:
        if name != "good":
            os.unlink(directory / os.fsdecode(unquote_to_bytes(name)))
    assert os.listdir(directory) == ["good"]


def test_nonsense_attributes(mounter: Mounter, stranger: Stranger) -> None:
    """M2: modes, owners and times of nonsense fall back, with one line for each object."""
    wrong = {
        "mode": ("", "-1", "9", "0o", "777777777", "1e3", "0170644", "0040755", "0060644", "٣"),
        "uid": ("-1", "4294967295", "1e9", "root", "", "9" * 5000),
        "gid": ("-1", "\0", "१"),
        "mtime": ("9999-99-99T00:00:00Z", "+1000000-01-01T00:00:00Z", "0", "9" * 300, "never"),
        "atime": ("0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999999999999-99:99"),
        "btime": ("x",),
        "rdev": ("fffffffffffffffff", "-1"),
    }
    names = []
    for key, values in wrong.items():
        for number, value in enumerate(values):
            names.append(f"{key}-{number}")
            metadata = {"mode": "0020644", key: value} if key == "rdev" else {key: value}
            put(stranger, names[-1], b"" if key == "rdev" else b"bytes", metadata=metadata)
    mounted = mounter()
    mounted.expect_trouble("WARNING.*cannot be used")
    found = visit(mounted.directory)
    assert sorted(found) == sorted(names)
    assert {what for name, what in found.items() if not name.startswith("rdev")} == {told(b"bytes")}
    for name in names:
        os.utime(mounted.directory / name, ns=(10**18, 10**18))
        assert (mounted.directory / name).stat().st_mtime_ns == 10**18
        assert len(lines_with(mounted, repr(name))) <= 1


@pytest.mark.parametrize("missing", [0, 7, 15], ids=["first", "middle", "last"])
def test_chunk_deleted(mounter: Mounter, stranger: Stranger, missing: int) -> None:
    """E: a chunk that is missing on the server is EIO for whoever reads it, with one line in the
    log however much is read; what is left can be read, and other files are as before."""
    body = b"".join(bytes([number]) * 65536 for number in range(16))
    nuid = put(stranger, "damaged", body, 65536)
    put(stranger, "good", b"good")
    stranger.remove(stranger.chunks(nuid)[missing])
    mounted = mounter()
    mounted.expect_trouble("ERROR.*'damaged'.*missing")
    with open(mounted.directory / "damaged", "rb", buffering=0) as file:
        assert refused(lambda: os.pread(file.fileno(), 4096, missing * 65536)) == "EIO"
        for number in range(16):
            try:
                assert set(os.pread(file.fileno(), 4096, number * 65536)) == {number}
            except OSError as error:
                assert error.errno == errno.EIO  # noqa: PT017
    assert refused((mounted.directory / "damaged").read_bytes) == "EIO"
    assert (mounted.directory / "good").read_bytes() == b"good"
    assert len(lines_with(mounted, " ERROR ")) == 1
    (mounted.directory / "damaged").write_bytes(b"whole again")
    assert (mounted.directory / "damaged").read_bytes() == b"whole again"


def test_what_a_meta_may_claim(mounter: Mounter, stranger: Stranger) -> None:
    """R3: digests, sizes and numbers of chunks that are not true never bring wrong bytes, and a
    meta that claims another object's version does no harm to that."""
    body = os.urandom(300_000)
    nuid = put(stranger, "true", body, 100_000)
    true = stranger.meta("true")
    claims: dict[str, dict[str, Any]] = {
        "digest": {"digest": render_digest(bytes(32))},
        "short": {"size": 299_999},
        "long": {"size": 300_001},
        "longer": {"size": 400_000, "chunks": 4},
        "huge": {"size": 2**62},
        "shorter": {"size": 200_000, "chunks": 2},
        "few": {"chunks": 1},
        "many": {"chunks": 2**62},
        "small-chunks": {"options": {"max_chunk_size": 1}},
        "odd-chunks": {"options": {"max_chunk_size": 90_000}, "size": 280_000},
        "huge-chunks": {"options": {"max_chunk_size": 2**62}},
    }
    for name, fields in claims.items():
        stranger.store_meta(name, {**true, "name": name, **fields})
    mounted = mounter()
    mounted.expect_trouble("ERROR.*(digest|missing)")
    for _ in range(2):
        found = visit(mounted.directory)
        sound = ("true", "few", "many", "small-chunks", "huge-chunks")
        assert {name: found.pop(name) for name in sound} == dict.fromkeys(sound, told(body))
        assert set(found.values()) == {"EIO"}
    for name in claims:
        (mounted.directory / name).unlink()
    assert stranger.chunks(nuid)
    mounted.remount()
    assert (mounted.directory / "true").read_bytes() == body


def test_messages_out_of_place(
    mounter: Mounter,
    stranger: Stranger,
    environment: dict[str, str],
) -> None:
    """N1: metas on subjects that are not Base64, of another name, of more tokens or of another
    kind, and tombstones with content, do not hide what is stored properly."""
    prefix = f"$O.{stranger.bucket}"
    meta = {"bucket": stranger.bucket, "nuid": new_nuid(), "size": 0, "chunks": 0}
    put(stranger, "good", b"good")
    put(stranger, "rival", b"rival")

    def publish(subject: str, **fields: Any) -> None:
        stranger.store([(subject, json.dumps({**meta, **fields}).encode())])

    publish(f"{prefix}.M.no-base-64!", name="no-base")
    publish(f"{prefix}.M.{'A' * 3000}", name="zeros")
    publish(f"{prefix}.M.a.b.c", name="tokens")
    publish(f"{prefix}.M.other", name="good", size=0)
    publish(stranger.subject("x"), name="rival")
    publish(f"{prefix}.C.foreign", name="chunk")
    put(stranger, "grave", b"content", deleted=True)
    mounted = mounter()
    found = visit(mounted.directory)
    bodies = sorted(found.values())
    assert bodies.count(told(b"good")) == bodies.count(told(b"rival")) == 1
    assert "grave" not in found
    assert {"no-base", "zeros", "tokens"} <= set(found)
    assert len(found) == 7
    assert malformed(mounted, environment) == {}
    while names := os.listdir(mounted.directory):
        os.unlink(mounted.directory / names[0])


def test_names_that_collide(mounter: Mounter, stranger: Stranger) -> None:
    """N3: thousands of objects that want one name have one each, and cost no more than others."""
    meta = {"bucket": stranger.bucket, "nuid": "", "size": 0, "chunks": 0, "name": "same"}
    prefix = f"$O.{stranger.bucket}.M."
    stranger.store([(f"{prefix}s{n}", json.dumps(meta).encode()) for n in range(2_000)])
    put(stranger, "good", b"good")
    directory = mounter().directory
    names = os.listdir(directory)
    assert len(names) == len(set(names)) == 2_001
    assert (directory / "good").read_bytes() == b"good"


@pytest.mark.parametrize(
    "count",
    [50_000, pytest.param(1_000_000, marks=[pytest.mark.nightly, pytest.mark.timeout(1800)])],
)
def test_huge_directory(mounter: Mounter, stranger: Stranger, tmp_path: Path, count: int) -> None:
    """A1: a directory of very many files is listed in full, and other files answer meanwhile."""
    meta = f'{{"name":"d/%d","bucket":"{stranger.bucket}","nuid":"%s","size":0,"chunks":0}}'
    put(stranger, "good", b"good")
    stranger.store(
        [(stranger.subject(f"d/{n}"), (meta % (n, new_nuid())).encode()) for n in range(count)]
    )
    # A million metas take 20 s on a quiet machine of two processors.
    mounted = mounter(life=1700.0, patience=600.0)
    shown, slowest, looks = tmp_path / "shown", 0.0, 0
    with (
        open(shown, "wb") as out,
        subprocess.Popen(["ls", "-f", mounted.directory / "d"], stdout=out) as listing,
    ):
        while listing.poll() is None or not looks:
            begin = time.monotonic()
            with open(mounted.directory / "good", "rb") as file:
                assert file.read() == b"good"
            slowest = max(slowest, time.monotonic() - begin)
            looks += 1
    names = shown.read_text().splitlines()
    assert len(names) == count + 2
    assert set(names) == {".", "..", *map(str, range(count))}
    assert slowest < 5.0
