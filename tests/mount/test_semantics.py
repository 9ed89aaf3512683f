"""Names, kinds and metadata of semantics.md through a real mount, beside what the bucket holds.

Tests that take `directory` run on a local file system too: there the expectation itself is tested.
"""

from __future__ import annotations

import os
import stat
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Mounter
from .foreign import ForeignClient
from .mounting import Mount, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(120)]

#: 2001-09-09T01:46:40.123456789Z
MOMENT = 1_000_000_000_123_456_789
MOMENT_TEXT = "2001-09-09T01:46:40.123456789Z"

OBJECT_NAMES = [
    (".", "．"),
    ("..", "．．"),
    ("a/./b", "a/．/b"),
    ("a/../b", "a/．．/b"),
    ("/leading", "／/leading"),
    ("double//slash", "double/／/slash"),
    ("nul\0byte", "nul␀byte"),
    ("．", "‛．"),
    ("literal/．．", "literal/‛．．"),
    ("literal␀nul", "literal‛␀nul"),
    ("...", "..."),
    (" space ", " space "),
    ("new\nline", "new\nline"),
    ("ünïcödé/日本", "ünïcödé/日本"),
]


def shown(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


# -- N: names -------------------------------------------------------------------------------------


def test_object_names_are_paths(mountpoint: Path, py: ForeignClient) -> None:
    """N1: object `a/b/c` is file `c` in `a/b`, and file `x/y/z` becomes object `x/y/z`."""
    py.put("a/b/c", b"foreign")
    wait_until((mountpoint / "a/b/c").exists, "the object in the mount")
    assert (mountpoint / "a/b/c").read_bytes() == b"foreign"
    (mountpoint / "x/y").mkdir(parents=True)
    (mountpoint / "x/y/z").write_bytes(b"ours")
    assert py.get("x/y/z") == b"ours"


@pytest.mark.parametrize(("name", "path"), OBJECT_NAMES)
def test_unspellable_names(mount: Mount, py: ForeignClient, name: str, path: str) -> None:
    """N2: what POSIX cannot spell is shown with replacement characters, and they lead back."""
    file = mount.directory / path
    py.put_meta(name, digest="SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=")
    wait_until(file.exists, f"{name!r} shown as {path!r}")
    assert file.read_bytes() == b""
    file.write_bytes(b"through the mount")
    meta = py.meta(name)
    assert (meta["name"], meta["size"]) == (name, 17)
    file.unlink()
    assert py.meta(name)["deleted"]


def test_bytes_that_are_not_utf8(mount: Mount, py: ForeignClient) -> None:
    """N2: a byte that is not UTF-8 is `‛XX` in the object's name and itself in the mount."""
    path = os.fsencode(mount.directory) + b"/caf\xe9 \xff"
    Path(os.fsdecode(path)).write_bytes(b"latin")
    assert py.names() == ["caf‛E9 ‛FF"]
    mount.remount()
    assert os.listdir(os.fsencode(mount.directory)) == [b"caf\xe9 \xff"]


def test_directory_markers(mountpoint: Path, py: ForeignClient) -> None:
    """N5: `mkdir d` stores an empty object `d/`, and `rmdir` deletes it."""
    (mountpoint / "d").mkdir()
    assert py.names() == ["d/"]
    assert py.info("d/")["size"] == 0
    (mountpoint / "d/e").mkdir()
    assert py.names() == ["d/", "d/e/"]
    (mountpoint / "d/e").rmdir()
    (mountpoint / "d").rmdir()
    assert py.names() == []
    assert shown(mountpoint) == []


def test_foreign_marker_is_a_directory(mountpoint: Path, py: ForeignClient) -> None:
    """N5: an empty object `d/` that another client stored is an empty directory."""
    py.put("d/", b"")
    wait_until((mountpoint / "d").is_dir, "the directory")
    assert shown(mountpoint / "d") == []


def test_implied_directory_stays(mountpoint: Path, py: ForeignClient) -> None:
    """N5: a prefix that foreign objects imply is a directory until `rmdir`, also an empty one."""
    py.put("implied/deep/file", b"x")
    file = mountpoint / "implied/deep/file"
    wait_until(file.exists, "the object")
    py.delete("implied/deep/file")
    wait_until(lambda: not file.exists(), "the delete")
    assert shown(mountpoint / "implied") == ["deep"]
    assert shown(mountpoint / "implied/deep") == []
    (mountpoint / "implied/deep").rmdir()
    (mountpoint / "implied").rmdir()
    assert shown(mountpoint) == []


def test_names_are_bytes(directory: Path) -> None:
    """N6: names that differ in case or normalisation alone are different files."""
    names = ["case", "CASE", "Case", "\u00e9", "e\u0301", "ﬁ", "fi"]
    for name in names:
        (directory / name).write_text(name)
    assert shown(directory) == sorted(names)
    assert [(directory / name).read_text() for name in names] == names


def test_long_names(directory: Path) -> None:
    """N4: a component of 255 bytes works, one of 256 is ENAMETOOLONG."""
    (directory / ("n" * 255)).write_text("long")
    (directory / ("é" * 127)).write_text("long")
    with pytest.raises(OSError, match="File name too long"):
        (directory / ("n" * 256)).write_text("too long")
    assert len(shown(directory)) == 2


# -- K: kinds -------------------------------------------------------------------------------------


def test_plain_object_is_a_regular_file(mountpoint: Path, py: ForeignClient) -> None:
    """K1: a plain object is a regular file of its size."""
    py.put("f", b"12345")
    wait_until((mountpoint / "f").exists, "the object")
    status = (mountpoint / "f").stat()
    assert stat.S_ISREG(status.st_mode)
    assert status.st_size == 5


@pytest.mark.parametrize(
    ("link", "text"), [("l", "d/f"), ("d/l", "f"), ("x/y/l", "../../d/f"), ("d/sub/l", "../f")]
)
def test_object_link_is_a_symlink(mount: Mount, py: ForeignClient, link: str, text: str) -> None:
    """K2: a link to an object of the bucket is a symlink with the relative path to it."""
    py.put("d/f", b"content")
    py.put_meta(link, options={"link": {"bucket": py.bucket, "name": "d/f"}})
    path = mount.directory / link
    wait_until(path.is_symlink, "the link")
    assert os.readlink(path) == text
    assert path.read_bytes() == b"content"


def test_links_into_other_buckets(mountpoint: Path, py: ForeignClient) -> None:
    """K3: links into another bucket lead to the directory of that bucket beside this one."""
    other = f"o-{uuid.uuid4().hex[:8]}"
    py.put_meta("d/object", options={"link": {"bucket": other, "name": "x/y"}})
    py.put_meta("bucket", options={"link": {"bucket": other}})
    wait_until((mountpoint / "bucket").is_symlink, "the link")
    assert os.readlink(mountpoint / "bucket") == f"../{other}"
    assert os.readlink(mountpoint / "d/object") == f"../../{other}/x/y"


def test_symlink_to_an_object_is_native(mountpoint: Path, py: ForeignClient) -> None:
    """K4: `ln -s` to an existing plain object becomes a link that other clients follow."""
    (mountpoint / "d").mkdir()
    (mountpoint / "d/f").write_bytes(b"content")
    for link, target in (
        ("l", "d/f"),
        ("d/near", "f"),
        ("d/up", "../d/f"),
        ("a", mountpoint / "d/f"),
    ):
        (mountpoint / link).symlink_to(target)
        assert py.meta(link)["options"]["link"] == {"bucket": py.bucket, "name": "d/f"}
        assert py.get(link) == b"content"
        assert os.readlink(mountpoint / link) == str(target)


def test_symlink_to_the_root_is_a_bucket_link(mountpoint: Path, py: ForeignClient) -> None:
    """K4: `ln -s` to the mount's root becomes a bucket link."""
    (mountpoint / "d").mkdir()
    (mountpoint / "d/root").symlink_to("..")
    assert py.meta("d/root")["options"]["link"] == {"bucket": py.bucket}
    assert os.readlink(mountpoint / "d/root") == ".."


@pytest.mark.parametrize("target", ["nowhere", "d", "/etc/hostname", "../outside", "link"])
def test_other_symlinks_are_kept_as_text(mount: Mount, py: ForeignClient, target: str) -> None:
    """K5: any other `ln -s` is an empty object whose mode says link and whose text is kept."""
    (mount.directory / "d").mkdir()
    (mount.directory / "d/f").write_bytes(b"")
    (mount.directory / "link").symlink_to("d/f")
    (mount.directory / "l").symlink_to(target)
    meta = py.meta("l")
    assert "link" not in meta.get("options", {})
    assert stat.S_ISLNK(int(meta["metadata"]["mode"], 8))
    assert meta["size"] == 0
    assert os.readlink(mount.directory / "l") == target


TARGETS = [
    b"f", b"./f", b"d/../f", b"d//g", b"d/g/", b"f/", b".", b"..", b"d", b"nowhere", b"l",
    b"caf\xe9", "ünïcode".encode(), b"two words", b"new\nline", b"/", b"/etc", b"x" * 4000,
    b"\xe2\x80\x9bE9",
]  # fmt: skip


def test_readlink_gives_back_what_symlink_got(mount: Mount) -> None:
    """K6: `readlink` gives the exact bytes, at once, when the target goes, and after a remount."""
    root = os.fsencode(mount.directory)
    (mount.directory / "d").mkdir()
    for name in ("f", "d/g"):
        (mount.directory / name).write_text(name)
    targets = [*TARGETS, root + b"/f", root + b"/d/./g", root]
    for number, target in enumerate(targets):
        os.symlink(target, root + b"/d/l%d" % number)
    links = [root + b"/d/l%d" % number for number in range(len(targets))]
    assert [os.readlink(link) for link in links] == targets
    assert [os.lstat(link).st_size for link in links] == [len(target) for target in targets]
    (mount.directory / "f").unlink()
    mount.remount()
    assert [os.readlink(link) for link in links] == targets


def test_deleted_objects_are_not_shown(mounter: Mounter, py: ForeignClient) -> None:
    """K9: an object that was deleted before or while it is mounted is not there."""
    py.put("before", b"x")
    py.put("while", b"x")
    py.delete("before")
    mountpoint = mounter().directory
    assert shown(mountpoint) == ["while"]
    py.delete("while")
    wait_until(lambda: not shown(mountpoint), "the delete")
    # A listing waits for nothing, and may be ahead of what the kernel is told of names.
    wait_until(lambda: not (mountpoint / "while").exists(), "the kernel is told")


# -- M: metadata ----------------------------------------------------------------------------------


def test_metadata_is_kept_in_the_object(mountpoint: Path, py: ForeignClient) -> None:
    """M1: chmod, chown and utime are stored under rclone's keys in rclone's formats."""
    file = mountpoint / "f"
    file.write_bytes(b"x")
    file.chmod(0o4751)
    os.chown(file, 1234, 5678)
    file.chmod(0o4751)
    os.utime(file, ns=(MOMENT - 1, MOMENT))
    metadata = py.meta("f")["metadata"]
    assert metadata["mode"] == "0104751"
    assert (metadata["uid"], metadata["gid"]) == ("1234", "5678")
    assert (metadata["mtime"], metadata["atime"]) == (MOMENT_TEXT, MOMENT_TEXT[:-2] + "8Z")
    assert py.get("f") == b"x"


@pytest.mark.parametrize("kind", ["file", "directory", "symlink", "native link"])
def test_metadata_survives_a_remount(mount: Mount, kind: str) -> None:
    """M1: mode, owner and times to the nanosecond of any kind of file survive a remount."""
    (mount.directory / "target").write_text("x")
    path = mount.directory / "path"
    if kind == "file":
        path.write_text("content")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("target" if kind == "native link" else "nowhere")
    if not path.is_symlink():
        path.chmod(0o2710)
    os.chown(path, 11, 22, follow_symlinks=False)
    os.utime(path, ns=(MOMENT, -MOMENT - 1), follow_symlinks=False)
    before = path.lstat()
    mount.remount()
    after = path.lstat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (11, 22, before.st_mode)
    assert (after.st_atime_ns, after.st_mtime_ns) == (MOMENT, -MOMENT - 1)
    assert after.st_size == before.st_size


def test_times_move_as_on_a_local_disk(directory: Path) -> None:
    """M1: writing moves mtime and ctime, chmod moves ctime alone, entries move their directory."""
    file = directory / "d" / "f"
    file.parent.mkdir()
    file.write_text("x")
    for path in (file, file.parent):
        os.utime(path, ns=(MOMENT, MOMENT))
    file.chmod(0o600)
    assert file.stat().st_mtime_ns == MOMENT
    assert file.stat().st_ctime_ns > MOMENT
    file.write_text("y")
    assert file.stat().st_mtime_ns > MOMENT
    assert file.parent.stat().st_mtime_ns == MOMENT
    for change in (
        lambda: (file.parent / "new").touch(),
        lambda: (file.parent / "new").rename(file.parent / "newer"),
        lambda: (file.parent / "newer").unlink(),
        lambda: (file.parent / "sub").mkdir(),
        lambda: (file.parent / "sub").rmdir(),
        lambda: (file.parent / "link").symlink_to("f"),
    ):
        os.utime(file.parent, ns=(MOMENT, MOMENT))
        change()
        assert file.parent.stat().st_mtime_ns > MOMENT


def test_foreign_objects_get_defaults(mountpoint: Path, py: ForeignClient) -> None:
    """M2: without metadata the times are the server's and owner and mode come from the mount."""
    before = time.time_ns()
    py.put("d/f", b"x")
    after = time.time_ns()
    wait_until((mountpoint / "d/f").exists, "the object")
    file, parent = (mountpoint / "d/f").stat(), (mountpoint / "d").stat()
    assert before <= file.st_mtime_ns <= after
    assert file.st_mtime_ns == file.st_ctime_ns
    assert stat.S_IMODE(file.st_mode) == 0o644
    assert stat.S_IMODE(parent.st_mode) == 0o755
    assert (file.st_uid, file.st_gid) == (os.getuid(), os.getgid())


def test_undecodable_metadata_falls_back(mount: Mount, py: ForeignClient) -> None:
    """M2: values that cannot be understood fall back to the defaults, with one warning."""
    mount.expect_trouble("WARNING.*broken")
    odd = {"mode": "rwxr--r--", "uid": "-7", "mtime": "yesterday", "gid": "42"}
    py.put_meta("broken", metadata=odd)
    wait_until((mount.directory / "broken").exists, "the object")
    status = (mount.directory / "broken").stat()
    assert stat.S_IMODE(status.st_mode) == 0o644
    assert (status.st_uid, status.st_gid) == (os.getuid(), 42)
    assert shown(mount.directory) == ["broken"]
    assert (mount.directory / "broken").read_bytes() == b""
    warnings = [line for line in mount.log_text().splitlines() if "broken" in line]
    assert len(warnings) == 1


def test_ctime_is_the_servers_timestamp(mount: Mount) -> None:
    """M3: ctime is when the server stored the newest meta, and the same after a remount."""
    file = mount.directory / "f"
    file.write_text("x")
    before = time.time_ns()
    file.chmod(0o600)
    after = time.time_ns()
    changed = file.stat().st_ctime_ns
    assert before <= changed <= after
    mount.remount()
    assert file.stat().st_ctime_ns == changed


def test_ctime_of_what_has_just_changed(mount: Mount) -> None:
    """M3: a program that stats at once after a change of any kind sees the ctime for good."""
    seen = {}
    for number in range(20):
        base = mount.directory / str(number)
        base.mkdir()
        changes: dict[str, Callable[[Path], object]] = {
            "written": lambda path: path.write_bytes(b"x"),
            "empty": lambda path: path.write_bytes(b""),
            "touched": Path.touch,
            "linked": lambda path: path.symlink_to("elsewhere"),
            "special": os.mkfifo,
            "directory": Path.mkdir,
        }
        for name, make in changes.items():
            path = base / name
            make(path)
            seen[path] = path.lstat().st_ctime_ns
        moved = base / "moved"
        (base / "touched").rename(moved)
        seen[moved] = moved.lstat().st_ctime_ns
        del seen[base / "touched"]
        for entry in os.scandir(base):
            assert entry.stat(follow_symlinks=False).st_ctime_ns == seen[Path(entry.path)]
    mount.remount()
    assert {path: path.lstat().st_ctime_ns for path in seen} == seen


def test_foreign_keys_survive_a_rewrite(mountpoint: Path, py: ForeignClient) -> None:
    """M6: unknown keys and fields of a foreign client are kept by chmod, rename and overwriting."""
    fields = {"headers": {"X": ["1", "2"]}, "description": "mine", "vendor": {"deep": [1, None]}}
    py.put_meta("f", metadata={"colour": "red"}, **fields)
    wait_until((mountpoint / "f").exists, "the object")
    (mountpoint / "f").chmod(0o600)
    (mountpoint / "f").rename(mountpoint / "g")
    (mountpoint / "g").write_bytes(b"new content")
    meta = py.meta("g")
    assert {key: meta.get(key) for key in fields} == fields
    assert meta["metadata"]["colour"] == "red"
    assert meta["metadata"]["mode"] == "0100600"


def test_blocks_and_inodes(mount: Mount) -> None:
    """M7: block size, block count and inode numbers are what the promise says."""
    for number, size in enumerate((0, 1, 512, 513, 300_000)):
        (mount.directory / str(number)).write_bytes(b"x" * size)
    (mount.directory / "d").mkdir()
    found = [entry.stat() for entry in mount.directory.iterdir()]
    files = sorted((s for s in found if stat.S_ISREG(s.st_mode)), key=lambda s: s.st_size)
    assert [status.st_blocks for status in files] == [0, 1, 1, 2, 586]
    assert {status.st_blksize for status in files} == {128 * 1024}
    assert len({status.st_ino for status in found}) == len(found)
    assert {s.st_ino for s in found} == {entry.inode() for entry in os.scandir(mount.directory)}
    before = (mount.directory / "4").stat().st_ino
    (mount.directory / "4").rename(mount.directory / "d/moved")
    assert (mount.directory / "d/moved").stat().st_ino == before


def test_statfs(mounter: Mounter, py: ForeignClient, nats_url: str) -> None:
    """M8: `df` shows the bucket's limit, what it holds, and the number of its objects."""
    limited = py.of(f"l-{uuid.uuid4().hex[:8]}")
    limited.create(max_bytes=10_000_000)
    directory = mounter(source=f"{nats_url}/{limited.bucket}").directory
    (directory / "f").write_bytes(os.urandom(1_000_000))
    (directory / "g").write_bytes(b"")
    status = os.statvfs(directory)
    assert 9_900_000 <= status.f_blocks * status.f_frsize <= 10_000_000
    used = (status.f_blocks - status.f_bfree) * status.f_frsize
    assert 1_000_000 <= used <= 1_200_000
    assert status.f_bavail == status.f_bfree
    assert status.f_files - status.f_ffree == 2
    assert status.f_namemax == 255
