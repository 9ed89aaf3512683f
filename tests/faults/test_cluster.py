"""A cluster of three servers, a bucket with three replicas, and what befalls them while programs
work in a mount of it.

A fault ends before the mount's time-out, so no program may fail; what they were told is then looked
for by another client, through another server, by content.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from natsfs.mount.ending import HANGS
from natsfs.server import Server
from tests.mount.mounting import PACKAGE_ROOT, Mount, refused, run, wait_until

from .cluster import Cluster
from .ground import Ground, files_of, look, patiently, stored

pytestmark = [pytest.mark.server, pytest.mark.mount, pytest.mark.timeout(180)]

MIB = 1024 * 1024

#: A line that the log of a mount may have when its server is taken away.
LOST = "WARNING.*lost the connection"

#: Makes something go wrong, and right again, while programs write to the stream.
Fault = Callable[[Cluster, str, Server], None]


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Cluster]:
    """Three servers."""
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), pytestconfig.getoption("--server"))
    yield cluster
    cluster.close()
    for node in cluster.nodes:
        # A server that meets what it did not expect gives the stream up, on every replica.
        assert "critical" not in (node.directory / "server.log").read_text()


@pytest.fixture
def ground(cluster: Cluster, tmp_path: Path) -> Iterator[Ground]:
    """A bucket with three replicas that are equal."""
    with Ground(tmp_path, cluster.urls) as ground:
        ground.create("--replicas", "3")
        cluster.settled(f"OBJ_{ground.bucket}")
        yield ground


def test_create_with_replicas(ground: Ground, cluster: Cluster, tmp_path: Path) -> None:
    """W1: a bucket is made with three copies, and says so."""
    info = ground.natsfs("bucket", "info", f"{ground.url}/{ground.bucket}", "--json").check()
    assert json.loads(info)["replicas"] == 3
    replicas = cluster.api(f"STREAM.INFO.OBJ_{ground.bucket}")["cluster"]["replicas"]
    assert len(replicas) == 2
    refusal = ground.natsfs("bucket", "create", f"{ground.url}/more", "--replicas", "5")
    assert refusal.status != 0
    assert len(refusal.err.splitlines()) == 1
    assert "5" in refusal.err or "peers" in refusal.err, refusal.err


# -- faults ---------------------------------------------------------------------------------------


def kill_leader(cluster: Cluster, stream: str, own: Server) -> None:
    with cluster.killed(cluster.leader(stream)):
        cluster.leader(stream)


def kill_follower(cluster: Cluster, stream: str, own: Server) -> None:
    follower = next(node for node in cluster.followers(stream) if node is not own)
    with cluster.killed(follower):
        cluster.leader(stream)


def kill_own(cluster: Cluster, stream: str, own: Server) -> None:
    with cluster.killed(own):
        cluster.leader(stream)


def kill_meta_leader(cluster: Cluster, stream: str, own: Server) -> None:
    with cluster.killed(cluster.meta_leader()):
        cluster.meta_leader()


def freeze_leader(cluster: Cluster, stream: str, own: Server) -> None:
    leader = cluster.leader(stream)
    with cluster.frozen(leader):
        wait_until(lambda: cluster.leader(stream) is not leader, "another leader")


def step_down(cluster: Cluster, stream: str, own: Server) -> None:
    for _ in range(3):
        cluster.step_down(stream)


def lose_quorum(cluster: Cluster, stream: str, own: Server) -> None:
    others = [node for node in cluster.nodes if node is not own]
    with cluster.frozen(*others):
        time.sleep(5.0)  # the fault itself: that long there is no quorum


FAULTS: list[Fault] = [
    *(kill_leader, kill_follower, kill_own, kill_meta_leader),
    *(freeze_leader, step_down, lose_quorum),
]


# -- a large upload -------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [kill_leader, step_down], ids=lambda fault: fault.__name__)
def test_upload(cluster: Cluster, ground: Ground, fault: Fault) -> None:
    """W1, A5: a large file is written through a fault of the cluster, and is whole where another
    client reads it, by another server."""
    mount, own = mounted(cluster, ground)
    upload(cluster, ground, mount, own, 48 * MIB, [fault])


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_large_upload(cluster: Cluster, ground: Ground, fault: Fault) -> None:
    """W1, A5: as above, with every fault, three times in one file."""
    mount, own = mounted(cluster, ground, life=2900)
    upload(cluster, ground, mount, own, 256 * MIB, [fault] * 3)


@pytest.mark.nightly
@pytest.mark.timeout(3500)
def test_gigabyte(cluster: Cluster, ground: Ground) -> None:
    """W1, A5: 1 GiB, and one fault after the other."""
    mount, own = mounted(cluster, ground, life=3400)
    upload(cluster, ground, mount, own, 1024 * MIB, FAULTS)


def mounted(cluster: Cluster, ground: Ground, life: float = 240.0) -> tuple[Mount, Server]:
    """A mount that knows all servers, and the one that it is connected to."""
    mount = ground.mount(life=life)
    mount.expect_trouble(LOST)
    return mount, connected_to(cluster, mount)


def connected_to(cluster: Cluster, mount: Mount) -> Server:
    """The server that most of the daemon's connections are to, once it has one."""

    def connections(node: Server) -> int:
        told = run(["ss", "-Htnp", "state", "established", f"dport = :{node.port}"]).check()
        return told.count(f"pid={mount.pid},")

    wait_until(lambda: any(connections(node) for node in cluster.nodes), "a connection")
    return max(cluster.nodes, key=connections)


