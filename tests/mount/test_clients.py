"""One bucket, two worlds: what another client does shows in the mount, and the other way round.

Every test runs with nats-py, nats.go and nats.js, whose habits differ (protocol.md, 1.3 to 1.7).
"""

from __future__ import annotations

import hashlib
import os
import random
import uuid
from base64 import urlsafe_b64encode
from functools import partial
from pathlib import Path

import pytest

from .foreign import ClientFailed, ForeignClient
from .mounting import Mount, refused, run, shows, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.clients, pytest.mark.timeout(300)]

CHUNK = 128 * 1024

SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 1_500_000)


def body_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.fixture
def linking(foreign: ForeignClient) -> ForeignClient:
    """A client that can make links and rename."""
    if not foreign.links:
        pytest.skip("nats-py has no calls for links, and its rename always fails")
    return foreign


def test_put_there_is_read_here(mountpoint: Path, foreign: ForeignClient) -> None:
    """A1: objects of all sizes that another client puts are listed and read at once."""
    assert list(mountpoint.iterdir()) == []
    for size in SIZES:
        foreign.put(f"d/{size}", body_of(size))
    wait_until(lambda: (mountpoint / f"d/{SIZES[-1]}").exists(), "the objects")
    names = sorted(path.name for path in (mountpoint / "d").iterdir())
    assert names == sorted(map(str, SIZES))
    for size in SIZES:
        assert (mountpoint / "d" / str(size)).stat().st_size == size
        assert (mountpoint / "d" / str(size)).read_bytes() == body_of(size)


def test_written_here_is_got_there(
    mountpoint: Path, foreign: ForeignClient, tmp_path: Path
) -> None:
    """W1: files of all sizes that `cp` writes are byte-identical through another client's get."""
    (mountpoint / "d").mkdir()
    for size in SIZES:
        (tmp_path / str(size)).write_bytes(body_of(size))
        run(["cp", "-a", tmp_path / str(size), mountpoint / "d" / str(size)]).check()
    assert foreign.names() == sorted(["d/", *(f"d/{size}" for size in SIZES)])
    for size in SIZES:
        assert foreign.get(f"d/{size}") == body_of(size)


def test_info_there(mountpoint: Path, foreign: ForeignClient) -> None:
    """W1: another client finds size, chunks and digest of a file in its info."""
    (mountpoint / "f").write_bytes(body_of(300_000))
    info = foreign.info("f")
    digest = urlsafe_b64encode(hashlib.sha256(body_of(300_000)).digest()).decode()
    assert (info["name"], info["bucket"]) == ("f", foreign.bucket)
    assert (info["size"], info["chunks"]) == (300_000, 3)
    assert info["digest"] == f"SHA-256={digest}"
    assert not info.get("deleted")


def test_overwritten_there(mount: Mount, foreign: ForeignClient) -> None:
    """A1: what another client overwrites, longer, shorter or empty, is read anew here."""
    file = mount.directory / "f"
    for size in (1000, 300_000, 10, 0, 5):
        foreign.put("f", body_of(size))
        wait_until(partial(shows, mount, file, body_of(size)), "the new bytes")
        assert file.stat().st_size == size


def test_overwritten_here(mountpoint: Path, foreign: ForeignClient) -> None:
    """W2: a file that replaces another client's object is what that client gets from then on."""
    foreign.put("f", body_of(300_000))
    wait_until((mountpoint / "f").exists, "the object")
    (mountpoint / "f").write_bytes(b"short")
    assert foreign.get("f") == b"short"
    with open(mountpoint / "f", "ab") as file:
        file.write(b" and longer")
    assert foreign.get("f") == b"short and longer"


def test_deleted_there(mountpoint: Path, foreign: ForeignClient) -> None:
    """A1: what another client deletes is gone here, and can be made again from both sides."""
    (mountpoint / "f").write_bytes(b"ours")
    foreign.delete("f")
    wait_until(lambda: not (mountpoint / "f").exists(), "the delete")
    assert refused((mountpoint / "f").read_bytes) == "ENOENT"
    (mountpoint / "f").write_bytes(b"again")
    assert foreign.get("f") == b"again"


def test_deleted_here(mountpoint: Path, foreign: ForeignClient) -> None:
    """K9: what is removed here is gone there, and can be put again."""
    foreign.put("f", b"theirs")
    wait_until((mountpoint / "f").exists, "the object")
    (mountpoint / "f").unlink()
    assert foreign.names() == []
    with pytest.raises(ClientFailed, match=r"(?i)not.?found|deleted"):
        foreign.get("f")
    foreign.put("f", b"again")
    wait_until((mountpoint / "f").exists, "the object")
    assert (mountpoint / "f").read_bytes() == b"again"


def test_renamed_here(mountpoint: Path, foreign: ForeignClient) -> None:
    """A2: after `mv` of files and directories another client has the new names and bytes only."""
    foreign.put("d/one", b"1")
    (mountpoint / "two").write_bytes(b"2")
    wait_until((mountpoint / "d/one").exists, "the object")
    (mountpoint / "d").rename(mountpoint / "e")
    (mountpoint / "two").rename(mountpoint / "e/two")
    assert [name for name in foreign.names() if name != "e/"] == ["e/one", "e/two"]
    assert (foreign.get("e/one"), foreign.get("e/two")) == (b"1", b"2")


