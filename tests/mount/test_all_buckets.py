"""A mount of all buckets, from the command line and with other clients beside it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from natsfs.server import Server, start_server
from tests.contract.linked import freeze

from .conftest import required
from .foreign import ForeignClient, go_client, py_client
from .mounting import Mount, mounted_device, natsfs_command, refused, run, wait_until
from .syscalls import as_user

pytestmark = pytest.mark.mount

#: A user who is not the owner of the mount.
OTHER = 12345

#: Bits of an inode number below the part that says which bucket it is in.
SLOT_BITS = 40


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server with nothing but the test's buckets."""
    server = start_server(tmp_path / "server")
    yield server
    server.kill()


@pytest.fixture
def client(own_server: Server, environment: dict[str, str]) -> ForeignClient:
    """nats-py on that server."""
    return py_client(own_server.url, environment)


@pytest.fixture
def top(own_server: Server, tmp_path: Path, environment: dict[str, str]) -> Iterator[Mount]:
    """All its buckets, mounted."""
    directory = tmp_path / "all"
    directory.mkdir()
    with Mount(own_server.url, directory, env=environment, log=tmp_path / "all.log") as mount:
        yield mount


@pytest.fixture
def root(top: Mount) -> Path:
    """The directory of `top`."""
    return top.directory


def make(client: ForeignClient, bucket: str, **objects: bytes) -> ForeignClient:
    """Create *bucket* with *objects*; a client of it."""
    made = client.of(bucket)
    made.create()
    for name, body in objects.items():
        made.put(name, body)
    return made


def seen(directory: Path) -> list[str]:
    """What is in *directory*, sorted."""
    return sorted(os.listdir(directory))


def awake(mount: Mount, environment: dict[str, str]) -> list[str]:
    """The buckets that *mount* follows, as it says itself."""
    status = run(natsfs_command("status", "--json", mount.directory), env=environment).check()
    buckets: list[str] = json.loads(status)[0]["buckets"]
    return buckets


def is_shown(path: Path) -> None:
    """Wait until *path* exists."""
    wait_until(path.exists, f"{path} to be shown")


# -- which buckets there are ----------------------------------------------------------------------


def test_shows_buckets(client: ForeignClient, top: Mount) -> None:
    """B1: buckets made before and after mounting are directories with what is in them; deleted
    ones go."""
    root = top.directory
    assert seen(root) == []
    assert not (root / "one").exists()
    make(client, "one").put("d/f", b"1")
    wait_until(lambda: seen(root) == ["one"], "the bucket")
    assert (root / "one" / "d" / "f").read_bytes() == b"1"
    make(client, "two")
    is_shown(root / "two")
    top.remount()
    assert seen(root) == ["one", "two"]
    assert (root / "one/d/f").read_bytes() == b"1"
    client.of("one").drop()
    wait_until(lambda: seen(root) == ["two"], "the bucket to go")
    assert not (root / "one").exists()


def test_follows_what_is_in_them(client: ForeignClient, root: Path) -> None:
    """A1: what other clients change in a bucket shows as it does in a mount of that bucket."""
    one, two = make(client, "one"), make(client, "two")
    is_shown(root / "two")
    assert seen(root / "one") == seen(root / "two") == []
    one.put("f", b"1")
    two.put("f", b"22")
    wait_until(lambda: (root / "one/f").exists(), "the first object")
    wait_until(lambda: (root / "two/f").exists(), "the second object")
    assert ((root / "one/f").read_bytes(), (root / "two/f").read_bytes()) == (b"1", b"22")
    one.delete("f")
    wait_until(lambda: seen(root / "one") == [], "the object to go")
    (root / "one/g").write_bytes(b"333")
    assert one.get("g") == b"333"


def test_make_and_remove(client: ForeignClient, root: Path) -> None:
    """B2: mkdir makes a bucket, rmdir deletes it once it is empty, and the name is free again."""
    made = root / "made"
    made.mkdir()
    assert client.of("any").account()["buckets"] == ["made"]
    assert refused(made.mkdir) == "EEXIST"
    (made / "f").write_bytes(b"1")
    assert refused(made.rmdir) == "ENOTEMPTY"
    (made / "f").unlink()
    inode = made.stat().st_ino
    made.rmdir()
    assert client.of("any").account()["buckets"] == []
    assert not made.exists()
    assert seen(root) == []
    made.mkdir()
    assert seen(made) == []
    assert made.stat().st_ino != inode
    assert client.of("any").account()["buckets"] == ["made"]


