"""Crashes at any moment: nothing that close or fsync acknowledged is missing or changed."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from natsfs.server import Server, start_server
from tests.faults.promises import Promises
from tests.mount.foreign import ForeignClient, py_client
from tests.mount.mounting import PACKAGE_ROOT, Mount, wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(300)]

#: Programs that write at once.
WRITERS = 3

#: What is said while servers and daemons die.
USUAL = ".*"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = start_server(tmp_path / "store")
    yield started
    started.kill()


def contents(client: ForeignClient) -> dict[str, str]:
    return {name: hashlib.sha256(client.get(name)).hexdigest() for name in client.names()}


def stop_between_calls(program: subprocess.Popen[bytes], directory: Path) -> None:
    """Stop *program* where it has no file in *directory* open, if it comes there soon."""
    process = Path(f"/proc/{program.pid}")
    for _ in range(100):
        program.send_signal(signal.SIGSTOP)
        wait_until(lambda: process.joinpath("stat").read_text().split()[2] in "TZ", "it stops")
        opened = [os.readlink(file) for file in process.joinpath("fd").iterdir()]
        if not any(name.startswith(f"{directory}/") for name in opened):
            return
        program.send_signal(signal.SIGCONT)
        time.sleep(0.002)  # it goes on a little; nothing tells where it is
    program.send_signal(signal.SIGSTOP)


def crash(
    mount: Mount, server: Server, tmp_path: Path, chance: random.Random, away: float
) -> list[Path]:
    """Let programs write, and kill the daemon, perhaps the server as well, up to *away* seconds
    before, while they do."""
    manifests = [tmp_path / f"manifest-{number}-{chance.random()}" for number in range(WRITERS)]
    programs = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.faults.writer", mount.directory, manifest),
                *(f"w{number}", f"{chance.random()}"),
            ],
            cwd=PACKAGE_ROOT,
            env={**os.environ, "PYTHONPATH": str(PACKAGE_ROOT)},
        )
        for number, manifest in enumerate(manifests)
    ]
    try:
        time.sleep(chance.uniform(0.3, 1.5))  # the moment of the crash is random
        if chance.random() < 0.4:
            server.kill()
            time.sleep(chance.uniform(0.0, away))
            if chance.random() < 0.5:
                server.restart()
                time.sleep(chance.uniform(0.0, 1.0))
        # One of them comes to its next call when the mount is not only dead, but gone.
        stop_between_calls(programs[0], mount.directory)
        mount.kill()
        programs[0].send_signal(signal.SIGCONT)
        for program in programs:
            assert program.wait(60) == 0
    finally:
        for program in programs:
            program.kill()
            program.wait()
    return manifests


@pytest.mark.parametrize("option", ["writeback", "rw"])
@pytest.mark.parametrize(
    ("rounds", "away"),
    [
        (2, 0.5),
        pytest.param(100, 0.5, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)]),
        # Longer than a call waits for the server: what fails then is tried again until the end.
        pytest.param(12, 14.0, marks=[pytest.mark.nightly, pytest.mark.timeout(3600)]),
    ],
)
def test_crashes(
    server: Server,
    tmp_path: Path,
    environment: dict[str, str],
    rounds: int,
    away: float,
    option: str,
) -> None:
    """W1, W2, W7, W8: the daemon, and sometimes the server, is killed at random moments while
    programs write, sync, rename and remove; after the next mount the bucket has what was
    acknowledged, and for a call that was under way the old file or the new one, whole."""
    client = py_client(server.url, environment).of("own")
    client.create()
    promises = Promises()
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    directory = tmp_path / "mnt"
    directory.mkdir()

    def mount(number: int) -> Mount:
        log = tmp_path / f"mount-{number}.log"
        options = ("--timeout=5", "-o", option)
        found = Mount(f"{server.url}/own", directory, *options, env=environment, log=log)
        found.expect_trouble(USUAL)
        return found.start()

    for number in range(rounds):
        manifests = crash(mount(2 * number), server, tmp_path, chance, away)
        server.kill()
        server.restart()
        mount(2 * number + 1).stop()
        for manifest in manifests:
            promises.hear(manifest)
        found = contents(client)
        wrong = promises.broken(found)
        logs = [(tmp_path / f"mount-{2 * number + n}.log").read_text() for n in (0, 1)]
        assert not wrong, "\n".join([f"round {number}, seed {seed}", *wrong, *logs])
        promises.settle(found)