def upload(
    cluster: Cluster, ground: Ground, mount: Mount, own: Server, size: int, faults: Sequence[Fault]
) -> None:
    """Write *size* bytes with a program, meet each of *faults* on the way, and check the bytes."""
    stream = f"OBJ_{ground.bucket}"
    body = os.urandom(MIB)
    expected = hashlib.sha256()
    path = mount.directory / "large"
    with subprocess.Popen(
        ["dd", f"of={path}", "bs=1M", "iflag=fullblock", "conv=fsync", "status=none"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        assert program.stdin is not None
        assert program.stderr is not None
        due = {size // MIB * (n + 1) // (len(faults) + 1): fault for n, fault in enumerate(faults)}
        for number in range(size // MIB):
            if number in due:
                due[number](cluster, stream, own)
            piece = number.to_bytes(8, "big") + body[8:]
            expected.update(piece)
            program.stdin.write(piece)
        program.stdin.close()
        assert program.wait(300) == 0, program.stderr.read().decode() + mount.log_text()
    cluster.settled(stream)
    go = ground.go(another(cluster, own).url)
    body = patiently(lambda: go.get("large"))
    assert hashlib.sha256(body).digest() == expected.digest()
    assert path.stat().st_size == size
    assert hashlib.sha256(path.read_bytes()).digest() == expected.digest()
    assert os.listdir(mount.directory) == ["large"]


def another(cluster: Cluster, own: Server) -> Server:
    return next(node for node in cluster.nodes if node is not own)


# -- a storm of metadata --------------------------------------------------------------------------


@pytest.mark.slow
def test_storm(cluster: Cluster, ground: Ground) -> None:
    """W1, A2, A5: whatever three programs were told while the servers fell is in the bucket, and
    the tree of the mount is right without another mount."""
    mount, own = mounted(cluster, ground)
    faults = [kill_own, step_down, lose_quorum, kill_leader]
    storm_through(cluster, ground, mount, own, faults)


@pytest.mark.nightly
@pytest.mark.timeout(3000)
def test_long_storm(cluster: Cluster, ground: Ground) -> None:
    """W1, A2, A5: as above with all faults, four times."""
    mount, own = mounted(cluster, ground, life=2900)
    storm_through(cluster, ground, mount, own, FAULTS * 4)


def storm_through(
    cluster: Cluster, ground: Ground, mount: Mount, own: Server, faults: Sequence[Fault]
) -> None:
    stream = f"OBJ_{ground.bucket}"
    with storms(mount.directory, 3) as programs:
        for fault in faults:
            fault(cluster, stream, own)
            cluster.settled(stream)
            own = connected_to(cluster, mount)
    expected = {}
    for name, program in programs.items():
        told = json.loads(program.communicate(timeout=120)[0])
        assert told["failed"] == [], mount.log_text()
        assert told["calls"] > 3, "how many they are depends on the machine"
        expected[name] = "755 directory"
        expected |= {f"{name}/{path}": fact for path, fact in told["tree"].items()}
    assert look(mount.directory) == expected
    assert stored(ground.py(another(cluster, own).url)) == files_of(expected)
    afresh = ground.mount(url=another(cluster, own).url, fresh=True)
    assert look(afresh.directory) == expected


@contextmanager
def storms(top: Path, count: int) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Programs that change what is below *top* while the block runs."""
    pipe = subprocess.PIPE
    programs = {
        f"s{number}": subprocess.Popen(
            [sys.executable, "-m", "tests.faults.storming", top / f"s{number}", str(number)],
            stdin=pipe,
            stdout=pipe,
            cwd=PACKAGE_ROOT,
        )
        for number in range(count)
    }
    try:
        for program in programs.values():
            assert program.stdout is not None
            assert program.stdout.readline() == b"ready\n"
        yield programs
    except BaseException:
        for program in programs.values():
            program.kill()
            program.communicate()
        raise


# -- several mounts -------------------------------------------------------------------------------

_CREATE = """
import os, sys
for number in range(40):
    try:
        os.close(os.open(f"{sys.argv[1]}/f{number}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        print(number)
    except FileExistsError:
        pass
"""


def test_exclusive_creation(cluster: Cluster, ground: Ground) -> None:
    """A3: of three programs on mounts by three servers one gets each name, while the leadership of
    the bucket goes round; the losers of a compare-and-set do no harm to a replica."""
    mounts = [ground.mount(url=node.url, fresh=True).directory for node in cluster.nodes]
    argv = [sys.executable, "-c", _CREATE]
    pipe = subprocess.PIPE
    programs = [subprocess.Popen([*argv, mount], stdout=pipe, text=True) for mount in mounts]
    cluster.step_down(f"OBJ_{ground.bucket}")
    won = [number for program in programs for number in program.communicate(timeout=120)[0].split()]
    assert [program.returncode for program in programs] == [0, 0, 0]
    assert sorted(won, key=int) == [str(number) for number in range(40)]
    # The consumers of 2.9 leave out messages of a replicated stream now and then, which is found by
    # counting, once a minute; 2.10 to 2.15 do not.
    everywhere = [mount.iterdir for mount in mounts]
    wait_until(lambda: all(len([*names()]) == 40 for names in everywhere), "all in all mounts", 90)


# -- what followers have --------------------------------------------------------------------------


def test_read_after_write(cluster: Cluster, ground: Ground) -> None:
    """A1, R1: what is closed in one mount is read in another, by another server, the moment that
    it shows there, whichever replica answers."""
    writer = ground.mount(url=cluster.nodes[0].url, fresh=True).directory
    readers = [ground.mount(url=node.url, fresh=True).directory for node in cluster.nodes]
    for number in range(60):
        body = os.urandom((10, 3000, 150_000, 700_000)[number % 4])
        (writer / f"f{number}").write_bytes(body)
        for reader in readers:
            path = reader / f"f{number}"
            wait_until(path.exists, f"{path}")
            assert path.read_bytes() == body
    for reader in readers:
        assert len(os.listdir(reader)) == 60


def test_frozen_follower(cluster: Cluster, ground: Ground) -> None:
    """A5, R1: a server that hangs and would answer one read of three does not hold up reading."""
    stream = f"OBJ_{ground.bucket}"
    leader = cluster.leader(stream)
    writer = ground.mount(url=leader.url).directory
    bodies = {f"f{number}": os.urandom(400_000) for number in range(12)}
    for name, body in bodies.items():
        (writer / name).write_bytes(body)
    cluster.settled(stream)
    usual = reading_time(ground.mount(url=leader.url, fresh=True), bodies)
    reader = ground.mount(url=leader.url, fresh=True)
    with cluster.frozen(cluster.followers(stream)[0]):
        # Some 12 of these 36 direct gets are drawn for the frozen server, for 3 s each.
        assert reading_time(reader, bodies) < 15 + 2 * usual
        for name, body in bodies.items():
            assert (writer / name).read_bytes() == body
        (writer / "new").write_bytes(b"new")
    wait_until((reader.directory / "new").exists, "what was written meanwhile")


def reading_time(mount: Mount, bodies: dict[str, bytes]) -> float:
    """How many seconds it takes to read all of *bodies*, which is what must be there."""
    begin = time.monotonic()
    for name, body in bodies.items():
        assert (mount.directory / name).read_bytes() == body
    return time.monotonic() - begin


# -- no quorum for longer than anybody waits ------------------------------------------------------


def test_without_quorum(cluster: Cluster, ground: Ground) -> None:
    """A5, E: without a quorum a program is told EIO in time, names and bytes that are here are
    served, nothing else is shown as done, and all goes on by itself afterwards."""
    mount = ground.mount("--timeout", "4s")
    mount.expect_trouble("WARNING|ERROR")
    (mount.directory / "kept").write_bytes(b"kept")
    assert (mount.directory / "kept").read_bytes() == b"kept"
    own = connected_to(cluster, mount)
    begin = time.monotonic()
    with cluster.frozen(*(node for node in cluster.nodes if node is not own)):
        assert (
            refused(lambda: (mount.directory / "kept").rename(mount.directory / "other")) == "EIO"
        )
        assert refused((mount.directory / "d").mkdir) == "EIO"
        assert os.listdir(mount.directory) == ["kept"]
        assert (mount.directory / "kept").read_bytes() == b"kept"
    assert time.monotonic() - begin < 30
    cluster.settled(f"OBJ_{ground.bucket}")
    wait_until(lambda: _works(mount.directory / "later"), "writing again")
    # What was refused may have been done after all, and the mount hears of that a little later.
    foreign = ground.py(another(cluster, own).url)
    wait_until(
        lambda: stored(foreign).keys() == set(os.listdir(mount.directory)) - {"d"},
        "the mount shows what the bucket has",
        90,
    )
    assert "later" in os.listdir(mount.directory)


def test_end_without_quorum(cluster: Cluster, ground: Ground) -> None:
    """A5: a mount that ends while nobody leads the bucket waits for a leader, because the server
    that it is connected to lives, and then stores what was left."""
    mount, own = mounted(cluster, ground)
    directory = mount.directory / "d"
    directory.mkdir()
    os.utime(directory, (1, 1))
    (directory / "file").write_bytes(b"written")
    changed = directory.stat().st_mtime_ns
    with cluster.frozen(*(node for node in cluster.nodes if node is not own)):
        run(["umount", mount.directory]).check()
        with pytest.raises(subprocess.TimeoutExpired):
            mount.wait(HANGS + 1.0)
    mount.ended(60)
    afresh = ground.mount(url=another(cluster, own).url, fresh=True)
    assert (afresh.directory / "d").stat().st_mtime_ns == changed


def _works(path: Path) -> bool:
    try:
        path.write_bytes(b"later")
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return False
    read = run(["cat", path])
    assert read.out in ("", "later")
    return read.status == 0 and read.out == "later"
