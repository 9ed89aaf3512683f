"""Many hosts at work on the same files: what programs build on exclusive creation, compare-and-set
and coherence.  Each mount is a process of its own; the programs are threads here, which wait for
the kernel and not for each other."""

from __future__ import annotations

import mmap
import os
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from .conftest import Mounter
from .foreign import ForeignClient
from .mounting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(230)]

#: Seconds for everything that the programs of one test do: thirty times what the largest of those
#: that are not slow takes on two idle cores.
WORK = 120.0

#: The same for the slow ones.
SLOW_WORK = 800.0

#: What the slow ones are marked with.
SLOW = (pytest.mark.slow, pytest.mark.timeout(1000))


def at_once(tops: list[Path], rounds: int, work: Callable[[int, Path, int], None]) -> None:
    """Let *work* run for each of *tops* at the same time, for each number below *rounds*; the first
    error that one meets is raised.

    The programs are daemons: one that spins on a lock of another that failed is left behind.
    """
    barrier = threading.Barrier(len(tops))
    results: queue.Queue[BaseException | None] = queue.Queue()

    def run(number: int, top: Path) -> None:
        try:
            barrier.wait(30)
            for turn in range(rounds):
                work(number, top, turn)
        except BaseException as error:
            results.put(error)
        else:
            results.put(None)

    for number, top in enumerate(tops):
        threading.Thread(target=run, args=(number, top), daemon=True).start()
    deadline = time.monotonic() + (SLOW_WORK if rounds >= 60 else WORK)
    for _ in tops:
        error = results.get(timeout=deadline - time.monotonic())
        if error is not None:
            raise error


def directories(mounter: Mounter, count: int, *options: str) -> list[Path]:
    """*count* mounts of the test's bucket."""
    return [mounter(*options, life=1000.0).directory for _ in range(count)]


# -- contention -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("mounts", "rounds"), [(4, 50), pytest.param(8, 500, marks=SLOW)])
def test_attributes_set_by_all(mounter: Mounter, mounts: int, rounds: int) -> None:
    """M5: each mount changes its own attribute of one file, and no change is lost or refused."""
    tops = directories(mounter, mounts)
    (tops[0] / "f").write_bytes(b"x")
    for top in tops:
        wait_until((top / "f").exists, "the file on every mount")

    def work(number: int, top: Path, turn: int) -> None:
        name, text = f"user.m{number}", b"%d" % turn
        os.setxattr(top / "f", name, text)
        assert os.getxattr(top / "f", name) == text

    at_once(tops, rounds, work)
    wanted = {f"user.m{number}": b"%d" % (rounds - 1) for number in range(mounts)}

    def found(top: Path) -> dict[str, bytes]:
        return {name: os.getxattr(top / "f", name) for name in os.listxattr(top / "f")}

    for top in tops:
        wait_until(lambda: found(top) == wanted, "the last values of all")  # noqa: B023
    assert (tops[0] / "f").read_bytes() == b"x"


@pytest.mark.parametrize("writer", ["nats-py", "mount"])
def test_modes_change_while_another_writes(
    mounter: Mounter, py: ForeignClient, writer: str
) -> None:
    """M5, R1: chmod racing with puts never brings back a version whose chunks are purged."""
    mount = mounter("--purge-delay=0")
    file = mount.directory / "f"
    other = mounter("--purge-delay=0").directory / "f" if writer == "mount" else None
    rounds, body = 60 if other is not None else 12, b""
    file.write_bytes(b"version -1")
    if other is not None:
        wait_until(other.exists, "the file")
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            file.chmod(random.choice([0o600, 0o640, 0o644]))

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        try:
            for number in range(rounds):
                body = b"version %d" % number
                if other is not None:
                    other.write_bytes(body)
                else:
                    py.put("f", body)
                found = py.get("f") if number % 10 == 0 or other is None else body
                assert found == body
        finally:
            done.set()
        changing.result(30)
    assert py.get("f") == body
    mount.expect_trouble("WARNING.*was purged")
    wait_until(lambda: _read(file) == body, "the last version")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


# -- locks ----------------------------------------------------------------------------------------


@contextmanager
def exclusive_file(top: Path, owner: int) -> Iterator[None]:
    """A lock file by O_EXCL."""
    lock = top / "lock"
    _until(lambda: os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY)))
    try:
        yield
    finally:
        lock.unlink()


@contextmanager
def lock_directory(top: Path, owner: int) -> Iterator[None]:
    """A lock by mkdir."""
    lock = top / "lock.d"
    _until(lock.mkdir)
    try:
        yield
    finally:
        lock.rmdir()


@contextmanager
def linked_file(top: Path, owner: int) -> Iterator[None]:
    """The lock that is safe on NFS: a link to a file of one's own, which then has two names."""
    own, lock = top / f"own-{owner}", top / "lock.l"
    own.touch()

    def take() -> None:
        try:
            os.link(own, lock)
        except FileExistsError:
            if own.stat().st_nlink != 2:
                raise

    _until(take)
    assert own.stat().st_nlink == 2
    try:
        yield
    finally:
        lock.unlink()
        own.unlink()


