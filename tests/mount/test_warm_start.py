"""A mount of a large bucket that begins where the last one was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from natsfs.data.snapshots import LAYOUT

from .conftest import Mounter, required
from .foreign import ForeignClient, go_client
from .mounting import Mount

pytestmark = [pytest.mark.mount, pytest.mark.timeout(180)]

#: Enough for a snapshot to be kept.
COUNT = 5100


def numbered(count: int) -> set[str]:
    return {f"{number:05}" for number in range(count)}


def fill(mount: Mount) -> None:
    """Make the files, and unmount."""
    for name in sorted(numbered(COUNT)):
        os.mknod(mount.directory / name)
    (mount.directory / "00000").write_bytes(b"content")
    mount.stop()
    assert "is kept on disk" in mount.log_text()


@pytest.fixture
def trees(environment: dict[str, str]) -> Path:
    """Where trees are kept."""
    return Path(environment["XDG_CACHE_HOME"]) / "natsfs" / LAYOUT


def test_what_came_and_went_meanwhile(mounter: Mounter, py: ForeignClient) -> None:
    """A5: what other clients put, changed and deleted while the bucket was not mounted is there,
    changed and gone."""
    fill(mounter())
    py.put("new", b"n")
    py.put("00000", b"other")
    py.delete("00001")
    mount = mounter()
    assert "begins where the last mount was" in mount.log_text()
    assert set(os.listdir(mount.directory)) == numbered(COUNT) - {"00001"} | {"new"}
    assert (mount.directory / "00000").read_bytes() == b"other"
    py.delete("00002")
    mount.stop()
    again = mounter()
    assert "begins where the last mount was" in again.log_text()
    assert not (again.directory / "00002").exists()
    assert len(os.listdir(again.directory)) == COUNT - 1


def test_a_purge_that_no_watch_tells_of(mounter: Mounter, py: ForeignClient) -> None:
    """A6: an object whose meta was purged while the bucket was not mounted is not shown."""
    fill(mounter())
    py.api("STREAM.PURGE", filter=py.meta_subject("00001"))
    mount = mounter()
    assert "loading it anew" in mount.log_text()
    assert set(os.listdir(mount.directory)) == numbered(COUNT) - {"00001"}


def test_what_only_a_comparison_shows(
    mounter: Mounter, py: ForeignClient, environment: dict[str, str]
) -> None:
    """A6: names that nats.go renamed, tombstones that were purged and a stream that begins later
    than the tree that was kept are no reason to show anything but the bucket."""
    try:
        go = go_client(py.url, environment).of(py.bucket)
    except FileNotFoundError as missing:
        if required("clients"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    fill(mounter())
    for name in ("01001", "01002"):
        go.rename(name, f"was {name}")
    py.delete("01003")
    py.api("STREAM.PURGE", filter=py.meta_subject("01003"))
    py.api("STREAM.PURGE", seq=py.revision("01000"))
    mount = mounter()
    left = {name for name in numbered(COUNT) if name >= "01004"} | {"00000", "01000"}
    assert set(os.listdir(mount.directory)) == left | {"was 01001", "was 01002"}
    for name in ("00001", "01001", "01003"):
        (mount.directory / name).mkdir()


def test_another_bucket_of_that_name(mounter: Mounter, py: ForeignClient) -> None:
    """A6: a bucket that was deleted and made again has nothing of the old one."""
    fill(mounter())
    py.drop()
    py.create()
    py.put("new", b"n")
    mount = mounter()
    assert os.listdir(mount.directory) == ["new"]


@pytest.mark.parametrize("damage", ["flipped", "short", "unreadable"])
def test_a_damaged_snapshot(mounter: Mounter, trees: Path, damage: str) -> None:
    """R4: a snapshot that is damaged is as good as none; the log says so."""
    fill(mounter())
    (path,) = trees.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    if damage == "unreadable":
        path.unlink()
        path.mkdir()
    else:
        data = bytearray(path.read_bytes())
        if damage == "short":
            del data[len(data) // 2 :]
        else:
            data[len(data) // 2] ^= 1
        path.write_bytes(data)
    mount = mounter()
    if damage != "unreadable":
        mount.expect_trouble("is damaged and not used")
        assert "is damaged and not used" in mount.log_text()
    assert set(os.listdir(mount.directory)) == numbered(COUNT)