def test_renamed_there(mountpoint: Path, linking: ForeignClient) -> None:
    """A1: an object that another client renames has its new name here, and its old one no more."""
    linking.put("d/f", body_of(300_000))
    wait_until((mountpoint / "d/f").exists, "the object")
    linking.rename("d/f", "e/g")
    wait_until((mountpoint / "e/g").exists, "the new name")
    wait_until(lambda: not (mountpoint / "d/f").exists(), "the end of the old name")
    assert (mountpoint / "e/g").read_bytes() == body_of(300_000)
    (mountpoint / "e/g").rename(mountpoint / "back")
    assert linking.get("back") == body_of(300_000)


def test_linked_here(mountpoint: Path, foreign: ForeignClient) -> None:
    """K4: another client follows the link that `ln -s` to a file makes."""
    (mountpoint / "d").mkdir()
    (mountpoint / "d/f").write_bytes(b"content")
    (mountpoint / "d/l").symlink_to("f")
    assert foreign.get("d/l") == b"content"
    link = {"bucket": foreign.bucket, "name": "d/f"}
    assert foreign.info("d/l")["options"]["link"] == link


def test_linked_there(mountpoint: Path, linking: ForeignClient) -> None:
    """K2: links that another client makes are symlinks here, and are read through."""
    linking.put("d/f", b"content")
    linking.add_link("d/near", "d/f")
    linking.add_link("far/away/l", "d/f")
    wait_until(lambda: (mountpoint / "far/away/l").is_symlink(), "the link")
    assert os.readlink(mountpoint / "d/near") == "f"
    assert os.readlink(mountpoint / "far/away/l") == "../../d/f"
    assert (mountpoint / "far/away/l").read_bytes() == b"content"
    (mountpoint / "d/near").unlink()
    assert linking.names() == ["d/f", "far/away/l"]


def test_bucket_link_there(mountpoint: Path, linking: ForeignClient) -> None:
    """K3: a link to another bucket is a symlink to the directory beside the mount."""
    other = linking.of(f"o-{uuid.uuid4().hex[:8]}")
    other.create()
    linking.add_bucket_link("other", other.bucket)
    wait_until(lambda: (mountpoint / "other").is_symlink(), "the link")
    assert os.readlink(mountpoint / "other") == f"../{other.bucket}"


def test_described_there(mountpoint: Path, foreign: ForeignClient) -> None:
    """M5: a client that rewrites the meta of a file leaves its bytes readable here."""
    (mountpoint / "f").write_bytes(body_of(300_000))
    before = (mountpoint / "f").stat().st_ctime_ns
    foreign.describe("f", "described")
    wait_until(lambda: (mountpoint / "f").stat().st_ctime_ns > before, "the new meta")
    assert (mountpoint / "f").read_bytes() == body_of(300_000)
    (mountpoint / "f").chmod(0o600)
    assert foreign.info("f")["description"] == "described"
    assert foreign.get("f") == body_of(300_000)


def test_metadata_here_is_harmless_there(mountpoint: Path, foreign: ForeignClient) -> None:
    """M1: files with modes, owners and times of every kind are read by the other clients."""
    (mountpoint / "f").write_bytes(b"content")
    (mountpoint / "f").chmod(0o4755)
    os.chown(mountpoint / "f", 1, 2)
    os.utime(mountpoint / "f", ns=(-1, 1_000_000_000_000_000_001))
    (mountpoint / "text").symlink_to("no/such/thing")
    assert foreign.get("f") == b"content"
    assert foreign.get("text") == b""
    assert foreign.names() == ["f", "text"]


@pytest.mark.parametrize("name", ["two words", "ab~", "ab?>", "x" * 255, "d/e/f.tar.gz", "-n"])
def test_odd_names(mount: Mount, foreign: ForeignClient, name: str) -> None:
    """N1: names that need encoding are the same on both sides, whoever stores them."""
    file = mount.directory / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"ours")
    assert foreign.get(name) == b"ours"
    foreign.put(name, b"theirs")
    wait_until(lambda: shows(mount, file, b"theirs"), "their bytes")
    foreign.delete(name)
    wait_until(lambda: not file.exists(), "the delete")


def test_changes_here_are_watched_there(mountpoint: Path, foreign: ForeignClient) -> None:
    """W2: a client that watches sees a new file once, whole."""
    with foreign.next_change() as change:
        (mountpoint / "f").write_bytes(body_of(300_000))
        seen = change()
    assert (seen["name"], seen["size"]) == ("f", 300_000)


def test_sealed_there(mount: Mount, foreign: ForeignClient) -> None:
    """A6: after another client seals the bucket, files are read and not written."""
    (mount.directory / "f").write_bytes(b"kept")
    foreign.seal()
    mount.expect_trouble("read from now on|'g' cannot be saved")
    # The mount learns of it at its next request to the server, at the latest by being refused.
    assert refused(lambda: (mount.directory / "g").write_bytes(b"x")) == "EROFS"
    assert (mount.directory / "f").read_bytes() == b"kept"
    mount.remount()
    assert refused(lambda: (mount.directory / "f").chmod(0o600)) == "EROFS"
    assert (mount.directory / "f").read_bytes() == b"kept"


def test_many_clients_fill_one_bucket(mountpoint: Path, foreign: ForeignClient) -> None:
    """A1: objects put while the mount lists and reads turn up without disturbing it."""
    for number in range(5):
        (mountpoint / f"here-{number}").write_bytes(b"%d" % number)
        foreign.put(f"there-{number}", b"%d" % number)
    names = [f"{side}-{number}" for side in ("here", "there") for number in range(5)]
    wait_until(lambda: sorted(p.name for p in mountpoint.iterdir()) == names, "all the files")
    assert foreign.names() == names
    for name in names:
        assert (mountpoint / name).read_bytes() == foreign.get(name) == name[-1].encode()