def shown(value: int) -> str:
    """A counter as a file of ever another size."""
    return f"{value} {'.' * (value * 7 % 100)}\n"


def _until(take: Callable[[], None]) -> None:
    """Try to *take* a lock until it is free, backing off as such programs do."""
    pause = 0.001
    while True:
        try:
            take()
        except FileExistsError:
            time.sleep(random.uniform(0, pause))
            pause = min(2 * pause, 0.05)
        else:
            return


@pytest.mark.parametrize(("mounts", "rounds"), [(4, 12), pytest.param(6, 60, marks=SLOW)])
@pytest.mark.parametrize("lock", [exclusive_file, lock_directory, linked_file])
def test_a_counter_under_a_lock(
    mounter: Mounter,
    lock: Callable[[Path, int], AbstractContextManager[None]],
    mounts: int,
    rounds: int,
) -> None:
    """A1, A3: whoever has the lock sees what all before stored, so that no increment is lost."""
    tops = directories(mounter, mounts)
    (tops[0] / "counter").write_text(shown(0))
    for top in tops:
        wait_until((top / "counter").exists, "the counter on every mount")

    def work(number: int, top: Path, turn: int) -> None:
        with lock(top, number):
            text = (top / "counter").read_text()
            value = int(text.split()[0])
            assert text == shown(value)
            (top / f"new-{number}").write_text(shown(value + 1))
            (top / f"new-{number}").rename(top / "counter")

    at_once(tops, rounds, work)
    for top in tops:
        counter = top / "counter"
        total = shown(mounts * rounds)
        wait_until(lambda: counter.read_text() == total, "the sum")  # noqa: B023
        wait_until(lambda: os.listdir(top) == ["counter"], "the end of all locks")  # noqa: B023


# -- appending ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mounts", "rounds"), [(4, 15), pytest.param(8, 100, marks=SLOW)])
@pytest.mark.parametrize("how", ["close", "fsync"])
def test_lines_appended_by_all(
    mounter: Mounter, py: ForeignClient, mounts: int, rounds: int, how: str
) -> None:
    """A4, W3: each mount appends to one file; all lines are there, whole, once, in their order."""
    tops = directories(mounter, mounts)

    def line(number: int, turn: int) -> bytes:
        return b"%d %d " % (number, turn) + b"x" * (turn * 7 % 50) + b"\n"

    logs = [open(top / "log", "a+b", buffering=0) for top in tops]  # noqa: SIM115
    if how == "close":
        for log in logs:
            log.close()

    def work(number: int, top: Path, turn: int) -> None:
        if how == "close":
            with open(top / "log", "ab", buffering=0) as log:
                log.write(line(number, turn))
            return
        log = logs[number]
        log.write(line(number, turn))
        os.fsync(log.fileno())
        log.seek(0)
        assert line(number, turn) in log.read()

    at_once(tops, rounds, work)
    for log in logs:
        log.close()
    stored = py.get("log")
    lines = Counter(stored.splitlines(keepends=True))
    assert lines == Counter(line(n, turn) for n in range(mounts) for turn in range(rounds))
    for number in range(mounts):
        own = [
            int(text.split()[1]) for text in stored.splitlines() if text.startswith(b"%d " % number)
        ]
        assert own == sorted(own)
    for top in tops:
        file = top / "log"
        wait_until(lambda: file.read_bytes() == stored, "the log on every mount")  # noqa: B023


def test_readers_see_what_was_merged(mounter: Mounter, py: ForeignClient) -> None:
    """A4, W3: after a merge, handles and maps of the file on the same mount show it, too."""
    file, other = (top / "log" for top in directories(mounter, 2))
    file.write_bytes(b"base\n")
    wait_until(other.exists, "the file on the other mount")
    # No process may be started before the fsync: the descriptors that it closes would commit.
    with open(file, "ab", buffering=0) as log, open(file, "rb", buffering=0) as reader:
        pages = mmap.mmap(reader.fileno(), 5, prot=mmap.PROT_READ)
        assert reader.read() == pages[:] == b"base\n"
        log.write(b"ours 1\n")
        other.write_bytes(b"BASE\ntheirs\n")
        os.fsync(log.fileno())
        merged = b"BASE\ntheirs\nours 1\n"

        def seen() -> bytes:
            reader.seek(0)
            return reader.read()

        wait_until(lambda: seen() == merged, "the merged bytes by a handle opened before")
        wait_until(lambda: pages[:] == b"BASE\n", "the merged bytes in memory")
        log.write(b"ours 2\n")
        assert os.fstat(reader.fileno()).st_size == len(merged) + 7
        assert seen() == merged + b"ours 2\n"
        pages.close()
    assert py.get("log") == merged + b"ours 2\n"
    assert file.read_bytes() == merged + b"ours 2\n"
