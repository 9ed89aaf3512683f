"""Everything at once, and unmounting in the middle of it: nothing hangs, no daemon dies."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .conftest import Mounter
from .load import KINDS
from .mounting import (
    PACKAGE_ROOT,
    Mount,
    mounted_device,
    natsfs_command,
    run,
    wait_until,
)

pytestmark = [pytest.mark.mount, pytest.mark.timeout(300)]

#: Seconds of load before the unmounting, at most.
LOAD = 2.0

#: Seconds that load goes on after it, in a mount that is detached.
AFTER = 1.0

#: Seconds in which every program has to end after that, and every daemon after the last one.
END = 60.0

#: Lines of a log that such a storm brings: the foreign client purges what is being read (R1), or
#: what something is being appended to, which can then not be saved.  It purges without asking, so
#: also what was renamed meanwhile.
USUAL = "was purged|files .*could not be saved|are missing"

#: Ways to unmount, with whether they may be refused because the mount is busy.
WAYS: dict[str, tuple[Callable[[Mount], object], bool]] = {
    "natsfs umount": (lambda mount: command(*natsfs_command("umount", mount.directory)), True),
    "natsfs umount --lazy": (
        lambda mount: command(*natsfs_command("umount", "--lazy", mount.directory)),
        False,
    ),
    "umount": (lambda mount: command("umount", mount.directory), True),
    "umount -l": (lambda mount: command("umount", "-l", mount.directory), False),
    "fusermount3 -u": (lambda mount: command("fusermount3", "-u", mount.directory), True),
    "fusermount3 -uz": (lambda mount: command("fusermount3", "-uz", mount.directory), False),
    "SIGTERM": (lambda mount: os.kill(mount.pid, signal.SIGTERM), False),
    "SIGINT": (lambda mount: os.kill(mount.pid, signal.SIGINT), False),
}


def command(*argv: str | os.PathLike[str]) -> int:
    return run(argv, timeout=END, env=dict(os.environ)).status


@contextmanager
def programs(
    commands: list[list[str]], env: dict[str, str]
) -> Iterator[list[subprocess.Popen[str]]]:
    """*commands*, running; all are gone afterwards."""
    running = [
        subprocess.Popen(argv, env=env, cwd=PACKAGE_ROOT, stderr=subprocess.PIPE, text=True)
        for argv in commands
    ]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def load(mount: Mount, seconds: float) -> list[list[str]]:
    """One program of each kind on *mount*."""
    program = [sys.executable, "-m", "tests.mount.load"]
    return [[*program, kind, str(mount.directory), str(seconds)] for kind in KINDS]


def storm(url: str, bucket: str, seconds: float) -> list[str]:
    return [sys.executable, "-m", "tests.mount.storm", url, bucket, str(seconds)]


def stacks(mount: Mount) -> str:
    """Where the daemon is: what `py-spy` says if it is installed, and what the kernel says."""
    found = []
    if spy := shutil.which("py-spy"):
        dumped = subprocess.run(
            [spy, "dump", "--pid", str(mount.pid)], capture_output=True, text=True, check=False
        )
        found.append(dumped.stdout)
    for task in Path(f"/proc/{mount.pid}/task").glob("*"):
        found += [(task / "comm").read_text(), (task / "stack").read_text()]
    return "\n".join([*found, mount.log_text()[-3000:]])


@contextmanager
def no_hang(mount: Mount) -> Iterator[None]:
    """When the block fails, the daemon's stacks are part of the report, and the mount is cut off
    so that everything ends."""
    try:
        yield
    except BaseException as error:
        error.add_note(stacks(mount))
        mount.abort()
        raise


def ends_well(process: subprocess.Popen[str]) -> None:
    """*process* ends in time and by itself."""
    try:
        _, complaint = process.communicate(timeout=END)
    except subprocess.TimeoutExpired:
        where = Path(f"/proc/{process.pid}/stack").read_text()
        pytest.fail(f"hangs: {process.args!r}\n{where}")
    assert process.returncode == 0, complaint


@pytest.mark.parametrize(
    "ways",
    [
        ("umount", "SIGTERM"),
        ("natsfs umount --lazy", "fusermount3 -u"),
        pytest.param(("natsfs umount", "fusermount3 -uz"), marks=pytest.mark.nightly),
        pytest.param(("umount -l", "SIGINT"), marks=pytest.mark.nightly),
    ],
    ids=" and ".join,
)
def test_unmounting_under_load(
    mounter: Mounter, nats_url: str, bucket: str, environment: dict[str, str], ways: tuple[str, ...]
) -> None:
    """A1: two mounts and a foreign client change the same few names as fast as they can, in every
    way there is, while the mounts are unmounted: no program and no unmounting hangs, no daemon
    dies, no error is logged."""
    mounts = [mounter() for _ in ways]
    for mount in mounts:
        mount.expect_trouble(USUAL)
    seconds = random.uniform(LOAD / 3, LOAD)
    commands = [storm(nats_url, bucket, seconds + AFTER)]
    for mount in mounts:
        commands += load(mount, seconds + AFTER)
    with ExitStack() as stack:
        for mount in mounts:
            stack.enter_context(no_hang(mount))
        running = stack.enter_context(programs(commands, environment))
        time.sleep(seconds)  # the moment of unmounting is random
        refused = [
            mount
            for mount, way in zip(mounts, ways, strict=True)
            if unmounted(mount, *WAYS[way]) is False
        ]
        for process in running:
            ends_well(process)
        for mount in mounts:
            if mount in refused:
                mount.stop()
            else:
                mount.ended(END)


def unmounted(mount: Mount, way: Callable[[Mount], object], may_be_refused: bool) -> bool:
    """Whether the directory is free now.  A busy mount may refuse, and goes on then."""
    status = way(mount)
    if status and may_be_refused:
        return False
    assert not status
    wait_until(lambda: mounted_device(mount.directory) is None, "the end of the mount", END)
    return True