def test_remove_what_nobody_looked_into(client: ForeignClient, root: Path) -> None:
    """B2: rmdir looks into a bucket at the server, whatever this mount knows of it."""
    full, marked, tombs = (
        make(client, "full", f=b"1"),
        make(client, "marked"),
        make(client, "tombs"),
    )
    tombs.put("f", b"1")
    tombs.delete("f")
    marked.put("./", b"")
    for name in ("full", "marked", "tombs"):
        is_shown(root / name)
    assert refused((root / "full").rmdir) == "ENOTEMPTY"
    (root / "marked").rmdir()
    (root / "tombs").rmdir()
    assert full.account()["buckets"] == ["full"]
    assert full.get("f") == b"1"


def test_a_file_that_is_not_stored_yet(client: ForeignClient, root: Path) -> None:
    """B2: a bucket in which a file is being written is not empty."""
    (root / "b").mkdir()
    with open(root / "b" / "f", "wb") as file:
        file.write(b"1")
        assert refused((root / "b").rmdir) == "ENOTEMPTY"
    assert client.of("b").get("f") == b"1"


@pytest.mark.parametrize("way", ["hangs", "is dead"])
def test_hard(
    way: str,
    own_server: Server,
    client: ForeignClient,
    tmp_path: Path,
    environment: dict[str, str],
) -> None:
    """A5: with `-o hard` who looks into a bucket for the first time waits for a server that is away
    for as long as it is, and finds what is there."""
    make(client, "b", file=b"data")
    directory = tmp_path / "all"
    directory.mkdir()
    options = ("-o", "hard,timeout=1s")
    log = tmp_path / "all.log"
    with Mount(own_server.url, directory, *options, env=environment, log=log) as mount:
        mount.expect_trouble("lost the connection|no answer|no connection|connection lost")
        if way == "hangs":
            freeze(own_server)
        else:
            own_server.kill()
        reader = subprocess.Popen(["cat", directory / "b" / "file"], stdout=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            reader.wait(5)  # five time-outs
        if way == "hangs":
            os.kill(own_server.pid, signal.SIGCONT)
        else:
            own_server.restart()
        assert reader.communicate(timeout=30)[0] == b"data"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("a b", "EINVAL"),
        ("a.b", "EINVAL"),
        ("*", "EINVAL"),
        ("ä", "EINVAL"),
        ("x" * 252, "EINVAL"),
        ("x" * 256, "ENAMETOOLONG"),
    ],
)
def test_names(root: Path, name: str, error: str) -> None:
    """B2: what cannot be a bucket's name is refused."""
    assert refused((root / name).mkdir) == error
    assert seen(root) == []


def test_longest_name(client: ForeignClient, root: Path) -> None:
    """B2: a stream's name has 255 characters at most, of which a bucket has 251."""
    name = "x" * 251
    (root / name / "d").mkdir(parents=True)
    assert client.of(name).account()["buckets"] == [name]
    assert seen(root) == [name]


def test_the_top_is_for_buckets(client: ForeignClient, root: Path, tmp_path: Path) -> None:
    """B2: nothing but buckets can be made at the top, they keep their names, and the top has no
    attributes to change."""
    make(client, "b", f=b"1")
    is_shown(root / "b/f")
    assert refused(lambda: (root / "f").write_bytes(b"")) == "EPERM"
    assert refused(lambda: (root / "f").symlink_to("b")) == "EPERM"
    assert refused(lambda: os.mkfifo(root / "f")) == "EPERM"
    assert refused(lambda: os.link(root / "b/f", root / "f")) == "EXDEV"
    assert refused(lambda: (root / "b/f").rename(root / "f")) == "EXDEV"
    assert refused(lambda: (root / "b").rename(root / "c")) == "EPERM"
    (root / "d").mkdir()
    assert refused(lambda: (root / "b").rename(root / "d")) == "EPERM"
    assert refused(lambda: (root / "b").rename(root / "d/b")) == "EXDEV"
    (root / "d").rmdir()
    assert refused(lambda: root.chmod(0o700)) == "EPERM"
    assert refused(lambda: os.chown(root, 1, 1)) == "EPERM"
    assert refused(lambda: os.utime(root, (1, 1))) == "EPERM"
    assert refused(lambda: os.setxattr(root, b"user.x", b"1")) == "EPERM"
    assert os.listxattr(root) == []
    assert seen(root) == ["b"]


