"""Random faults of the network and the server while programs work: what they were told is what the
bucket holds in the end, and what the mount shows.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from natsfs.server import Server
from tests.faults.inspection import contents
from tests.faults.proxy import Fate, Proxy, nothing, subject_of
from tests.mount.conftest import Mounter
from tests.mount.mounting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.server]

#: Seconds of `--timeout`.
TIMEOUT = 2.0

#: Programs that work at the same time, each in a directory of its own.
PROGRAMS = 4

#: Bytes of the largest file: more than goes in one chain.
LARGEST = 1_500_000

USUAL = (
    r"lost the connection|no answer|no connection|connection lost|connection to|could not be saved"
    r"|no leader|nobody answers|out of order|JetStream|was changed by others|is not taken by"
    r"|is not known"
)


class Program(threading.Thread):
    """Writes, renames and removes files and notes what each name may hold: one body, or several
    (None: no file) after a call that failed, which may have been carried out."""

    def __init__(self, directory: Path, seed: int, until: float) -> None:
        super().__init__(name=f"program {seed}")
        self.directory = directory
        self.allowed: dict[str, set[bytes | None]] = {}
        self.failures = 0
        self.calls = 0
        self.error: BaseException | None = None
        self._chance = random.Random(seed)
        self._until = until

    def run(self) -> None:
        try:
            while time.monotonic() < self._until:
                self._step()
        except BaseException as error:
            self.error = error

    def _step(self) -> None:
        act = self._chance.choice([self._write, self._write, self._rename, self._remove])
        self.calls += 1
        act(*self._chance.sample([f"f{number}" for number in range(6)], 2))

    def _write(self, name: str, _: str) -> None:
        body = self._chance.randbytes(self._chance.choice([10, 200_000, LARGEST]))

        def write() -> None:
            with open(self.directory / name, "wb") as file:
                file.write(body)

        # A file is stored empty when it is made, and truncated when it is opened.
        self._attempt(write, {name: body}, {name: {body, b""}})

    def _rename(self, old: str, new: str) -> None:
        bodies = self.allowed.get(old, {None})
        if bodies == {None} or len(bodies) > 1:
            return
        (body,) = bodies
        self._attempt(
            lambda: (self.directory / old).rename(self.directory / new),
            {old: None, new: body},
            {old: {None}, new: {body}},
        )

    def _remove(self, name: str, _: str) -> None:
        if None in self.allowed.get(name, {None}):
            return
        self._attempt((self.directory / name).unlink, {name: None}, {name: {None}})

    def _attempt(
        self,
        call: Callable[[], object],
        done: dict[str, bytes | None],
        perhaps: dict[str, set[bytes | None]],
    ) -> None:
        try:
            call()
        except OSError:
            self.failures += 1
            for name, bodies in perhaps.items():
                self.allowed[name] = self.allowed.get(name, {None}) | bodies
        else:
            self.allowed |= {name: {body} for name, body in done.items()}


class Trouble:
    """Faults, one after the other, each of which ends."""

    def __init__(self, proxy: Proxy, server: Server, seed: int) -> None:
        self._proxy = proxy
        self._server = server
        self._chance = random.Random(seed)

    def one(self) -> str:
        """Cause one, end it, and say which it was."""
        faults = [self._cut, self._leave, self._stall, self._messages, self._slow, self._hang]
        fault = self._chance.choice([*faults, self._kill])
        fault()
        self._proxy.up = self._proxy.down = nothing
        self._proxy.rate = 0
        self._proxy.go_on()
        time.sleep(self._chance.uniform(0, 2))  # the programs get on
        return fault.__name__

    def _last(self, seconds: float = 2 * TIMEOUT) -> None:
        time.sleep(self._chance.uniform(0, seconds))  # how long the fault lasts

    def _cut(self) -> None:
        self._proxy.cut()

    def _leave(self) -> None:
        self._proxy.leave()
        self._last()

    def _stall(self) -> None:
        up, down = self._chance.choice([(True, True), (True, False), (False, True)])
        self._proxy.stall(up=up, down=down)
        self._last(10)

    def _messages(self) -> None:
        def treat(frame: bytes) -> Fate:
            if not subject_of(frame) or self._chance.random() > 0.05:
                return Fate.PASS
            return self._chance.choice([Fate.LOSE, Fate.TWICE, Fate.HALF, Fate.LAST])

        self._proxy.up = self._proxy.down = treat
        self._last(10)

    def _slow(self) -> None:
        self._proxy.rate = 1_000_000
        self._last()

    def _hang(self) -> None:
        os.kill(self._server.pid, signal.SIGSTOP)
        self._last(10)
        os.kill(self._server.pid, signal.SIGCONT)

    def _kill(self) -> None:
        self._server.kill()
        self._last()
        self._server.restart()


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(20, marks=pytest.mark.timeout(240)),
        pytest.param(1200, marks=[pytest.mark.nightly, pytest.mark.timeout(2400)]),
    ],
)
def test_random_faults(seconds: int, mounter: Mounter, own_server: Server) -> None:
    """A5, W1, W2: after random faults every file is what its program was last told, or, where it
    was told of a failure, the old or the new one and nothing else; the mount shows the same."""
    seed, bucket = int.from_bytes(os.urandom(4)), f"b-{uuid.uuid4().hex[:12]}"
    print(f"seed {seed}")
    with closing(Proxy(own_server.port)) as proxy:
        mount = mounter(
            *("--create", f"--timeout={TIMEOUT:g}s", "--purge-delay=1s"),
            source=f"{proxy.url}/{bucket}",
            life=seconds + 200,
        )
        mount.expect_trouble(USUAL)
        programs = []
        for number in range(PROGRAMS):
            directory = mount.directory / str(number)
            directory.mkdir()
            programs.append(Program(directory, seed + number, time.monotonic() + seconds))
        for program in programs:
            program.start()
        trouble, end = Trouble(proxy, own_server, seed), time.monotonic() + seconds
        while time.monotonic() < end:
            print(trouble.one())
        for program in programs:
            program.join(60)
            assert not program.is_alive(), f"{program.name} hangs\n{mount.log_text()[-3000:]}"
            assert program.error is None, program.error
        print([(program.calls, program.failures) for program in programs])
        assert any(program.calls > program.failures for program in programs)
        wait_until(lambda: made(mount.directory / "probe"), "the mount works again", 60)
        compare(programs, mount.directory, own_server.url, bucket, saved=False)
        # What could not be saved is kept (W7), and saved at the latest when the mount ends.
        mount.remount()
        compare(programs, mount.directory, own_server.url, bucket, saved=True)
        mount.stop()


def compare(programs: list[Program], top: Path, url: str, bucket: str, *, saved: bool) -> None:
    """What the programs were told, the mount shows and the bucket holds agree; where a call has
    failed and nothing is *saved* yet, the mount may be ahead."""
    found = contents(url, bucket).objects
    for program in programs:
        for name, bodies in program.allowed.items():
            path = program.directory / name
            stored = found.get(f"{path.relative_to(top)}")
            shown = path.read_bytes() if path.exists() else None
            report = path, size(stored), size(shown), [size(body) for body in bodies]
            assert stored in bodies, report
            assert shown in bodies, report
            if saved or len(bodies) == 1:
                assert shown == stored, report


def made(path: Path) -> bool:
    try:
        path.mkdir(exist_ok=True)
    except OSError:
        return False
    return True


def size(body: bytes | None) -> int | None:
    return None if body is None else len(body)