def test_attributes_of_buckets(
    client: ForeignClient, top: Mount, environment: dict[str, str]
) -> None:
    """M1: mode, owner, times and xattrs of a bucket's directory are stored in the bucket, and are
    there before anybody looks into it."""
    root = top.directory
    (root / "plain").mkdir()
    (root / "made").mkdir(mode=0o750)
    (root / "set").mkdir()
    (root / "set").chmod(0o1700)
    os.chown(root / "set", 12, 34)
    os.utime(root / "set", ns=(10**18 + 1, 10**18 + 2))
    os.setxattr(root / "set", b"user.x", b"1")
    assert client.of("plain").names() == []
    assert client.of("made").names() == ["./"]
    for _ in range(2):
        assert stat.S_IMODE((root / "made").stat().st_mode) == 0o750
        status = (root / "set").stat()
        assert (status.st_mode, status.st_uid, status.st_gid) == (0o041700, 12, 34)
        assert (status.st_atime_ns, status.st_mtime_ns) == (10**18 + 1, 10**18 + 2)
        assert os.getxattr(root / "set", b"user.x") == b"1"
        top.remount()
    assert awake(top, environment) == []
    assert seen(root / "set") == []
    assert awake(top, environment) == ["set"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for other users")
def test_modes_of_sleeping_buckets(
    own_server: Server, client: ForeignClient, tmp_path: Path, environment: dict[str, str]
) -> None:
    """M1: the mode of a bucket's directory keeps others out before anybody has looked into it."""
    for bucket, mode in (("shut", "0040700"), ("open", "0040755")):
        made = make(client, bucket, f=b"1")
        made.put_meta("./", metadata={"mode": mode})
    directory = tmp_path / "others"
    directory.mkdir()
    log = tmp_path / "others.log"
    mount = Mount(own_server.url, directory, "--allow-other", env=environment, log=log)
    # Directories above the mount may be closed to others.
    with mount, chdir(directory):
        assert refused(lambda: as_user(OTHER, Path("shut/f").stat)) == "EACCES"
        assert refused(lambda: as_user(OTHER, Path("new").mkdir)) == "EACCES"
        assert awake(mount, environment) == []
        assert as_user(OTHER, Path("open/f").read_bytes) == b"1"
        assert refused(lambda: as_user(OTHER, Path("open/g").touch)) == "EACCES"


def test_inode_numbers(client: ForeignClient, root: Path) -> None:
    """M7: numbers are unique in the mount, whatever bucket they are in, and tell which."""
    make(client, "one", f=b"1")
    make(client, "two", f=b"1")
    is_shown(root / "one/f")
    is_shown(root / "two/f")
    paths = [root, root / "one", root / "two", root / "one/f", root / "two/f"]
    numbers = [path.stat().st_ino for path in paths]
    assert len(set(numbers)) == len(paths)
    assert root.stat().st_ino == 1
    for directory in (root / "one", root / "two"):
        with os.scandir(directory) as entries:
            slots = {entry.inode() >> SLOT_BITS for entry in entries}
        assert slots == {directory.stat().st_ino >> SLOT_BITS}
    listed = {entry.name: entry.inode() for entry in os.scandir(root)}
    assert listed == {name: (root / name).stat().st_ino for name in ("one", "two")}


def test_one_bucket_has_the_numbers_it_always_had(mountpoint: Path) -> None:
    """M7: in a mount of one bucket the numbers are small."""
    (mountpoint / "f").touch()
    assert mountpoint.stat().st_ino == 1
    assert (mountpoint / "f").stat().st_ino == 2


def test_space(client: ForeignClient, root: Path) -> None:
    """M8: the top shows the space of the account."""
    make(client, "b", f=b"x" * 1_000_000)
    is_shown(root / "b/f")

    def used() -> int:
        space = os.statvfs(root)
        return (space.f_blocks - space.f_bfree) * space.f_frsize

    wait_until(lambda: used() >= 900_000, "the object to be counted")


def test_a_server_that_restarts(
    own_server: Server, client: ForeignClient, top: Mount, environment: dict[str, str]
) -> None:
    """B1: after a lost connection the buckets are what they are now, and those in use are followed
    as before."""
    make(client, "kept", f=b"1")
    make(client, "gone", f=b"1")
    is_shown(top.directory / "kept/f")
    is_shown(top.directory / "gone/f")
    top.expect_trouble("WARNING.*lost the connection")
    own_server.restart()
    client.of("gone").drop()
    make(client, "new", f=b"1")
    wait_until(lambda: seen(top.directory) == ["kept", "new"], "the buckets of now")
    client.of("kept").put("g", b"22")
    is_shown(top.directory / "kept/g")
    (top.directory / "new/g").write_bytes(b"22")
    assert client.of("new").get("g") == b"22"
    assert awake(top, environment) == ["kept", "new"]


# -- between buckets ------------------------------------------------------------------------------


def test_move_between(client: ForeignClient, root: Path, environment: dict[str, str]) -> None:
    """B2: a rename between buckets is EXDEV, so that mv copies and removes."""
    one, two = make(client, "one", f=b"data"), make(client, "two")
    is_shown(root / "one/f")
    is_shown(root / "two")
    assert refused(lambda: (root / "one/f").rename(root / "two/f")) == "EXDEV"
    assert refused(lambda: os.link(root / "one/f", root / "two/f")) == "EXDEV"
    run(["mv", root / "one/f", root / "two/g"], env=environment).check()
    assert (one.names(), two.names(), two.get("g")) == ([], ["g"], b"data")


def test_copy_a_bucket(client: ForeignClient, root: Path, environment: dict[str, str]) -> None:
    """B2: cp -a of a bucket makes another one with the same content."""
    one = make(client, "one", **{"f": b"1", "d/g": b"22"})
    is_shown(root / "one/d/g")
    (root / "one/f").chmod(0o640)
    (root / "one").chmod(0o750)
    (root / "one/l").symlink_to("f")
    run(["cp", "-a", root / "one", root / "copy"], env=environment).check()
    copy = client.of("copy")
    assert set(copy.names()) >= {"./", "d/g", "f", "l"}
    assert (copy.get("f"), copy.get("d/g")) == (b"1", b"22")
    assert one.info("l")["options"]["link"]["bucket"] == "one"
    assert copy.info("l")["options"]["link"]["bucket"] == "copy"
    for name in ("", "f", "d", "d/g", "l"):
        before, after = (root / "one" / name).lstat(), (root / "copy" / name).lstat()
        assert (before.st_mode, before.st_mtime_ns) == (after.st_mode, after.st_mtime_ns)
    shutil.rmtree(root / "copy")
    assert client.of("any").account()["buckets"] == ["one"]


def test_links_of_others(client: ForeignClient, root: Path) -> None:
    """K3: links to objects in other buckets, and to buckets, lead there."""
    one, two = make(client, "one"), make(client, "two", f=b"data")
    two.put("d/g", b"more")
    one.put_meta("o", options={"link": {"bucket": "two", "name": "f"}})
    one.put_meta("sub/o", options={"link": {"bucket": "two", "name": "d/g"}})
    one.put_meta("b", options={"link": {"bucket": "two"}})
    is_shown(root / "two")
    assert os.readlink(root / "one/o") == "../two/f"
    assert (root / "one/o").read_bytes() == b"data"
    assert os.readlink(root / "one/sub/o") == "../../two/d/g"
    assert (root / "one/sub/o").read_bytes() == b"more"
    assert os.readlink(root / "one/b") == "../two"
    assert (root / "one/b/f").read_bytes() == b"data"


@pytest.mark.parametrize("absolute", [False, True])
def test_links_into_others(client: ForeignClient, root: Path, absolute: bool) -> None:
    """K4: a symbolic link that names an object in another bucket, or a bucket, is native, whether
    anybody has looked into that bucket or not."""
    one = make(client, "one")
    make(client, "two", **{"f": b"data", "d/g": b"more"})
    is_shown(root / "two")
    up = str(root) if absolute else ".."
    wanted = {
        "o": (f"{up}/two/d/g", {"bucket": "two", "name": "d/g"}),
        "b": (f"{up}/two", {"bucket": "two"}),
        "self": (f"{up}/one", {"bucket": "one"}),
    }
    for name, (text, _) in wanted.items():
        (root / "one" / name).symlink_to(text)
    for name, (text, link) in wanted.items():
        assert one.info(name)["options"]["link"] == link
        assert os.readlink(root / "one" / name) == text
    assert one.get("o") == b"more"
    assert (root / "one/o").read_bytes() == b"more"
    assert seen(root / "one/b") == ["d", "f"]


@pytest.mark.clients
def test_links_for_go(
    client: ForeignClient, root: Path, own_server: Server, environment: dict[str, str]
) -> None:
    """K4: nats.go follows a symbolic link into another bucket, and one of its own leads there."""
    try:
        go = go_client(own_server.url, environment)
    except FileNotFoundError as missing:
        if required("clients"):
            raise
        pytest.skip(f"{missing}: install it")
    make(client, "one")
    make(client, "two", f=b"data")
    is_shown(root / "two")
    (root / "one/o").symlink_to("../two/f")
    assert go.of("one").get("o") == b"data"
    go.of("one").add_bucket_link("b", "two")
    wait_until(lambda: os.path.lexists(root / "one/b"), "the link")
    assert (root / "one/b/f").read_bytes() == b"data"


def test_links_that_stay_texts(client: ForeignClient, root: Path) -> None:
    """K5: what names a directory in another bucket, nothing, the top or a missing bucket is a
    symbolic link for this mount alone."""
    one = make(client, "one")
    make(client, "two", **{"d/g": b"more"})
    is_shown(root / "two")
    for number, text in enumerate(("../two/d", "../two/none", "..", "../none", "../../one")):
        (root / "one" / str(number)).symlink_to(text)
        assert "link" not in (one.info(str(number)).get("options") or {})
        assert os.readlink(root / "one" / str(number)) == text


def test_moved_links(client: ForeignClient, root: Path) -> None:
    """K4: a symbolic link that is moved is native where its text names an object from there."""
    one = make(client, "one")
    make(client, "two", f=b"data")
    is_shown(root / "two")
    (root / "one/d").mkdir()
    (root / "one/l").symlink_to("../../two/f")
    assert "link" not in (one.info("l").get("options") or {})
    (root / "one/l").rename(root / "one/d/l")
    assert one.info("d/l")["options"]["link"] == {"bucket": "two", "name": "f"}
    assert (root / "one/d/l").read_bytes() == b"data"


# -- trouble in one of them -----------------------------------------------------------------------


def test_deleted_under_open_files(client: ForeignClient, top: Mount) -> None:
    """A6: a bucket that is deleted while it is used gives ESTALE to who uses it, and nothing to
    others; one made again under its name is another directory."""
    root = top.directory
    make(client, "one", f=b"1")
    two = make(client, "two", f=b"22")
    is_shown(root / "one/f")
    is_shown(root / "two/f")
    inside = os.open(root / "one", os.O_RDONLY | os.O_DIRECTORY)
    reading = os.open(root / "one/f", os.O_RDONLY)
    writing = os.open(root / "one/g", os.O_WRONLY | os.O_CREAT)
    os.write(writing, b"lost")
    top.expect_trouble("ERROR.*bucket one is gone, and 4 written bytes with it")
    client.of("one").drop()
    wait_until(lambda: seen(root) == ["two"], "the bucket to go")
    assert refused(lambda: os.stat("f", dir_fd=inside)) in ("ESTALE", "ENOENT")
    assert refused(lambda: os.fsync(writing)) == "ESTALE"
    assert refused(lambda: os.pread(reading, 1, 0)) == "ESTALE"
    assert refused(lambda: os.close(writing)) == "ESTALE"
    make(client, "one", h=b"333")
    is_shown(root / "one/h")
    assert seen(root / "one") == ["h"]
    assert refused(lambda: os.stat("h", dir_fd=inside)) in ("ESTALE", "ENOENT")
    assert refused(lambda: os.close(reading)) == "ESTALE"
    os.close(inside)
    assert (root / "two/f").read_bytes() == b"22"
    assert two.get("f") == b"22"


def test_a_sealed_one(client: ForeignClient, root: Path) -> None:
    """A6: one bucket that is sealed is EROFS, and the others are not."""
    make(client, "one", f=b"1").seal()
    make(client, "two")
    is_shown(root / "two")
    assert refused(lambda: (root / "one/g").write_bytes(b"")) == "EROFS"
    assert (root / "one/f").read_bytes() == b"1"
    (root / "two/g").write_bytes(b"2")
    (root / "three").mkdir()
    (root / "three/f").write_bytes(b"3")


def test_read_only(
    own_server: Server, client: ForeignClient, tmp_path: Path, environment: dict[str, str]
) -> None:
    """B2: a read-only mount makes, changes and deletes nothing anywhere."""
    make(client, "one", f=b"1")
    directory = tmp_path / "ro"
    directory.mkdir()
    log = tmp_path / "ro.log"
    with Mount(own_server.url, directory, "--read-only", env=environment, log=log):
        assert refused((directory / "two").mkdir) == "EROFS"
        assert refused((directory / "one").rmdir) == "EROFS"
        assert refused(lambda: (directory / "one/g").write_bytes(b"")) == "EROFS"
        assert (directory / "one/f").read_bytes() == b"1"


#: A user who may list all buckets, follow them, and read the bucket "open" alone.
LIMITED = """
authorization { users: [
    { user: all, password: all }
    { user: some, password: some, permissions: {
        subscribe: ["_INBOX.>", "$JS.EVENT.ADVISORY.STREAM.*.*"]
        publish: [
            "$JS.API.STREAM.LIST", "$JS.API.INFO", "$JS.FC.>"
            "$JS.API.STREAM.INFO.OBJ_open", "$JS.API.STREAM.MSG.GET.OBJ_open"
            "$JS.API.DIRECT.GET.OBJ_open", "$JS.API.DIRECT.GET.OBJ_open.>"
            "$JS.API.CONSUMER.*.OBJ_open.>" ] } }
] }
"""


def test_who_may_not_read_all(tmp_path: Path, environment: dict[str, str]) -> None:
    """B1: a bucket that the user may list and not read is shown; entering it is EACCES at once, and
    the others can be used."""
    server = start_server(tmp_path / "limited", extra_config=LIMITED)
    try:
        client = py_client(server.url.replace("//", "//all:all@"), environment)
        make(client, "open", f=b"1")
        make(client, "shut", f=b"1")
        directory = tmp_path / "some"
        directory.mkdir()
        source = server.url.replace("//", "//some:some@")
        with Mount(source, directory, env=environment, log=tmp_path / "some.log") as mount:
            assert seen(directory) == ["open", "shut"]
            assert stat.S_ISDIR((directory / "shut").stat().st_mode)
            assert refused(lambda: seen(directory / "shut")) == "EACCES"
            assert refused((directory / "shut/f").stat) == "EACCES"
            assert (directory / "open/f").read_bytes() == b"1"
            mount.expect_trouble("WARNING.*does not allow publish")
            assert refused((directory / "new").mkdir) == "EACCES"
            assert refused((directory / "shut").rmdir) == "EACCES"
            make(client, "later")
            is_shown(directory / "later")
            assert mount.log_text().count("bucket shut may not be read") == 1
    finally:
        server.kill()


# -- many of them ---------------------------------------------------------------------------------


def test_many(
    own_server: Server, client: ForeignClient, tmp_path: Path, environment: dict[str, str]
) -> None:
    """B1: to mount, to list and to look at the attributes of many buckets follows none of them."""
    client.of("b").create_many(200)
    directory = tmp_path / "many"
    directory.mkdir()
    with Mount(own_server.url, directory, env=environment, log=tmp_path / "many.log"):
        assert len(seen(directory)) == 200
        listing = run(["ls", "-la", "--color=always", directory], env=environment).check()
        assert len(listing.splitlines()) == 203
        assert client.of("b").account()["consumers"] == 0
        assert seen(directory / "b7") == []
        assert client.of("b").account()["consumers"] == 1
    assert client.of("b").account()["consumers"] == 0


# -- the commands ---------------------------------------------------------------------------------


def test_commands(
    client: ForeignClient, own_server: Server, tmp_path: Path, environment: dict[str, str]
) -> None:
    """B1: --all mounts the buckets of NATS_URL, in the background; status, ls and umount know such
    a mount."""
    make(client, "one", **{"d/f": b"1"})
    make(client, "two", f=b"1")
    directory = tmp_path / "everything"
    directory.mkdir()
    env = {**environment, "NATS_URL": own_server.url}
    run(natsfs_command("mount", "--all", directory), env=env).check()
    try:
        assert seen(directory) == ["one", "two"]
        assert (directory / "one/d/f").read_bytes() == b"1"
        status = json.loads(run(natsfs_command("status", "--json", directory), env=env).check())
        assert (status[0]["buckets"], status[0]["objects"]) == (["one"], 1)
        listed = run(natsfs_command("ls", directory / "one/d"), env=env).check()
        assert listed.split()[-1] == "d/f"
        failed = run(natsfs_command("ls", directory), env=env)
        assert (failed.status, "natsfs bucket list" in failed.err) == (1, True)
    finally:
        run(natsfs_command("umount", directory), env=env).check()
    assert mounted_device(directory) is None
